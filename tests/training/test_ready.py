"""Before a run starts: the shards that recipes name are made where they are absent, and what would end the run later is said."""

import json
import re
import shutil
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
