"""A trained generator as a registered model: MLflow edits a clip with it, and it says which priors and shards it comes from."""

import os
from fractions import Fraction

import av
import mlflow
import numpy as np
import pandas as pd
import pytest

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.generators.load import load_generator
from spfem_dist.tracking import models, tracker
from spfem_dist.tracking.lineage import CHAMPION
from spfem_dist.tracking.store import open_client


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="module")
def client(store):
    return open_client(store)


def opened(toy, store, tmp_path_factory) -> str:
    run = toy.run()
    run.tracking.uri, run.checkpoint.storage = store, str(tmp_path_factory.mktemp("runs"))
    with tracker.start(run, "ned") as following:
        return following.run_id


@pytest.fixture(scope="module")
def registered(toy, finished, store, tmp_path_factory):
    """(MLflow run, version) of the generator, after its priors were registered."""
    for name in ("ccrl", "cerl"):
        models.register_model(store, toy.stage1 / name / "model", name)
    run = opened(toy, store, tmp_path_factory)
    figures, digest = {"val/ned/picture": 0.5}, {"data.digest": "abc"}
    return run, models.register_model(store, finished / "r" / "ned" / "model", "ned", run, figures, 24, digest)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A talking head as a film, and the file of its landmarks."""
    place = tmp_path_factory.mktemp("films")
    corpus = SyntheticCorpus.small(identities=4, sentences=3, size=64)
    raw = corpus.render(corpus.clip(3, 0, Emotion.NEUTRAL))
    with av.open(str(place / "talk.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=25, width=64, height=64, pix_fmt="yuv420p")
        for number, pixels in enumerate(raw.frames[:14]):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    np.save(place / "talk.npy", raw.landmarks[:14])
    return place / "talk.mp4", place / "talk.npy"


def test_a_version_names_its_priors_its_shards_and_its_run(registered, toy, client):
    run, number = registered
    version = client.get_model_version("ned", number)
    assert (version.tags["prior.ccrl"], version.tags["prior.cerl"]) == ("models:/ccrl/1", "models:/cerl/1")
    assert len(version.tags["prior.ccrl.sha256"]) == 64
    assert (version.tags["data.digest"], version.tags["run"], version.run_id) == ("abc", "r", run)
    assert version.tags["data.shards"] == "/".join(toy.shards.parts[-2:]), "no path of this machine"
    assert "24 samples" in version.description
    assert "models:/ccrl/1" in version.description
    went_in = {one.model_id for one in client.get_run(run).inputs.model_inputs}
    assert went_in == {client.get_model_version(n, "1").source.removeprefix("models:/") for n in ("ccrl", "cerl")}


def test_mlflow_edits_a_clip_as_the_command_does(registered, finished, store, clip, tmp_path):
    source, landmarks = clip
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    try:
        model = mlflow.pyfunc.load_model("models:/ned@champion")
    finally:
        mlflow.set_tracking_uri(before)
    assert model.input_example["emotion"].tolist() == ["happy"]
    row = {"source": [str(source)], "out": [str(tmp_path / "edited.mp4")], "emotion": ["happy"]}
    row |= {"faces": ["aligned"], "landmarks": [str(landmarks)], "strength": [0.5]}
    said = model.predict(pd.DataFrame(row))
    assert (said["frames"][0], said["out"][0]) == (14, str(tmp_path / "edited.mp4"))

    from spfem_dist.editing.job import run
    from spfem_dist.editing.request import EditRequest

    ours = tmp_path / "ours.mp4"
    request = EditRequest(
        source, ours, str(finished / "r"), emotion="happy", strength=0.5, faces="aligned", landmarks=landmarks
    )
    run(request, load_generator)

    def pictures(film):
        with av.open(str(film)) as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

    np.testing.assert_array_equal(pictures(tmp_path / "edited.mp4"), pictures(ours))
    assert (pictures(ours) != pictures(source)).any()


def test_a_bad_row_is_refused_with_the_name_of_what_is_wrong(registered, store, clip, tmp_path):
    model = mlflow.pyfunc.load_model(str(models.fetch_model("models:/ned", store).parents[1]))
    with pytest.raises(ValueError, match="--emotion"):
        model.predict({"source": [str(clip[0])], "out": [str(tmp_path / "edited.mp4")]})
    with pytest.raises(ValueError, match="does not exist"):
        model.predict({"source": ["missing.mp4"], "out": [str(tmp_path / "edited.mp4")], "emotion": ["happy"]})
    with pytest.raises(mlflow.MlflowException, match="out"):
        model.predict({"source": [str(clip[0])], "emotion": ["happy"]})


def test_an_edit_can_name_it(registered, finished, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    named, saved = load_generator(f"models:/ned@{CHAMPION}"), load_generator(finished / "r")
    for key, value in saved.renderer.state_dict().items():
        assert (named.renderer.state_dict()[key] == value).all()


def test_nothing_in_it_is_a_pickle(registered, store):
    place = models.fetch_model("models:/ned", store).parents[1]
    files = [file for file in place.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".py", ".txt", ".yaml", ""}
    assert os.fspath(place / "MLmodel") in map(os.fspath, files)
