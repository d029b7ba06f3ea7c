"""Which samples each step used, written down by every worker: to find the sample behind a spike, or to show that none is missing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from spfem_dist.config import Run
from spfem_dist.records import Batch
from spfem_dist.training.world import World


def noted(
    stream: Iterator[tuple[Batch, float]], run: Run, job: str, world: World, step: int, accumulation: int
) -> Iterator[tuple[Batch, float]]:
    """`stream`, with a line in `tracking.samples`/JOB-*.jsonl for each micro-batch that training takes from it.

    step: optimiser steps done. A line holds `step` (from 1), `rank`, `world`, `time` and `samples`, the global sample numbers.
    """
    if not run.tracking.samples:
        return stream
    return _noting(stream, Path(run.tracking.samples), job, world, step, accumulation)


def _noting(
    stream: Iterator[tuple[Batch, float]], folder: Path, job: str, world: World, step: int, accumulation: int
) -> Iterator[tuple[Batch, float]]:
    folder.mkdir(parents=True, exist_ok=True)
    # One file for each attempt of each worker: what a killed one wrote stays.
    path = folder / f"{job}-{time.time_ns()}-{os.getpid()}-rank-{world.rank}.jsonl"
    with path.open("w", buffering=1) as file:
        for number, (batch, waited) in enumerate(stream):
            row = {"step": step + 1 + number // accumulation, "rank": world.rank, "world": world.size}
            file.write(json.dumps(row | {"time": time.time(), "samples": batch.sample.tolist()}) + "\n")
            yield batch, waited
