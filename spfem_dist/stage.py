"""What the training loop runs: a `Stage` turns a `Run` into `Job`s. Methods make stages; the loop knows only these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from spfem_dist.config import JobSettings, Optimizer, Run
from spfem_dist.records import Batch

Networks = Mapping[str, nn.Module]
#: (losses, monitors): named scalars, each a mean over the samples of the micro-batch. The loop sums the losses and only logs the monitors.
Losses = tuple[dict[str, Tensor], dict[str, Tensor]]
#: Writes trained networks into an empty folder.
Export = Callable[[Networks, Path], None]


@dataclass(frozen=True)
class Phase:
    """A part of a training step: losses, and the one network that they update.

    While they are computed the parameters of all other networks want no gradient; gradients flow through them all the same.
    every: steps from one time to the next, from the first step on (a regulariser that is enough now and then).
    """

    trains: str
    losses: Callable[[Networks, Batch], Losses]
    every: int = 1


@dataclass
class Job:
    """Networks that train together, and where their batches come from.

    networks: by name; each becomes a DeepSpeed engine with its own of the `optimizers`.
    phases: what a training step does, in this order, each on the whole global batch.
    validation_losses(networks, batch): losses and monitors of a held-out micro-batch. pictures(networks, batch): uint8 [H, W, 3] by name.
    batches(start_sample) yields (micro-batch, seconds waited for it), from that global sample on, for this rank: its `shares.share_of`.
    validation() yields the fixed held-out micro-batches of this rank (`shares.held_out_share`), or nothing on any rank.
    dataset: what the data are, for tracking (name, digest, source, counts); read: `once` where all is read before the first step.
    export(networks, folder): writes the trained networks, safetensors and configuration, loadable on a CPU. Rank 0 calls it at the end.
    registers: whether what it exports becomes a registered model, which stage 2 or an edit can name.
    judges: names of the networks that only judge others: of them no average is kept (`JobSettings.half_life`).
    begin(): what must be done before the first step, and costs too much for looking at a job: reads what an earlier job exported, learns
    what the losses need. A collective, called once before anything of it is asked for; returns lines to tell.
    fill(): what training batches are made of beside the shards, where that must be computed first. A collective, called before the first of
    them is asked for, and by training alone; gives lines to tell as it goes, and empty ones as signs of life.
    close: gives threads and files back.
    """

    name: str
    networks: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    phases: tuple[Phase, ...]
    settings: JobSettings
    batches: Callable[[int], Iterator[tuple[Batch, float]]]
    validation: Callable[[], Iterable[Batch]]
    dataset: dict[str, Any]
    validation_losses: Callable[[Networks, Batch], Losses]
    export: Export
    pictures: Callable[[Networks, Batch], dict[str, np.ndarray]] | None = None
    registers: bool = True
    judges: frozenset[str] = frozenset()
    begin: Callable[[], Sequence[str]] = tuple
    fill: Callable[[], Iterable[str]] = tuple
    close: Callable[[], None] = lambda: None

    @property
    def kind(self) -> str:
        """The method that it trains: a room of priors or generators; the job's own name where it is neither."""
        return self.settings.kind or self.name


def job_of_one(
    name: str,
    network: nn.Module,
    settings: JobSettings,
    batches: Callable[[int], Iterator[tuple[Batch, float]]],
    validation: Callable[[], Iterable[Batch]],
    dataset: dict[str, Any],
    export: Export,
    registers: bool = True,
    fill: Callable[[], Iterable[str]] = tuple,
    close: Callable[[], None] = lambda: None,
) -> Job:
    """The job of a single network whose forward gives (losses, monitors), and which may have a method `pictures(batch)`."""

    def losses(networks: Networks, batch: Batch) -> Losses:
        return networks[name](batch)

    def pictures(networks: Networks, batch: Batch) -> dict[str, np.ndarray]:
        return called(networks[name], "pictures", batch)

    return Job(
        name,
        {name: network},
        {name: settings.optimizer},
        (Phase(name, losses),),
        settings,
        batches,
        validation,
        dataset,
        losses,
        export,
        pictures if hasattr(network, "pictures") else None,
        registers,
        fill=fill,
        close=close,
    )


def called(network: nn.Module, method: str, *arguments: Any) -> Any:
    """Call a method of a network that trains in the place of its forward. A collective under ZeRO-3.

    ZeRO-3 gathers parameters on entry to a module and gives them back on leaving it. A method called directly enters
    only the submodules, and finds the network's own parameters gone.
    """
    network.forward = getattr(network, method)
    try:
        return network(*arguments)
    finally:
        del network.forward


class Stage(Protocol):
    """A stage of training. reads_shards: whether its jobs learn from the run's shards, which are then made or looked for first."""

    name: str
    reads_shards: bool

    def jobs(self, run: Run) -> list[str]:
        """Names of the jobs of this run."""
        ...

    def check(self, run: Run, name: str) -> None:
        """Raise OSError, RuntimeError or ValueError for what would keep the job `name` from training, before anything starts.

        It reads no more of the shards than their index. A job that nothing can keep from training checks nothing.
        """
        ...

    def job(self, run: Run, name: str, rank: int, size: int, device: torch.device) -> Job:
        """The job `name` as worker `rank` of `size` sees it."""
        ...
