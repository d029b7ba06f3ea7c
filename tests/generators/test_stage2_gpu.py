"""A step of stage 2 on a GPU: the losses of the CPU in single precision, near them in bf16; through the engines too."""

import pytest
import torch
from gpu import DEVICE, NEEDS_GPU

from spfem_dist.config import Zero
from spfem_dist.generators import ned
from spfem_dist.shares import share_of
from spfem_dist.training import engines
from spfem_dist.training.loop import Sums, optimiser_step

pytestmark = NEEDS_GPU


@pytest.fixture(scope="module", autouse=True)
def exact_multiplication():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def made(toy):
    """Makes (the job, a batch on its device), the networks moved from where they begin."""
    jobs = []

    def make(device, dtype=torch.float32):
        run = toy.run()
        run.data.decoder = "pyav"
        torch.manual_seed(0)
        job = ned.Stage().job(run, "ned", 0, 1, torch.device(device))
        jobs.append(job)
        with torch.no_grad():
            for network in job.networks.values():
                for parameter in network.parameters():
                    parameter += 0.02 * torch.randn_like(parameter)
                network.to(device, dtype)
        return job, next(job.batches(0))[0].to(device)

    yield make
    for job in jobs:
        job.close()


def losses(job, batch) -> dict[str, float]:
    """Of all phases, without updates between them."""
    found = {}
    for phase in job.phases:
        with engines.only(job.networks, phase.trains):
            values, _ = phase.losses(job.networks, batch)
            sum(v.float() for v in values.values()).backward()
        found |= {name: value.item() for name, value in values.items()}
    return found


def test_the_gpu_gives_the_losses_of_the_cpu(made):
    assert losses(*made(DEVICE)) == pytest.approx(losses(*made("cpu")), rel=5e-3, abs=1e-3)


def test_bf16_stays_near_single_precision(made):
    assert losses(*made(DEVICE, torch.bfloat16)) == pytest.approx(losses(*made(DEVICE)), rel=0.1, abs=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_engines_train_all_networks(precision, made):
    job, batch = made(DEVICE)
    engines.connect(DEVICE)
    share, sums = share_of(len(batch), 0, 1), Sums(DEVICE)
    zero = Zero(precision=precision)
    trained = {
        name: engines.make_engine(network, job.optimizers[name], zero, share, DEVICE)
        for name, network in job.networks.items()
    }
    before = {n: [p.detach().float().clone() for p in e.module.parameters()] for n, e in trained.items()}
    for _ in range(3):
        optimiser_step(job, trained, iter([(batch, 0.0)]), share, DEVICE, sums)
    assert all(value == value for value in sums.mean().values()), "a loss is not a number"
    for name, engine in trained.items():
        moved = [
            (p.detach().float() - q).abs().max().item()
            for p, q in zip(engine.module.parameters(), before[name], strict=True)
        ]
        assert max(moved) > 0, name
