"""Trained priors as registered models: what goes in comes out, named as stage 2 names it."""

from __future__ import annotations

import filecmp
import subprocess
import sys

import mlflow
import numpy as np
import pytest
import torch

from spfem_dist.config import Data
from spfem_dist.priors.prior import build_prior, find, load_prior, save_prior
from spfem_dist.tracking import models, tracker
from spfem_dist.tracking.store import TrackingUnavailable


def trained(folder, seed, name="ccrl"):
    torch.manual_seed(seed)
    settings = find(name).Settings()
    prior = build_prior(settings, Data(), 160)
    return save_prior(folder, prior, settings=settings, data=Data(), feature_dim=160)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("priors")
    return [trained(root / str(seed), seed) for seed in (0, 1)]


@pytest.fixture
def ended(run):
    with tracker.start(run, "ccrl") as t:
        pass
    return t.run_id


def test_a_registered_prior_is_fetched_by_name_alias_version_and_run(run, folders, ended, client):
    uri = run.tracking.uri
    first = models.register_model(
        uri, folders[0], "by-name", ended, {"priors/content/same_speech_auc": 0.8}, samples=7200
    )
    second = models.register_model(uri, folders[1], "by-name", ended)
    assert (int(first), int(second)) == (1, 2)
    for name, folder in {
        "": folders[1],
        "@candidate": folders[1],
        f"/{first}": folders[0],
        f"/{second}": folders[1],
    }.items():
        found = models.fetch_model(f"models:/by-name{name}", uri)
        assert filecmp.cmp(found / "model.safetensors", folder / "model.safetensors", shallow=False)
        load_prior(found)
    version = client.get_model_version("by-name", str(first))
    assert version.run_id == ended
    assert version.tags["samples"] == "7200"
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert str(model.status) == "READY"
    assert {m.key: m.value for m in model.metrics} == {"priors/content/same_speech_auc": 0.8}


def test_the_same_weights_are_registered_once(run, folders, ended, client):
    first = models.register_model(run.tracking.uri, folders[0], "once", ended)
    assert models.register_model(run.tracking.uri, folders[0], "once", ended) == first
    assert len(client.search_model_versions("name = 'once'")) == 1


def test_an_alias_of_ones_own_stays_where_it_was_put(run, folders, ended):
    uri = run.tracking.uri
    models.register_model(uri, folders[0], "alias", ended, alias="published")
    models.register_model(uri, folders[1], "alias", ended)
    published = models.fetch_model("models:/alias@published", uri)
    assert filecmp.cmp(published / "model.safetensors", folders[0] / "model.safetensors", shallow=False)


def champion(client, name):
    return client.get_model_version_by_alias(name, "champion").version


def test_the_first_version_is_the_champion_until_a_person_moves_it(run, folders, ended, client):
    uri = run.tracking.uri
    models.register_model(uri, folders[0], "kept", ended, {"val/ccrl/contrast": 2.0})
    models.register_model(uri, folders[1], "kept", ended, {"val/ccrl/contrast": 1.0})
    assert str(champion(client, "kept")) == "1"


@pytest.mark.parametrize(
    ("figure", "digest", "winner"), [(1.0, "same", "2"), (3.0, "same", "1"), (1.0, "other", "1"), (None, "same", "1")]
)
def test_a_lower_loss_on_the_same_shards_takes_the_championship(run, folders, ended, client, figure, digest, winner):
    uri, name = run.tracking.uri, f"best-of-{figure}-{digest}".replace(".", "-")
    rule = {"champion_metric": "val/ccrl/contrast"}
    models.register_model(uri, folders[0], name, ended, {"val/ccrl/contrast": 2.0}, 8, {"data.digest": "same"}, **rule)
    figures = {} if figure is None else {"val/ccrl/contrast": figure}
    models.register_model(uri, folders[1], name, ended, figures, 16, {"data.digest": digest}, **rule)
    assert str(champion(client, name)) == winner


def test_mlflow_itself_can_load_and_ask_the_model(run, folders, ended):
    models.register_model(run.tracking.uri, folders[0], "asked", ended)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(run.tracking.uri)
    try:
        model = mlflow.pyfunc.load_model("models:/asked@candidate")
    finally:
        mlflow.set_tracking_uri(before)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (3, 3, 64, 64), dtype=np.uint8)
    speech = rng.normal(size=(3, 5, 160)).astype(np.float32)
    with torch.inference_mode():
        expected = load_prior(folders[0])[0].embed(torch.from_numpy(frames), torch.from_numpy(speech)).numpy()
    np.testing.assert_allclose(model.predict({"frames": frames, "speech": speech}), expected, atol=1e-6)


def test_nothing_in_a_registered_model_is_a_pickle(run, folders, ended, client):
    version = models.register_model(run.tracking.uri, folders[0], "plain", ended)
    place = models.fetch_model(f"models:/plain/{version}", run.tracking.uri).parents[1]
    names = {file.suffix for file in place.rglob("*") if file.is_file()}
    assert names <= {".safetensors", ".json", ".py", ".txt", ".yaml", ""}
    assert (place / "MLmodel").exists()


def test_a_folder_is_taken_as_it_is_and_needs_no_store(folders):
    assert models.fetch_model(folders[0]) == folders[0]
    assert models.fetch_model(str(folders[0].parent / "0")) == folders[0]


def test_a_name_that_does_not_exist_gets_the_names_that_do(run, folders, ended):
    uri = run.tracking.uri
    models.register_model(uri, folders[0], "known", ended)
    for asked, hint in {
        "models:/unknown": "models:/known",
        "models:/known@best": "candidate",
        "models:/known/99": "versions of known: 1",
        "models:/known/latest": "models:/NAME@ALIAS",
        "runs:/0123/model": "could not be fetched",
    }.items():
        with pytest.raises(FileNotFoundError, match=hint):
            models.fetch_model(asked, uri)


def test_a_folder_without_a_prior_is_refused(run, tmp_path, ended):
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        models.register_model(run.tracking.uri, tmp_path, "empty", ended)
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        models.fetch_model(tmp_path)


def test_a_model_of_a_store_that_is_off_or_away_is_refused_in_one_message(folders):
    with pytest.raises(TrackingUnavailable, match="turned off"):
        models.fetch_model("models:/ccrl", "")
    with pytest.raises(TrackingUnavailable, match=r"127\.0\.0\.1:9") as caught:
        models.register_model("http://me:sesame@127.0.0.1:9", folders[0], "ccrl")
    assert "sesame" not in str(caught.value)


def test_asking_whether_the_store_answers_does_not_import_mlflow(tmp_path):
    code = "import sys; from spfem_dist.tracking.store import reachable; reachable('sqlite:///x.db'); assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert not list(tmp_path.iterdir())
