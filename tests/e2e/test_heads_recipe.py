"""The recipe of rendered heads, from nothing to a folder that edits films; in small."""

import json

import pytest
from doors import ROOT, command, well

from spfem_dist.generators.load import load_generator

SMALL = ("--size", "64", "--identities", "2", "--sentences", "1", "--local")
PLACES = ("--runs", "runs", "--shards", "shards/heads", "--out", "model")


@pytest.mark.nightly
def test_the_packages_weights_are_made_by_one_command(tmp_path):
    recipe = ROOT / "recipes" / "heads.py"
    arguments = ("python", recipe, "--pretraining-only", "--steps", "2", *SMALL, *PLACES)
    well(command(*arguments, cwd=tmp_path))
    made = load_generator(str(tmp_path / "model"))
    assert (made.size, made.topology) == (64, "mesh478")
    configured = json.loads((tmp_path / "runs" / "heads" / "run.json").read_text())
    assert configured["pretraining"]["pairs"] == 20
    assert configured["seed"] == 0
    assert not (tmp_path / "runs" / "heads-stage1").exists()

    again = command(*arguments, cwd=tmp_path)
    assert again.code == 1
    assert "model is there already" in again.said


def few_steps() -> None:
    """Patch how runs start: three steps of two groups, one process."""
    from spfem_dist.training import launch

    start = launch.start

    def shortly(run, stage, local=True):
        run.scaling.workers = 1
        for job in run.jobs().values():
            job.global_batch, job.steps = 2, 3
        run.validation.every_steps = run.tracking.pictures_every_steps = 0
        return start(run, stage, local=True)

    launch.start = shortly


@pytest.mark.nightly
def test_priors_guide_the_generator_of_heads(tmp_path):
    small = ("--size", "64", "--identities", "4", "--sentences", "2")
    done = well(command("python", ROOT / "recipes" / "heads.py", *small, *PLACES, cwd=tmp_path, before=few_steps))
    assert load_generator(str(tmp_path / "model")).size == 64
    assert "it loads on a CPU" in done.said
    card = (tmp_path / "model" / "README.md").read_text()
    assert "ccrl" in card
    assert "cerl" in card
