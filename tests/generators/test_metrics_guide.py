"""The other priors as stage 2's guides: each stands still while NED trains (fifty steps at night), those of windows get their windows."""

import json
import math

import pytest
import torch
from doors import well
from toy_stage2 import alone, losses

from spfem_dist.priors.prior import build_prior, find, load_prior, save_prior
from spfem_dist.saved import parameters_sha256
from spfem_dist.streaming.reader import ShardReader

BRIEF = ["--ned.global-batch", "2", "--validation.every-steps", "2"]


@pytest.fixture(scope="module")
def untrained(toy, tmp_path_factory):
    """Saves a prior of a kind that nobody trained; gives its folder."""
    width = ShardReader.of(toy.data).index.feature_dim

    def save(kind):
        torch.manual_seed(0)
        settings = find(kind).Settings()
        prior = build_prior(settings, toy.data, width, pretrained=False)
        folder = tmp_path_factory.mktemp(kind) / "prior"
        return save_prior(folder, prior, settings=settings, data=toy.data, feature_dim=width)

    return save


@pytest.mark.parametrize("steps", [2, pytest.param(50, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("kind", ["asccl", "stccl_vd", "stccl_cm", "pcmecl"])
def test_ned_trains_under_a_frozen_prior_of_each_kind(kind, steps, toy, untrained, tmp_path):
    prior = untrained(kind)
    flags = ["--priors", prior, *BRIEF, "--ned.steps", steps, f"--ned.guidance.{kind.replace('_', '-')}", "2"]
    done = well(alone(toy, tmp_path, *flags))
    assert f"guidance of {kind}: weight" in done.said
    told = [value for (_, name), value in losses(tmp_path).items() if name.startswith(f"train/guidance/{kind}/")]
    assert len(told) >= steps
    assert all(math.isfinite(value) and value > 0 for value in told)
    loaded, _ = load_prior(prior)
    config = json.loads((tmp_path / "r" / "ned" / "model" / "config.json").read_text())
    assert config["facts"]["priors"][kind]["sha256"] == parameters_sha256(loaded.state_dict()), (
        "it moved while it guided"
    )
    assert config["facts"]["guidance"][kind] > 0
