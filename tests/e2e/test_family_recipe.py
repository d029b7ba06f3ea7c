"""The family of priors through its recipe: shards are decoded once for all, losses do not depend on the workers, windows are scored."""

import json
import math

import pytest
import torch
from doors import command, well
from family_stage1 import FamilyPriors
from flow import losses

from spfem_dist.config import Data
from spfem_dist.priors.stage import Stage1
from spfem_dist.streaming import loader

RECIPE = "recipes/family_stage1.py"
#: In double precision and at a small rate, since rounding grows with the steps.
BRIEF = ["--scaling.workers", "2", "--tracking.uri", "", "--name", "r", "--zero.precision", "fp64"]
BRIEF += ["--tracking.log-every-steps", "1", "--tracking.pictures-every-steps", "0"]
BRIEF += ["--validation.every-steps", "2", "--validation.samples", "2"]
for kind in ("stccl-vd", "stccl-cm"):
    BRIEF += [f"--{kind}.steps", "2", f"--{kind}.global-batch", "2", f"--{kind}.optimizer.lr", "2e-4"]


def flags(shards, storage, *more):
    folder, split = shards
    others = [word for kind in ("ccrl", "cerl", "asccl", "pcmecl") for word in (f"--{kind}.enabled", "False")]
    return ["--data.shards", folder, "--data.split", split, "--checkpoint.storage", storage, *BRIEF, *others, *more]


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    """Storage of the run `r` that two workers trained to its end."""
    storage = tmp_path_factory.mktemp("family")
    well(command("python", RECIPE, *flags(shards, storage), workers=2))
    return storage


@pytest.mark.nightly
def test_two_workers_repeat_the_losses_of_one_process(trained, shards, tmp_path):
    well(command("python", RECIPE, "--local", *flags(shards, tmp_path)))
    for kind in ("stccl_vd", "stccl_cm"):
        alone = losses(tmp_path, "r", kind)
        assert any(key.endswith("temporal_moment") for _, key in alone)
        assert losses(trained, "r", kind) == pytest.approx(alone, abs=1e-5)


@pytest.mark.nightly
def test_the_trained_metrics_are_scored_with_intervals(trained):
    well(command("spfem", "evaluate", "priors", trained / "r"))
    summary = json.loads((trained / "r" / "summary.json").read_text())
    for kind in ("stccl_vd", "stccl_cm"):
        figures, intervals = summary["priors"][kind], summary["intervals"]["priors"][kind]
        for name in ("right_window_face", "right_window_mouth", "space_face", "time_mouth", "right_window_pixels"):
            assert 0 <= figures[name] <= 1
            assert intervals[name]["low"] - 1e-9 <= figures[name] <= intervals[name]["high"] + 1e-9
        assert not any(math.isnan(value) for value in figures.values() if isinstance(value, float))


def test_shards_are_decoded_once_for_all_and_each_prior_gets_the_samples_that_it_gets_alone(shards, monkeypatch):
    folder, split = shards
    run = FamilyPriors(data=Data(shards=str(folder), split=str(split), prefetch=0))
    decoded, decode = [], loader.decode_many
    monkeypatch.setattr(loader, "decode_many", lambda asked, *rest: decoded.extend(asked) or decode(asked, *rest))

    def drawn(stage: Stage1, name: str) -> tuple[list[torch.Tensor], int]:
        """The frames of a prior's first batches, and how many recordings were decoded for them."""
        before, job = len(decoded), stage.job(run, name, 0, 1, torch.device("cpu"))
        stream = job.batches(0)
        frames = [next(stream)[0].frames for _ in range(8)]
        job.close()
        return frames, len(decoded) - before

    together, names = Stage1(decode_once=True), ("asccl", "stccl_vd")
    for name, (shared, more) in zip(names, [drawn(together, name) for name in names], strict=True):
        alone, all_of_them = drawn(Stage1(), name)
        assert all(a.equal(b) for a, b in zip(shared, alone, strict=True))
        assert more == all_of_them if name == names[0] else more < all_of_them / 4
