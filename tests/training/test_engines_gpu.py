"""Engines and the loop on a GPU: ZeRO changes no loss, a resumed run repeats it, the synchronised batch norm is torch's."""

from itertools import islice

import pytest
import torch
from gpu import DEVICE, NEEDS_GPU
from toy_recipe import ToyStage, toy

from spfem_dist.nets.batchnorm import _Normalise
from spfem_dist.shares import share_of
from spfem_dist.training import engines, loop
from spfem_dist.training.world import PlainWorld, device_of

pytestmark = NEEDS_GPU


@pytest.fixture(scope="module", autouse=True)
def connected():
    engines.connect(DEVICE)


def trained(storage, steps: int, zero: int = 1, precision: str = "fp32", graphs: bool = False) -> dict[int, float]:
    """The toy's loss by step after `steps`, from the checkpoint in `storage` on where there is one."""
    run = toy()
    run.checkpoint.storage, run.checkpoint.every_steps, run.scaling.workers = str(storage), 4, 1
    run.zero.stage, run.zero.precision, run.first.steps = zero, precision, steps
    run.speed.compile = run.speed.cuda_graphs = graphs
    torch.manual_seed(0)
    world = PlainWorld(f"{run.folder()}/first")
    job = ToyStage().job(run, "first", 0, 1, DEVICE)
    outcome = loop.train(job, run, world, DEVICE, None, world)
    rows = outcome.progress.history
    return {row["step"]: row["values"]["train/toy/error"] for row in rows if "train/toy/error" in row["values"]}


def test_a_process_takes_the_gpu_that_is_there():
    assert device_of(PlainWorld("")).type == DEVICE.type


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("zero-0"), 8, zero=0)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_every_zero_stage_gives_the_losses_of_stage_0(zero, replicated, tmp_path):
    found = trained(tmp_path, 8, zero)
    assert found == pytest.approx(replicated, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("zero", [1, 3])
def test_a_resumed_run_repeats_the_losses_exactly(zero, tmp_path):
    whole = trained(tmp_path / "whole", 8, zero)
    first = trained(tmp_path / "parts", 4, zero)
    both = trained(tmp_path / "parts", 8, zero)
    assert {step: both[step] for step in first} == first
    assert both == whole


@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed", "fp16"])
def test_half_the_width_stays_near_single_precision(precision, replicated, tmp_path):
    found = trained(tmp_path, 8, precision=precision)
    assert found == pytest.approx(replicated, rel=0.1, abs=0.02)


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_graphs_that_are_replayed_give_the_same_losses(zero, replicated, tmp_path):
    found = trained(tmp_path, 8, zero, graphs=True)
    assert found == pytest.approx(replicated, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_synchronised_norm_of_one_rank_is_torchs_own(layout):
    torch.manual_seed(0)
    picture = torch.randn(6, 16, 9, 9, device=DEVICE).add(3).contiguous(memory_format=layout).requires_grad_()
    weight, bias = (torch.randn(16, device=DEVICE, requires_grad=True) for _ in range(2))
    ours = _Normalise.apply(picture, weight, bias, 1e-5)[0]
    theirs = torch.nn.functional.batch_norm(picture, None, None, weight, bias, True, 0.0, 1e-5)
    assert torch.allclose(ours, theirs, atol=1e-4)
    toward = torch.randn_like(theirs)
    inputs = (picture, weight, bias)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, toward), torch.autograd.grad(theirs, inputs, toward), strict=True
    ):
        assert torch.allclose(a, b, atol=2e-3), float((a - b).abs().max())


def test_a_step_updates_by_the_fused_kernels_and_moves_nothing_to_the_host(tmp_path):
    run = toy()
    job = ToyStage().job(run, "first", 0, 1, DEVICE)
    share = share_of(8, 0, 1)
    engine = engines.make_engine(job.networks["first"], run.first.optimizer, run.zero, share, DEVICE)
    loop.optimiser_step(job, {"first": engine}, islice(job.batches(0), 1), share, DEVICE, loop.Sums(DEVICE))
    assert all(p.device.type == DEVICE.type for p in engine.module.parameters())
    if DEVICE.type == "cuda":
        inner = engine.optimizer.optimizer
        assert inner.defaults["fused"]
        assert all(v.is_cuda for state in inner.state.values() for v in state.values() if isinstance(v, torch.Tensor))
