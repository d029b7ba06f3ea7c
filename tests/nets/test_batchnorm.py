"""Two workers normalise exactly as one worker with both their batches."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from spfem_dist.nets.batchnorm import BatchNorm1d, BatchNorm2d, synchronise

CHANNELS = 5


def inputs(dimensions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A double batch [12, 5, ...] whose mean is far from zero, and the weights of a loss over it."""
    generator = torch.Generator().manual_seed(dimensions)
    shape = (12, CHANNELS) + (4,) * dimensions
    return 3.0 + 0.1 * torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def layer(dimensions: int) -> nn.Module:
    norm = {0: BatchNorm1d, 1: BatchNorm1d, 2: BatchNorm2d}[dimensions](CHANNELS)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 1.5, CHANNELS))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, CHANNELS))
    return norm


def trained(norm: nn.Module, x: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two training passes; output, gradients and running statistics of the second."""
    for _ in range(2):
        x = x.detach().clone().requires_grad_()
        norm.zero_grad()
        y = norm(x)
        (y * weights).sum().backward()
    result = {"output": y.detach(), "input_gradient": x.grad}
    result |= {f"{n}_gradient": p.grad for n, p in norm.named_parameters()}
    return result | dict(norm.named_buffers())


#: Channels' dimensions and the first worker's share of the 12 samples.
CASES = {"vectors, equal shares": (0, 6), "maps, unequal shares": (2, 4), "maps, all on one worker": (2, 0)}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {}
    for case, (dimensions, split) in CASES.items():
        x, weights = inputs(dimensions)
        part = slice(None, split) if rank == 0 else slice(split, None)
        results[case] = trained(layer(dimensions), x[part], weights[part])
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def workers(tmp_path_factory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What each of two gloo processes found, by case."""
    folder = tmp_path_factory.mktemp("workers")
    mp.spawn(worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_two_workers_compute_what_one_computes_with_both_batches(workers, case):
    first, second = (results[case] for results in workers)
    dimensions = CASES[case][0]
    expected = trained(layer(dimensions), *inputs(dimensions))
    for name, value in expected.items():
        if name in ("output", "input_gradient"):
            found = torch.cat([first[name], second[name]])
        elif name.endswith("_gradient"):
            found = first[name] + second[name]
        else:
            found = first[name]
            assert torch.equal(first[name], second[name]), f"{name} differs between workers"
        # The gradient of a normalised input is a small difference of large terms, in torch's own arithmetic too.
        tolerance = 1e-4 if name == "input_gradient" else 1e-6 * max(1.0, float(value.abs().max())) * 10
        torch.testing.assert_close(
            found.float(), value.float(), atol=tolerance, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_running_statistics_agree_to_a_millionth(workers):
    reference = nn.BatchNorm1d(CHANNELS)
    for _ in range(2):
        reference(inputs(0)[0])
    found = workers[0]["vectors, equal shares"]
    torch.testing.assert_close(found["running_mean"], reference.running_mean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found["running_var"], reference.running_var, atol=1e-6, rtol=1e-6)


def test_alone_it_is_the_batch_norm_of_torch():
    x, _ = inputs(2)
    ours, theirs = BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_synchronise_keeps_every_tensor():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)))
    before = dict(network.named_parameters())
    converted = synchronise(network)
    assert isinstance(converted[1], BatchNorm2d)
    assert isinstance(converted[2][1], BatchNorm1d)
    assert all(parameter is before[name] for name, parameter in converted.named_parameters())


def test_a_lone_batch_norm_is_converted_too():
    assert isinstance(synchronise(nn.BatchNorm1d(3).eval()), BatchNorm1d)


@pytest.mark.parametrize("dimensions", [0, 2])
def test_half_precision_is_normalised_in_float32_and_its_statistics_stay_so(dimensions):
    x, weights = inputs(dimensions)
    exact, half = layer(dimensions), layer(dimensions).bfloat16()
    x = x.bfloat16()
    want, got = trained(exact, x.float(), weights), trained(half, x, weights)
    assert half.weight.dtype == torch.bfloat16
    for name in ("running_mean", "running_var"):
        assert got[name].dtype == torch.float32
        torch.testing.assert_close(got[name], want[name])
    torch.testing.assert_close(got["output"].float(), want["output"], rtol=0.02, atol=0.02)
    torch.testing.assert_close(half.eval()(x).float(), exact.eval()(x.float()), rtol=0.02, atol=0.02)
    assert half(x).dtype == torch.bfloat16
