"""A trial as Ray Tune calls it, with the process that trains; without Ray's actors around it."""

import json
from pathlib import Path

import pytest
from doors import ENVIRONMENT
from planted_recipe import loss_after, planted

from spfem_dist.sweep import FINISHED
from spfem_dist.sweep.trial import Trial, copy_checkpoint
from spfem_dist.training.manifest import CheckpointStore

RATE, METRIC = "first.optimizer.lr", "val/toy/error"


def trial_in(storage, rate):
    run = planted()
    run.checkpoint.storage, run.tracking.held_out, run.first.steps = str(storage), True, 12
    facts = {"script": str(Path(__file__).with_name("planted_recipe.py")), "run": run.model_dump(mode="json")}
    facts |= {
        "storage": str(storage),
        "jobs": ["first"],
        "metric": METRIC,
        "local": True,
        "address": "",
        "logs": storage,
    }

    class Named(Trial):
        trial_name = "planted-t000"

        def setup(self, config):
            super().setup(config, facts)

    return Named({"trial": {"values": {RATE: rate}}})


def test_a_trial_says_what_each_validation_gave_and_leaves_an_ordinary_run(tmp_path, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    trial = trial_in(tmp_path, 0.2)
    said = [trial.step()]
    while not said[-1]["ended"]:
        said.append(trial.step())
    assert [one["samples"] for one in said] == [16, 32, 48, 48]
    assert said[-1]["ended"] == FINISHED
    assert [one[METRIC] for one in said[:3]] == pytest.approx([loss_after(step, 0.2) for step in (4, 8, 12)], rel=1e-4)
    run = json.loads((tmp_path / "planted-t000" / "run.json").read_text())
    assert (run["name"], run["first"]["optimizer"]["lr"]) == ("planted-t000", 0.2)
    assert (tmp_path / "planted-t000" / "first" / "model" / "model.safetensors").exists()

    # What a population does with it: the checkpoint that was pointed at, or the next there is, verified.
    assert copy_checkpoint(f"{tmp_path}/planted-t000/first", f"{tmp_path}/other/first", at=40) == 32
    assert copy_checkpoint(f"{tmp_path}/planted-t000/first", f"{tmp_path}/third/first", at=16) == 32
    assert CheckpointStore(f"{tmp_path}/other/first").committed() == ["checkpoint_000000008"]
