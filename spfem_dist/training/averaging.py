"""The exponential moving average of a job's weights, kept where its `half_life` asks for one.

It lies in the state of each network's own optimiser, beside Adam's moments: one of each master weight, on the worker that updates that.
So no step exchanges anything for it, and checkpoints, ZeRO and offload treat it as they treat the moments. Buffers (batch-norm
statistics) are not averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from spfem_dist.stage import Job
from spfem_dist.training.engines import publish

#: Its name in an optimiser's state.
KEY = "average"
#: A half-life is at most this share of the samples seen, so that the weights that training began with are soon forgotten: the ramp-up of
#: StyleGAN2-ADA (Karras et al. 2020).
RAMP = 0.05


def newest_share(half_life: float, batch: int, samples: int, updates: int = 1) -> float:
    """What the newest weights count in the average: a pure function, so a resumed run needs no state.

    half_life: in samples. batch: samples of a training step, which updates the network so many times. samples: seen before this step.
    """
    half_life = min(half_life, RAMP * samples)
    return 1 - 0.5 ** (batch / updates / half_life) if half_life else 1.0


def inner_optimizer(engine: Any) -> torch.optim.Optimizer:
    """The plain optimiser in an engine, whose state has a dictionary for each master weight of this worker."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def masters(engine: Any) -> list[Tensor]:
    """Copies of the master weights that this worker has, in the order of the optimiser's state."""
    return [weight.detach().clone() for weight in inner_optimizer(engine).state]


def set_average(engine: Any, average: list[Tensor] | None) -> None:
    """Let the average be `average`, in the order of `masters`; None: let there be none, until a next update begins it."""
    for number, state in enumerate(inner_optimizer(engine).state.values()):
        state.pop(KEY, None)
        if average is not None:
            state[KEY] = average[number]


class Average:
    """The average of one network: follows each update that its optimiser really makes. share: what the next one counts."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.share = engine, 1.0
        self.inner = inner_optimizer(engine)
        # DeepSpeed does not call its inner optimiser for an update that it leaves out; ZeRO-1 to -3 call it once for each flat part.
        self.inner.register_step_post_hook(self._follow)

    def _follow(self, optimizer: torch.optim.Optimizer, _arguments: Any, _named: Any) -> None:
        if getattr(optimizer, "overflow", False):  # see `engines.guarded`
            return
        averages, weights = [], []
        for weight in (p for group in optimizer.param_groups for p in group["params"]):
            state = optimizer.state[weight]
            if KEY in state:
                averages.append(state[KEY])
                weights.append(weight.detach())
            elif state or weight.grad is not None:  # Adam takes any state for its own: no key before it has made it
                state[KEY] = weight.detach().clone()
        if not averages:
            return
        left_out: Tensor | None = getattr(optimizer, "found_inf", None)
        if left_out is None:
            get_ema_multi_avg_fn(1 - self.share)(averages, weights, 0)
        else:  # fused kernels left this update out or not, and the host does not wait to hear it
            share = self.share * (1 - left_out)
            for average, weight in zip(averages, weights, strict=True):
                average.lerp_(weight, share.to(average.dtype))

    @torch.no_grad()
    def exchange(self) -> None:
        """The network's weights become the average, and the average holds the weights; a second call undoes it to the bit. A collective."""
        for weight, state in self.inner.state.items():
            if KEY in state:
                kept = weight.detach().clone()
                weight.copy_(state[KEY])
                state[KEY].copy_(kept)
        publish(self.engine)


class Averages:
    """The averages of one job's networks, but for those that only judge others; none where the job wants none."""

    def __init__(self, job: Job, trained: Mapping[str, Any]) -> None:
        self.job, self.half_life = job, job.settings.half_life_samples
        wanted = [name for name in trained if name in averaged_networks(job)]
        self.of = {name: Average(trained[name]) for name in wanted}

    def begin_step(self, step: int, samples: int) -> None:
        """Say what the updates of training step `step` (from 0) count, before which so many samples were seen."""
        for name, average in self.of.items():
            updates = sum(phase.trains == name and step % phase.every == 0 for phase in self.job.phases)
            average.share = newest_share(self.half_life, self.job.settings.global_batch, samples, max(1, updates))

    def exchange(self) -> None:
        """Exchange weights and averages of every network. A collective."""
        for average in self.of.values():
            average.exchange()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within, the networks have their averages for weights. A collective."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()


def averaged_networks(job: Job) -> set[str]:
    """Names of the networks of which the job keeps an average."""
    return set(job.networks) - job.judges if job.settings.half_life_samples else set()
