"""Two networks that train against each other, with a gradient penalty (R1): the toy of every GAN in stage 2.

python tests/training/toy_pair.py --local
"""

import torch
import torch.nn.functional as F
from torch import nn
from toy_recipe import ToyRun, ToyStage, toy

from spfem_dist.config import Optimizer
from spfem_dist.job_settings import JobSettings
from spfem_dist.stage import Job, Phase
from spfem_dist.training.launch import main

OPTIMIZERS = {name: Optimizer(lr=1e-3, schedule="constant", clip=0.0) for name in ("judge", "maker")}


def networks() -> dict[str, nn.Module]:
    """A maker of 16 numbers from 16, and a judge of 16 numbers."""
    torch.manual_seed(0)
    return {
        "judge": nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)),
        "maker": nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 16)),
    }


def _rows(networks, batch):
    return batch.speech.flatten(1).to(next(networks["judge"].parameters()).dtype)


def judge_losses(networks, batch):
    """Logistic loss of real rows against made ones, and the squared gradient at the real ones."""
    real = _rows(networks, batch).clone().requires_grad_()
    with torch.no_grad():
        made = networks["maker"](real.flip(1))
    score = networks["judge"](real)
    (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
    losses = {
        "judge/real": F.softplus(-score).mean(),
        "judge/made": F.softplus(networks["judge"](made)).mean(),
        "judge/penalty": slope.square().sum(1).mean(),
    }
    return losses, {}


def maker_losses(networks, batch):
    """The judge shall be fooled."""
    made = networks["maker"](_rows(networks, batch).flip(1))
    return {"maker/adversarial": F.softplus(-networks["judge"](made)).mean()}, {"maker/size": made.abs().mean()}


PHASES = (Phase("judge", judge_losses), Phase("maker", maker_losses))


class PairStage(ToyStage):
    """The toy's batches; a judge and a maker in place of its network."""

    name = "pair"

    def job(self, run: ToyRun, name: str, rank: int, size: int, device: torch.device) -> Job:
        plain = super().job(run, name, rank, size, device)
        return Job(
            name,
            networks(),
            OPTIMIZERS,
            PHASES,
            plain.settings,
            plain.batches,
            plain.validation,
            plain.dataset,
            validation_losses=maker_losses,
            export=plain.export,
            judges=frozenset({"judge"}),
        )


def pair() -> ToyRun:
    run = toy()
    run.first = JobSettings(steps=12, global_batch=8, optimizer=OPTIMIZERS["maker"])
    run.validation.every_steps = 6
    return run


def plain_steps():
    """The same training in plain PyTorch, over whole global batches: after each step its number (from 1), the networks, and the losses by name."""
    run, trained = pair(), networks()
    optimizers = {
        name: torch.optim.Adam(trained[name].parameters(), OPTIMIZERS[name].lr, betas=OPTIMIZERS[name].betas)
        for name in trained
    }
    batches = PairStage().job(run, "first", 0, 1, torch.device("cpu")).batches(0)
    for step in range(1, run.first.steps + 1):
        batch, _ = next(batches)
        found = {}
        for phase in PHASES:
            losses, _ = phase.losses(trained, batch)
            optimizers[phase.trains].zero_grad()
            sum(losses.values()).backward()
            optimizers[phase.trains].step()
            found |= {name: value.item() for name, value in losses.items()}
        yield step, trained, found


if __name__ == "__main__":
    main(pair, PairStage())
