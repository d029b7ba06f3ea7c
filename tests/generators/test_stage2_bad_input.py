"""Bad input of stage 2, of editing and of scoring ends in one clear message that names the thing and the fix.

Every case goes through a command that a user types.
"""

import json
import shutil
from pathlib import Path

import boto3
import numpy as np
import pytest
from doors import command
from moto_s3 import moto_s3
from safetensors.torch import load_file, save_file
from toy_stage2 import DRY, alone, save_priors

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.judges.saved import NAMES, build_judge, save_judge
from spfem_dist.evaluation.judges.settings import Identity, Oracle, Synchrony
from spfem_dist.prepare.shards import encode_video
from spfem_dist.priors.frozen import frozen_priors
from spfem_dist.priors.prior import load_prior


def refused(done, *phrases, code=1):
    """The message of a command that must have ended with `code`, must say all `phrases`, and show no traceback."""
    assert done.code == code, f"{done.command} ended with {done.code}\n{done.out[-2000:]}\n{done.err[-2000:]}"
    assert "Traceback" not in done.out + done.err, done.err[-3000:]
    for phrase in phrases:
        assert str(phrase) in done.said, f"{phrase!r} is not said:\n{done.out[-1500:]}\n{done.err[-3000:]}"
    return done


@pytest.fixture
def priors(toy, tmp_path) -> Path:
    """A copy of stage 1's result that a test may break."""
    return Path(shutil.copytree(toy.stage1, tmp_path / "stage1"))


def train(toy, storage, *priors, flags=()):
    """A run that would take one step under `priors`."""
    return alone(toy, storage / "runs", "--priors", *map(str, priors), "--ned.steps", "1", *flags)


# --- priors -------------------------------------------------------------------------------------------------------


def test_a_stage_one_run_that_is_not_there_is_named(toy, tmp_path):
    refused(train(toy, tmp_path, tmp_path / "nowhere"), tmp_path / "nowhere", "give the folder of a finished stage-1")


def test_a_stage_one_run_that_has_not_finished_is_named(toy, priors, tmp_path):
    for name in ("ccrl", "cerl"):
        shutil.rmtree(priors / name)
    refused(train(toy, tmp_path, priors), priors, "holds no finished prior", "train it to its end first")


def test_a_stage_one_run_of_which_one_prior_has_finished_is_not_taken_for_whole(toy, priors, tmp_path):
    shutil.rmtree(priors / "cerl")
    run = {kind: {"kind": kind, "enabled": True} for kind in ("ccrl", "cerl")}
    (priors / "run.json").write_text(json.dumps(run))
    refused(train(toy, tmp_path, priors), "has not finished cerl", f"--priors {priors}/ccrl/model")


def test_priors_of_other_speech_features_are_refused(toy, tmp_path):
    save_priors(tmp_path / "other", toy.data, feature_dim=80)
    done = train(toy, tmp_path, tmp_path / "other")
    refused(done, "listens to 80 speech features a frame", f"{toy.shards} has 160", "the same --speech")


def test_priors_of_another_speech_window_are_refused(toy, tmp_path):
    save_priors(tmp_path / "other", toy.data.model_copy(update={"speech_window": 9}), feature_dim=160)
    done = train(toy, tmp_path, tmp_path / "other")
    refused(done, "trained with data.speech_window 9, this run has 5", "--data.speech-window 9")


def test_two_priors_of_one_kind_are_refused(toy, priors, tmp_path):
    done = train(toy, tmp_path, toy.stage1, priors / "ccrl" / "model")
    refused(done, "names two ccrl priors", priors / "ccrl" / "model", "give one of each kind")


def empty(folder: Path) -> None:
    (folder / "config.json").write_text('{"format": ')


def of_no_known_kind(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"kind": "unheard_of"}))


def with_a_setting_that_is_gone(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["margin"] = 0.2
    (folder / "config.json").write_text(json.dumps(config))


def of_an_older_version(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, folder / "model.safetensors")


def cut_short(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("harm", "phrases"),
    [
        (empty, ["config.json is damaged", "copy the prior again"]),
        (of_no_known_kind, ["config.json describes no prior of this version", "unheard_of", "train it again"]),
        (with_a_setting_that_is_gone, ["describes no prior of this version", "margin", "train it again"]),
        (of_an_older_version, ["holds a prior of another version", "lacks", "train it again"]),
        (cut_short, ["model.safetensors is damaged", "copy the prior again"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_prior_that_cannot_be_loaded_is_named_with_its_folder(harm, phrases, toy, priors, tmp_path):
    harm(priors / "ccrl" / "model")
    refused(train(toy, tmp_path, priors), priors / "ccrl" / "model", *phrases)


def test_a_model_that_nobody_registered_is_answered_with_the_known_ones(toy, tmp_path):
    store = ["--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db"]
    done = train(toy, tmp_path, "models:/nobody", flags=store)
    refused(done, "models:/nobody does not exist", "registered models: none", "Train stage 1 first")


def test_a_registered_model_without_tracking_is_refused(toy, tmp_path):
    refused(train(toy, tmp_path, "models:/ccrl"), "models:/ccrl", "tracking is turned off", "set tracking.uri")


def test_relative_folders_of_priors_start_where_other_paths_do(toy, monkeypatch):
    monkeypatch.setenv("SPFEM_HOME", "/data")
    run = toy.run(priors=("runs/cdrl-stage1", "models:/ccrl", "s3://bucket/runs/cdrl-stage1"))
    assert run.absolute().priors == ("/data/runs/cdrl-stage1", "models:/ccrl", "s3://bucket/runs/cdrl-stage1")


@pytest.fixture
def bucket(monkeypatch):
    """An S3 client; the process's own settings lead to the same server, with the bucket `faces`."""
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    with moto_s3() as address:
        for name, value in (keys | {"AWS_ENDPOINT_URL": address}).items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="faces")
        yield client


def test_priors_come_from_a_bucket_by_run_or_one_by_one(toy, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for file in toy.stage1.rglob("*.*"):
        bucket.upload_file(str(file), "faces", f"runs/one/{file.relative_to(toy.stage1)}")

    def found(*named):
        return frozen_priors(named, "", toy.data, "cpu").networks

    assert set(found("s3://faces/runs/one")) == {"ccrl", "cerl"}
    assert set(found("s3://faces/runs/one/cerl/model")) == {"cerl"}
    saved, _ = load_prior(toy.stage1 / "cerl" / "model")
    brought = found("s3://faces/runs/one")["cerl"].state_dict()
    assert all(value.equal(brought[key]) for key, value in saved.state_dict().items())
    with pytest.raises(FileNotFoundError, match="no finished prior under s3://faces/runs/two: train it"):
        found("s3://faces/runs/two")


# --- shards -------------------------------------------------------------------------------------------------------


def test_shards_without_landmarks_are_refused_with_the_command_that_finds_them(toy, tmp_path):
    shards = Path(shutil.copytree(toy.shards, tmp_path / "shards"))
    index = json.loads((shards / "index.json").read_text())
    (shards / "index.json").write_text(json.dumps(index | {"landmarks": "none"}))
    done = train(toy, tmp_path, toy.stage1, flags=["--data.shards", str(shards)])
    refused(done, shards, "hold no landmarks, which this stage needs", "--faces mesh")


def test_the_dry_run_says_the_same(toy, tmp_path):
    done = command(*toy.words(DRY, tmp_path, "--priors", tmp_path / "nowhere"))
    refused(done, "would fail:", tmp_path / "nowhere", "give the folder of a finished stage-1")


# --- editing and scoring ------------------------------------------------------------------------------------------


@pytest.fixture
def unfinished(toy, tmp_path) -> Path:
    """The folder of a stage-2 run that has exported nothing yet."""
    folder = tmp_path / "unfinished"
    folder.mkdir()
    (folder / "run.json").write_text(toy.run().model_dump_json())
    return folder


@pytest.fixture
def judges(toy, tmp_path) -> Path:
    """Judges that nobody trained, as a finished run of recipes/metric_nets.py leaves them."""
    shape = {"topology": "ibug68", "speakers": ["S00", "S01"], "feature_dim": 160, "speech_window": 5}
    facts = {"run": "judges", "corpus": "synthetic", "digest": "0" * 64, "figures": {}, "intervals": {}}
    for name, settings in zip(NAMES, (Oracle(), Identity(), Synchrony()), strict=True):
        judge = build_judge(name, settings, shape)
        save_judge(tmp_path / "judges" / name / "model", judge, name=name, settings=settings, shape=shape, facts=facts)
    return tmp_path / "judges"


@pytest.fixture
def edit(tmp_path):
    """Edits a talking head, whose landmarks are known, with the generator of a folder."""
    corpus = SyntheticCorpus.small(identities=1, sentences=1, size=64)
    raw = corpus.render(corpus.clip(0, 0, Emotion.NEUTRAL))
    (tmp_path / "head.mp4").write_bytes(encode_video(raw.frames, 25.0))
    np.save(tmp_path / "head.npy", raw.landmarks)
    words = ["spfem", "edit", tmp_path / "head.mp4", "--faces", "aligned", "--landmarks", tmp_path / "head.npy"]
    return lambda folder: command(*words, "--emotion", "sad", "--out", tmp_path / "sad.mp4", "--generator", folder)


def test_editing_with_a_run_that_has_not_finished_says_so(edit, unfinished):
    refused(edit(unfinished), unfinished, "holds no finished generator", "train it to its end first")


def test_editing_with_a_folder_that_holds_no_generator_says_what_to_give(edit, tmp_path):
    refused(edit(tmp_path), f"no generator in {tmp_path}", "runs/cdrl-stage2")


def test_scoring_a_run_that_has_not_finished_says_so(unfinished, judges):
    done = command("spfem", "evaluate", "generator", unfinished, "--judges", judges)
    refused(done, unfinished, "holds no finished generator", "train it to its end first")
