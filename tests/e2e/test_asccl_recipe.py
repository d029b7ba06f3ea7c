"""ASCCL through its recipe: the losses do not depend on the number of workers, and the trained metric is scored."""

import json
import math

import pytest
from doors import command, well
from flow import losses

RECIPE = "recipes/asccl_stage1.py"
#: In double precision and at a small rate, since rounding grows with the steps.
BRIEF = ["--asccl.steps", "4", "--asccl.global-batch", "4", "--asccl.optimizer.lr", "2e-4", "--zero.precision", "fp64"]
BRIEF += ["--data.frames-per-recording", "3", "--scaling.workers", "2", "--tracking.uri", "", "--name", "r"]
BRIEF += ["--tracking.log-every-steps", "1", "--tracking.pictures-every-steps", "0"]
BRIEF += ["--validation.every-steps", "4", "--validation.samples", "2"]


def flags(shards, storage, *more):
    folder, split = shards
    return ["--data.shards", folder, "--data.split", split, "--checkpoint.storage", storage, *BRIEF, *more]


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    """Storage of the run `r` that two workers trained to its end."""
    storage = tmp_path_factory.mktemp("asccl")
    well(command("python", RECIPE, *flags(shards, storage), workers=2))
    return storage


@pytest.mark.nightly
@pytest.mark.parametrize("form", ["clean", "released"])
def test_two_workers_repeat_the_losses_of_one_process(form, trained, shards, tmp_path):
    many = trained
    if form == "released":
        many = tmp_path / "many"
        well(command("python", RECIPE, *flags(shards, many, "--asccl.form", form), workers=2))
    well(command("python", RECIPE, "--local", *flags(shards, tmp_path, "--asccl.form", form)))
    alone = losses(tmp_path, "r", "asccl")
    assert alone
    assert losses(many, "r", "asccl") == pytest.approx(alone, abs=1e-5)


def test_the_trained_metric_is_scored_with_intervals(trained):
    done = well(command("spfem", "evaluate", "priors", trained / "r"))
    summary = json.loads((trained / "r" / "summary.json").read_text())
    figures, intervals = summary["priors"]["asccl"], summary["intervals"]["priors"]["asccl"]
    for name in ("right_frame_mouth", "right_frame_face", "right_frame_pixels", "place_top1"):
        assert 0 <= figures[name] <= 1
        assert intervals[name]["low"] - 1e-9 <= figures[name] <= intervals[name]["high"] + 1e-9
        assert name in done.out.replace("\n", "")
    assert not any(math.isnan(value) for value in figures.values() if isinstance(value, float))
