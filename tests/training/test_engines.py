"""Engines: schedules are functions of the step, frozen means frozen."""

import pytest
import torch
from torch import nn

from spfem_dist.config import Optimizer, Zero
from spfem_dist.nets.frozen import freeze
from spfem_dist.training import engines
from spfem_dist.training.engines import deepspeed_config, learning_rate


def test_warmup_climbs_to_the_peak_and_cosine_ends_near_zero():
    settings = Optimizer(lr=1.0, warmup_steps=10, schedule="cosine")
    rates = [learning_rate(settings, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] < 0.01


def test_multistep_divides_by_ten_at_each_milestone():
    settings = Optimizer(lr=1.0, schedule="multistep", milestones=(3, 5))
    assert [learning_rate(settings, s, 9) for s in (2, 3, 5)] == pytest.approx([1.0, 0.1, 0.01])


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_clipping_is_always_stated(stage):
    assert deepspeed_config(Zero(stage=stage), 0.0, 1, 1, 1000)["gradient_clipping"] == 0.0


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_a_plain_optimiser_clips_and_leaves_out_what_is_not_finite(kind, fused):
    """Fused kernels, which a GPU has, are not told by the host."""
    weight = nn.Parameter(torch.ones(4))
    optimizer = engines.guarded(kind([weight], lr=0.1, fused=fused), clip=1.0)
    weight.grad = torch.full((4,), 3.0)
    optimizer.step()
    moved = weight.detach().clone()
    assert (moved < 1).all()
    assert float(optimizer._global_grad_norm) == pytest.approx(6.0)
    for _ in range(2):
        weight.grad = torch.tensor([1.0, float("nan"), 0.0, 0.0])
        optimizer.step()
        assert torch.equal(weight, moved)
    assert int(optimizer.left_out) == 2 if fused else optimizer.overflow
    weight.grad = torch.ones(4)
    optimizer.step()
    assert (weight < moved).all()


def test_frozen_networks_keep_their_statistics_and_pass_gradients_to_the_input():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    parent = nn.Sequential(freeze(network))
    parent.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    image = torch.randn(2, 3, 8, 8, requires_grad=True)
    parent(image).sum().backward()
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert image.grad is not None
    assert all(p.grad is None for p in network.parameters())


def test_a_small_network_holds_no_large_bucket():
    sizes = [
        deepspeed_config(Zero(), 0.0, 1, 1, count)["zero_optimization"]["reduce_bucket_size"] for count in (1000, 10**9)
    ]
    assert sizes == [1000, 50_000_000]


def test_a_frozen_scalar_becomes_a_buffer_of_the_same_name():
    network = nn.Linear(2, 2)
    network.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)
    before = set(network.state_dict())
    engines._scalars_as_buffers(network)
    assert set(network.state_dict()) == before
    assert all(p.dim() > 0 for p in network.parameters())
