"""A recipe whose best learning rate is known: gradient descent on two parabolas of curvatures 1 and 4.

python tests/sweep/planted_recipe.py --local
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # under Ray and in trials too

import torch
from torch import nn
from toy_recipe import ToyRun, ToyStage, toy

from spfem_dist.config import Optimizer
from spfem_dist.stage import Job, job_of_one
from spfem_dist.training.launch import main

CURVATURES = (1.0, 4.0)


def loss_after(steps: int, rate: float) -> float:
    """The loss after so many steps at a constant rate, from a distance of 1 on each parabola."""
    return sum(0.5 * h * (1 - rate * h) ** (2 * steps) for h in CURVATURES)


class Parabolas(nn.Module):
    """Two numbers, each 1 away from the bottom of its parabola."""

    def __init__(self) -> None:
        super().__init__()
        self.away = nn.Parameter(torch.ones(len(CURVATURES)))

    def forward(self, batch):
        loss = 0.5 * (torch.tensor(CURVATURES, dtype=self.away.dtype) * self.away**2).sum()
        return {"toy/error": loss}, {}


class PlantedStage(ToyStage):
    """The toy's batches, which the parabolas do not look at."""

    name = "planted"

    def job(self, run: ToyRun, name: str, rank: int, size: int, device: torch.device) -> Job:
        plain = super().job(run, name, rank, size, device)
        return job_of_one(
            name, Parabolas(), plain.settings, plain.batches, plain.validation, plain.dataset, export=plain.export
        )


def planted() -> ToyRun:
    run = toy()
    run.name = "planted"
    run.first.steps, run.first.global_batch = 24, 4
    run.first.optimizer = Optimizer(name="sgd", lr=0.1, schedule="constant", clip=0.0)
    run.zero.stage = 0
    run.checkpoint.every_steps, run.validation.every_steps, run.validation.samples = 4, 4, 1
    return run


if __name__ == "__main__":
    main(planted, PlantedStage())
