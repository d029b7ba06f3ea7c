"""`spfem export`: what a run trained as a folder that loads on a CPU, whether it finished or stopped at a checkpoint."""

import json
import shutil
import signal
from pathlib import Path

import boto3
import pytest
from documented import words_of
from doors import command, well
from moto_s3 import moto_s3
from toy_stage2 import DRY, alone, killed_after_step_five, toy_of, two_workers

from spfem_dist.exporting import export
from spfem_dist.generators.load import load_generator
from spfem_dist.priors.prior import load_prior

FINISHED = "spfem export runs/cdrl-stage2 --out model"
UNFINISHED = "spfem export runs/cdrl-stage2 --out model --checkpoint latest"
TO_S3 = "spfem export runs/cdrl-stage2 --out s3://bucket/model"
PRIORS = "spfem export runs/cdrl-stage1 --out priors"
BRIEF = ["--ned.steps", "2", "--validation.every-steps", "0", "--ned.half-life", "8"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_of(tmp_path_factory)


@pytest.fixture(scope="module")
def finished(toy, tmp_path_factory):
    """The folder of a finished run in one process at ZeRO-0."""
    storage = tmp_path_factory.mktemp("finished")
    well(alone(toy, storage, *BRIEF, "--zero.stage", "0"))
    return storage / "r"


@pytest.fixture(scope="module")
def killed(toy, tmp_path_factory):
    """The folder of a run that was killed; its last checkpoint is of step 4, the one before of step 2."""
    storage = tmp_path_factory.mktemp("killed")
    done = alone(toy, storage, "--checkpoint.every-steps", "2", before=killed_after_step_five)
    assert done.code == -signal.SIGKILL
    return storage / "r"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_finished_run_is_exported_with_its_card(finished, toy, tmp_path):
    done = well(command(*words_of(FINISHED, {"runs/cdrl-stage2": finished, "model": tmp_path / "model"})))
    assert "it loads on a CPU" in done.said
    kept = {"config.json", "model.safetensors", "face.safetensors", "texture.safetensors", "README.md"}
    assert set(contents(tmp_path / "model")) == kept
    assert load_generator(tmp_path / "model").size == 32
    card = (tmp_path / "model" / "README.md").read_text()
    index = json.loads((toy.shards / "index.json").read_text())
    priors = json.loads((tmp_path / "model" / "config.json").read_text())["facts"]["priors"]
    for part in (
        *(index["digest"], priors["ccrl"]["sha256"], priors["cerl"]["sha256"], "2 optimiser steps, 8 samples, seed 0"),
        "exponential moving average, of half-life 8",
        *("Not scored yet", "Apache-2.0", "labels it as edited", "people who agreed", '"pairs"'),
    ):
        assert part in card, part
    for file in ("README.md", "config.json"):
        assert str(toy.shards.parent) not in (tmp_path / "model" / file).read_text(), (
            "nobody needs this machine's paths"
        )


def test_a_generator_that_began_from_another_runs_pretraining_is_exported(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    configured = json.loads((tmp_path / "run" / "run.json").read_text())
    configured["pretraining"] |= {"enabled": True}
    configured["pretrained"] = "/elsewhere/runs/pretraining"
    (tmp_path / "run" / "run.json").write_text(json.dumps(configured))
    (written,) = export(str(tmp_path / "run"), tmp_path / "model")
    assert contents(written)["model.safetensors"] == contents(finished / "ned" / "model")["model.safetensors"]


@pytest.mark.parametrize(
    "stage", [pytest.param(0, marks=pytest.mark.nightly), pytest.param(2, marks=pytest.mark.nightly), 3]
)
def test_the_last_checkpoint_gives_the_export_of_the_finished_run(stage, toy, finished, tmp_path):
    if stage == 0:
        run = finished
    else:
        well(two_workers(toy, tmp_path, *BRIEF, "--zero.stage", str(stage)))
        run = tmp_path / "r"
    export(str(run), tmp_path / "end")
    export(str(run), tmp_path / "checkpoint", checkpoint="latest")
    assert contents(tmp_path / "checkpoint") == contents(tmp_path / "end")


def test_an_unfinished_run_is_exported_from_its_checkpoints(killed, tmp_path):
    done = command(*words_of(FINISHED, {"runs/cdrl-stage2": killed, "model": tmp_path / "model"}))
    assert done.code == 1
    assert "has not finished ned; it has checkpoints of steps 2, 4: give --checkpoint latest" in done.said
    assert not (tmp_path / "model").exists()
    well(command(*words_of(UNFINISHED, {"runs/cdrl-stage2": killed, "model": tmp_path / "model"})))
    assert load_generator(tmp_path / "model").config["facts"]["steps"] == 4
    assert "4 optimiser steps, 16 samples" in (tmp_path / "model" / "README.md").read_text()
    export(str(killed), tmp_path / "earlier", checkpoint="2")
    assert load_generator(tmp_path / "earlier").config["facts"]["samples"] == 8
    assert (tmp_path / "earlier" / "model.safetensors").read_bytes() != (
        tmp_path / "model" / "model.safetensors"
    ).read_bytes()


def test_a_stage_one_run_gives_a_folder_for_each_prior(toy, tmp_path):
    places = ["--data.shards", toy.shards, "--data.split", toy.split, "--data.size", "32", "--checkpoint.storage"]
    brief = ["--ccrl.steps", "2", "--ccrl.global-batch", "2", "--cerl.steps", "2", "--cerl.global-batch", "2"]
    brief += ["--validation.every-steps", "0", "--tracking.uri", "", "--tracking.pictures-every-steps", "0"]
    well(command("python", "recipes/cdrl_stage1.py", "--local", "--name", "r", *places, tmp_path, *brief))
    well(command(*words_of(PRIORS, {"runs/cdrl-stage1": tmp_path / "r", "priors": tmp_path / "priors"})))
    for name in ("ccrl", "cerl"):
        assert load_prior(tmp_path / "priors" / name)[1]["kind"] == name
        assert "says" in (tmp_path / "priors" / name / "README.md").read_text()
    export(str(tmp_path / "r"), tmp_path / "checkpoint", checkpoint="latest")
    assert contents(tmp_path / "checkpoint") == contents(tmp_path / "priors")
    guided = ["--priors", tmp_path / "priors" / "ccrl", tmp_path / "priors" / "cerl"]
    planned = command(*toy.words(DRY, tmp_path / "new", *guided))
    assert "ready" in well(planned).said


def test_a_run_in_a_bucket_is_exported(finished, tmp_path, monkeypatch):
    with moto_s3() as address:
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in (keys | {"AWS_ENDPOINT_URL": address}).items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="faces")
        for name, content in contents(finished).items():
            client.put_object(Bucket="faces", Key=f"runs/r/{name}", Body=content)
        export("s3://faces/runs/r", tmp_path / "end")
        export("s3://faces/runs/r/", tmp_path / "checkpoint", checkpoint="2")
        words = ["spfem", "export", finished, "--out"]
        documented = words_of(TO_S3, {"runs/cdrl-stage2": finished, "s3://bucket/model": "s3://faces/model"})
        assert "s3://faces/model: written" in well(command(*documented, cwd=tmp_path)).said
        assert load_generator("s3://faces/model").size == 32
        assert "s3://faces/model is there already" in command(*words, "s3://faces/model", cwd=tmp_path).said
        assert "or to s3://" in command(*words, "https://faces/model", cwd=tmp_path).said
        assert {path.name for path in tmp_path.iterdir()} == {"end", "checkpoint"}, "no local folder s3:"
    export(str(finished), tmp_path / "here")
    assert contents(tmp_path / "end") == contents(tmp_path / "checkpoint") == contents(tmp_path / "here")


def test_figures_of_an_evaluated_run_are_on_the_card(finished, tmp_path):
    figures = {"emotion_accuracy": 0.5, "mouth_corr": 0.75}
    summary = {
        "facts": {"stage2": {"both": {"judges": "corpus-trained judges 'judges'"}}},
        "stage2": {"both": figures, "copy": {"emotion_accuracy": 0.125}, "target": {"emotion_accuracy": 0.875}},
        "intervals": {"stage2": {"both": {"emotion_accuracy": {"low": 0.25, "high": 0.625, "clips": 36}}}},
    }
    (finished / "summary.json").write_text(json.dumps(summary))
    try:
        export(str(finished), tmp_path / "model")
    finally:
        (finished / "summary.json").unlink()
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| emotion_accuracy | 0.500 | 0.250 .. 0.625 | 0.125 | 0.875 |" in card
    assert "| mouth_corr | 0.750 |" in card
    assert "judged by corpus-trained judges 'judges'" in card


@pytest.mark.parametrize(
    ("asked", "phrase"),
    [
        ({"checkpoint": "3"}, "no checkpoint '3' of ned in .*: complete ones are of steps 2, 4"),
        ({"checkpoint": "newest"}, "no checkpoint 'newest'"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_answered_with_those_that_are(asked, phrase, killed, tmp_path):
    with pytest.raises(FileNotFoundError, match=phrase):
        export(str(killed), tmp_path / "model", **asked)


def test_what_is_there_already_is_not_overwritten(finished, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is there already: choose another --out"):
        export(str(finished), tmp_path)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run.json in .*: give the folder of a training run"):
        export(str(tmp_path / "nowhere"), tmp_path / "model")
    (tmp_path / "run.json").write_text('{"oracle": {"enabled": true}}')
    with pytest.raises(ValueError, match="trains neither a generator nor priors"):
        export(str(tmp_path), tmp_path / "model")
