"""What the training loop runs: a `Stage` turns a `Run` into `Job`s. Methods make stages; the loop knows only these two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from spfem_dist.config import PriorSettings, Run
from spfem_dist.records import Batch


@dataclass
class Job:
    """One network to train, and where its batches come from.

    network(batch) returns (losses, monitors): named scalars, each a mean over the samples of the micro-batch; the loop
    sums the losses and only logs the monitors.
    batches(start_sample) yields (micro-batch, seconds waited for it), from that global sample on, for this rank.
    validation() yields the fixed held-out micro-batches of this rank.
    dataset: what the data are, for tracking (name, digest, source, counts).
    close: gives threads and files back.
    """

    name: str
    network: nn.Module
    settings: PriorSettings
    batches: Callable[[int], Iterator[tuple[Batch, float]]]
    validation: Callable[[], Iterable[Batch]]
    dataset: dict[str, Any]
    close: Callable[[], None] = lambda: None


class Stage(Protocol):
    """A stage of training."""

    name: str

    def jobs(self, run: Run) -> list[str]:
        """Names of the networks that this run trains."""
        ...

    def job(self, run: Run, name: str, rank: int, size: int, device: torch.device) -> Job:
        """The job `name` as worker `rank` of `size` sees it."""
        ...

    def export(self, run: Run, name: str, network: nn.Module, folder: Path) -> None:
        """Write the trained network into `folder`: safetensors and configuration, loadable on a CPU."""
        ...
