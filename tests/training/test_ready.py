"""Before a run starts: the shards that recipes name are made where they are absent, and what would end the run later is said."""

import json
import re
import shutil
import signal
import socket
import sqlite3
import sys
from pathlib import Path

import pytest
from doors import command, well

RECIPE = "recipes/cdrl_stage1.py"
TINY = ["--scaling.workers", "1", "--data.split", "none", "--data.size", "32", "--tracking.uri", ""]
TINY += ["--ccrl.steps", "2", "--ccrl.global-batch", "2", "--cerl.steps", "2", "--cerl.global-batch", "2"]
TINY += ["--validation.every-steps", "0"]


def few_speakers() -> None:
    """The synthetic corpus as it is, with two speakers who say one sentence."""
    from spfem_dist.prepare import job

    run = job.run
    job.run = lambda settings, console: run(
        settings.model_copy(update={"identities": 2, "synthetic_sentences": 1, "size": 32}), console
    )


def without_ray_and_deepspeed() -> None:
    sys.modules["ray"] = sys.modules["deepspeed"] = None


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """(folder, output) of a machine with nothing on it, after two processes have run the recipe as it is."""
    home = tmp_path_factory.mktemp("fresh")
    return home, well(command("python", RECIPE, *TINY, workers=2, before=few_speakers, SPFEM_HOME=str(home)))


@pytest.fixture
def shards(fresh, tmp_path):
    """A copy of its shards that a test may break."""
    return Path(shutil.copytree(fresh[0] / "shards" / "synthetic", tmp_path / "shards"))


def train(shards, storage, *flags, **more):
    places = ["--data.shards", shards, "--checkpoint.storage", storage]
    return command("python", RECIPE, "--local", "--name", "r", *TINY, *places, *flags, **more)


def test_a_recipe_makes_the_shards_that_it_names_once_and_says_so(fresh):
    home, done = fresh
    assert done.said.count("the synthetic corpus (seed 0) is rendered and prepared there first") == 1
    assert "14 recordings in 2 groups" in done.said
    assert (home / "shards" / "synthetic" / "index.json").exists()
    for prior in ("ccrl", "cerl"):
        assert (home / "runs" / "cdrl-stage1" / prior / "model" / "model.safetensors").exists()


def test_a_dry_run_says_that_the_shards_would_be_made_and_makes_none(tmp_path):
    done = well(command("python", RECIPE, *TINY, "--dry-run", SPFEM_HOME=str(tmp_path)))
    assert "renders and prepares the synthetic corpus there first" in done.said
    assert not (tmp_path / "shards").exists()


def test_other_shards_that_are_missing_are_refused_before_ray_is_imported(tmp_path):
    flags = ["--data.shards", tmp_path / "mead", "--checkpoint.storage", tmp_path / "runs"]
    done = command("python", RECIPE, *TINY, *flags, before=without_ray_and_deepspeed)
    assert done.code == 1, done.said
    assert f"no shard index at {tmp_path}/mead/index.json" in done.said
    assert "spfem prepare CORPUS ROOT" in done.said
    assert not (tmp_path / "runs").exists()


def test_every_job_is_checked_before_the_first_one_trains(shards, tmp_path):
    index = shards / "index.json"
    index.write_text(re.sub(r'"emotion": ?"\w+"', '"emotion": "happy"', index.read_text()))
    done = train(shards, tmp_path / "runs", before=without_ray_and_deepspeed)
    assert done.code == 1, done.said
    assert "ccrl: none of the 2 utterance groups" in done.said
    assert not (tmp_path / "runs").exists(), "CERL, which these shards serve, did not train"


def test_other_data_under_a_used_name_are_refused_wherever_they_lie(fresh, shards, tmp_path):
    well(train(shards, tmp_path / "runs"))
    moved = shards.rename(tmp_path / "moved")
    assert "already finished" in well(train(moved, tmp_path / "runs")).said
    digest = json.loads((moved / "index.json").read_text())["digest"]
    words = ["spfem", "prepare", "synthetic", "--identities", "1", "--synthetic-sentences", "2", "--size", "32"]
    well(command(*words, "--seed", "7", "--local", "--out", shards))
    refused = train(shards, tmp_path / "runs")
    assert refused.code == 1, refused.said
    changed = json.loads((shards / "index.json").read_text())["digest"]
    for words in (digest[:12], changed[:12], "--data.allow-other True"):
        assert words in refused.said
    assert (
        f"data set {changed[:12]}, and 'r' has learned from {digest[:12]}"
        in train(shards, tmp_path / "runs", "--dry-run").said
    )
    well(train(shards, tmp_path / "runs", "--data.allow-other", "True"))


# --- tracking, Ray, launchers -------------------------------------------------------------------------------------


def refused(done, *phrases, code=1):
    assert done.code == code, done.said
    assert "Traceback" not in done.out + done.err
    for phrase in phrases:
        assert phrase in done.said, f"{phrase!r} is not in {done.said}"


def tracked_in(uri, shards, storage, *flags, **more):
    return train(shards, storage, "--tracking.uri", uri, *flags, before=without_ray_and_deepspeed, **more)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///anywhere/mlruns", "mlflow:5000", "http://host:port"])
def test_a_store_that_mlflow_cannot_write_to_is_refused_as_the_dry_run_refuses_it(uri, fresh, tmp_path):
    shards = fresh[0] / "shards" / "synthetic"
    started = tracked_in(uri, shards, tmp_path / "runs")
    refused(started, uri, "--tracking.uri sqlite:///runs/mlflow.db")
    detail = re.search(r"cannot be used: (.*?)\. Fix it", started.said)[1]
    refused(train(shards, tmp_path / "dry", "--tracking.uri", uri, "--dry-run"), f"tracking: {detail}")


def test_a_store_of_another_mlflow_is_refused_with_the_command_that_upgrades_it(fresh, tmp_path):
    from spfem_dist.tracking.store import open_client

    uri, shards = f"sqlite:///{tmp_path}/mlflow.db", fresh[0] / "shards" / "synthetic"
    open_client(uri)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("update alembic_version set version_num = 'v2.4.0.a'")
    for flags in ([], ["--dry-run"]):
        done = train(shards, tmp_path / "runs", "--tracking.uri", uri, *flags)
        refused(done, "another version of MLflow", "v2.4.0.a", f"mlflow db upgrade {uri}")


def test_the_environments_tracking_store_is_used_and_said_unless_another_is_given(fresh, tmp_path):
    shards, named = fresh[0] / "shards" / "synthetic", {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/named.db"}
    words = ["python", RECIPE, "--data.shards", shards, "--data.split", "none", "--data.size", "32", "--dry-run"]
    words += ["--checkpoint.storage", tmp_path / "runs"]
    done = well(command(*words, **named))
    assert f"tracking in sqlite:///{tmp_path}/named.db, as MLFLOW_TRACKING_URI says" in done.said
    assert f"SQLite file {tmp_path}/named.db, will be made" in done.said
    given = well(command(*words, "--tracking.uri", f"sqlite:///{tmp_path}/given.db", **named))
    assert "MLFLOW_TRACKING_URI" not in given.said
    assert f"SQLite file {tmp_path}/given.db, will be made" in given.said


def test_a_ray_address_where_nobody_answers_is_refused_before_ray_is_imported(fresh, tmp_path):
    flags = ["--data.shards", fresh[0] / "shards" / "synthetic", "--checkpoint.storage", tmp_path, *TINY]
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = command("python", RECIPE, *flags, before=without_ray_and_deepspeed, RAY_ADDRESS=address)
    refused(done, f"no Ray cluster answers at RAY_ADDRESS {address}", "unset it")
    page = command("python", RECIPE, *flags, before=without_ray_and_deepspeed, RAY_ADDRESS="http://127.0.0.1:8265")
    refused(page, "the address of a dashboard", "ray job submit")


def test_a_launchers_variables_without_a_meeting_place_are_named(fresh, tmp_path):
    flags = ["--data.shards", fresh[0] / "shards" / "synthetic", "--checkpoint.storage", tmp_path, *TINY]
    done = command("python", RECIPE, *flags, before=without_ray_and_deepspeed, WORLD_SIZE="2", RANK="0")
    refused(done, "WORLD_SIZE=2", "MASTER_ADDR and MASTER_PORT are not set", "torchrun", "unset WORLD_SIZE")


def interrupted_before_training() -> None:
    from spfem_dist.training import ready

    ready.check = lambda *_args, **_more: signal.raise_signal(signal.SIGINT)


def interrupted_in_prepare() -> None:
    from spfem_dist.prepare import job

    job.build_group = lambda *_args: signal.raise_signal(signal.SIGINT)


def interrupted_in_evaluate() -> None:
    from spfem_dist.evaluation import runs

    runs.evaluate_run = lambda *_args: signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("words", "before"),
    [
        (("python", RECIPE, "--local"), interrupted_before_training),
        (("spfem", "prepare", "synthetic", "--identities", "1", "--local", "--out", "OUT"), interrupted_in_prepare),
        (("spfem", "evaluate", "priors", "runs/none"), interrupted_in_evaluate),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_ctrl_c_ends_with_one_line(words, before, tmp_path):
    done = command(*(tmp_path / "out" if word == "OUT" else word for word in words), before=before)
    refused(done, "stopped", code=130)
    assert len(done.err.split("\n")) <= 3, done.err
