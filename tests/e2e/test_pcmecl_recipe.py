"""PCMECL through its recipe: the losses depend neither on the number of workers nor on ZeRO's stage, and the prior is scored."""

import json

import pytest
from doors import command, well
from flow import losses

RECIPE = "recipes/pcmecl_stage1.py"
pytestmark = pytest.mark.nightly
#: In double precision and at a small rate, since rounding grows with the steps.
BRIEF = [
    "--pcmecl.steps",
    "3",
    "--pcmecl.global-batch",
    "2",
    "--pcmecl.optimizer.lr",
    "2e-4",
    "--zero.precision",
    "fp64",
]
BRIEF += ["--scaling.workers", "2", "--tracking.uri", "", "--tracking.log-every-steps", "1", "--name", "r"]
BRIEF += ["--tracking.pictures-every-steps", "0", "--validation.every-steps", "3", "--validation.samples", "1"]


def flags(shards, storage, *more):
    folder, split = shards
    return ["--data.shards", folder, "--data.split", split, "--checkpoint.storage", storage, *BRIEF, *more]


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    """Storage of the run `r` that two workers trained to its end."""
    storage = tmp_path_factory.mktemp("pcmecl")
    well(command("python", RECIPE, *flags(shards, storage, "--zero.stage", "3"), workers=2))
    return storage


def test_two_workers_at_zero_three_repeat_the_losses_of_one_process(trained, shards, tmp_path):
    well(command("python", RECIPE, "--local", *flags(shards, tmp_path, "--zero.stage", "0")))
    alone = losses(tmp_path, "r", "pcmecl")
    assert {key.split("/")[-1] for _, key in alone} >= {"personal", "generic", "direction", "return", "size"}
    assert losses(trained, "r", "pcmecl") == pytest.approx(alone, abs=1e-5)


def test_the_trained_prior_is_scored_with_intervals(trained):
    well(command("spfem", "evaluate", "priors", trained / "r"))
    summary = json.loads((trained / "r" / "summary.json").read_text())
    figures, intervals = summary["priors"]["pcmecl"], summary["intervals"]["priors"]["pcmecl"]
    for name in ("accuracy", "accuracy_none", "gain_over_none", "surprise", "direction"):
        assert intervals[name]["low"] - 1e-9 <= figures[name] <= intervals[name]["high"] + 1e-9
