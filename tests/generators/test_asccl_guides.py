"""ASCCL as stage 2's guide: it stands still while NED trains (fifty steps at night), and only the generator moves."""

import json
import math

import pytest
import torch
from doors import well
from toy_stage2 import alone, losses

from spfem_dist.priors import asccl
from spfem_dist.priors.prior import build_prior, load_prior, save_prior
from spfem_dist.saved import parameters_sha256
from spfem_dist.streaming.reader import ShardReader

BRIEF = ["--ned.global-batch", "2", "--validation.every-steps", "4"]


@pytest.fixture(scope="module")
def metric(toy, tmp_path_factory):
    """The folder of an ASCCL prior that nobody trained."""
    torch.manual_seed(0)
    settings, width = asccl.Settings(), ShardReader.of(toy.data).index.feature_dim
    prior = build_prior(settings, toy.data, width, pretrained=False)
    folder = tmp_path_factory.mktemp("asccl") / "prior"
    return save_prior(folder, prior, settings=settings, data=toy.data, feature_dim=width)


@pytest.mark.parametrize("steps", [4, pytest.param(50, marks=pytest.mark.nightly)])
def test_ned_trains_under_a_frozen_asccl(steps, toy, metric, tmp_path):
    done = well(alone(toy, tmp_path, "--priors", metric, *BRIEF, "--ned.steps", steps, "--ned.guidance.asccl", "2"))
    assert "guidance of asccl: weight" in done.said
    found = losses(tmp_path)
    told = {step: value for (step, name), value in found.items() if name.endswith("train/guidance/asccl/spatial")}
    assert max(told) == steps
    assert all(math.isfinite(value) and value > 0 for value in told.values())
    prior, _ = load_prior(metric)
    config = json.loads((tmp_path / "r" / "ned" / "model" / "config.json").read_text())
    assert config["facts"]["priors"]["asccl"]["sha256"] == parameters_sha256(prior.state_dict()), (
        "the metric moved while it guided"
    )
