"""One worker and two: what the second one brings, where the rest goes, and whether `spfem plan` saw it coming.

python benchmarks/scaling.py --shards shards/synthetic             # measures, predicts, trains with 1 and 2 workers, in turns
python benchmarks/scaling.py --shards shards/synthetic --smoke     # a few steps: does it run?

The plan's constants are measured at other batch sizes than those that are trained, and by other processes: the recipe then trains as a
user starts it, by torchrun, and its own status line says how fast it was.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

import tyro
from figures import print_line
from launchers import train  # beside this file
from rich.console import Console
from rich.table import Table

from spfem_dist.planning.constants import Constants
from spfem_dist.planning.measure import measured
from spfem_dist.planning.predict import Shape, exchange_seconds, predict
from spfem_dist.planning.show import shape_of
from spfem_dist.training.launch import parse, recipe_at

ROOT = Path(__file__).resolve().parents[1]
RECIPE = str(ROOT / "recipes" / "cdrl_stage1.py")


def predicted(constants: Constants, shape: Shape, workers: int, global_batch: int) -> float:
    """Samples/s that the plan says."""
    recipe, _ = recipe_at(RECIPE)
    return predict(constants, "ccrl", shape, recipe().zero, workers, global_batch, global_batch, 2).samples_per_s


def exchange_share(constants: Constants) -> tuple[float, float]:
    """Share of a step in which two workers exchange, over the measured sizes: (as measured, what bytes and calls on an idle network make of it)."""
    job = constants.jobs["ccrl"]
    found = statistics.fmean(1 - job.beside[b] / t for b, t in job.together.items())
    idle = exchange_seconds(job.collectives, 2, constants.bandwidth, constants.latency_s, constants.processes)
    return found, statistics.fmean(idle / t for t in job.together.values())


def main(
    shards: Path = Path("shards/synthetic"),
    split: str = "synthetic",
    sizes: tuple[int, ...] = (4, 9, 16),
    steps: int = 60,
    rounds: int = 2,
    smoke: bool = False,
) -> None:
    """Measure and train in turns; print samples/s as trained and as planned, and the share of the exchange.

    Args:
        sizes: Samples of a worker at which the plan's constants are measured.
        steps: Of each training run; a measurement takes a third of them at each size.
    """
    steps, rounds = (8, 1) if smoke else (steps, rounds)
    sizes = (1, 2) if smoke else sizes
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    recipe, stage = recipe_at(RECIPE)
    places = ["--data.shards", str(shards), "--data.split", split, "--cerl.enabled", "False"]
    trained: dict[int, list[float]] = {1: [], 2: []}
    planned: dict[int, list[float]] = {1: [], 2: []}
    exchanges = []
    with tempfile.TemporaryDirectory() as scratch:
        run = parse(recipe, [*places, "--checkpoint.storage", scratch, "--tracking.uri", ""]).run.absolute()
        shape, batch = shape_of(run, stage, "ccrl"), run.jobs()["ccrl"].global_batch
        for number in range(rounds):
            constants = measured(RECIPE, run, 2, {"ccrl": sizes}, max(3, steps // 3))
            exchanges.append(exchange_share(constants))
            for workers in trained:
                planned[workers].append(predicted(constants, shape, workers, batch))
                place = Path(scratch) / f"{number}-{workers}"
                trained[workers].append(train("torchrun", place, shards, split, steps, workers))
    speed = {n: (statistics.median(trained[n]), statistics.median(planned[n])) for n in trained}
    found, idle = (statistics.median(column) for column in zip(*exchanges, strict=True))
    table = Table(
        "workers", "samples/s trained", "samples/s planned", "planned / trained", "exchange: measured, idle network"
    )
    for n, (real, plan) in speed.items():
        table.add_row(
            str(n), f"{real:.1f}", f"{plan:.1f}", f"{plan / real:.3f}", f"{found:.1%}, {idle:.1%}" if n > 1 else ""
        )
    Console().print(table)
    facts = {
        "trained": {n: real for n, (real, _) in speed.items()},
        "planned": {n: plan for n, (_, plan) in speed.items()},
        "ratios": {n: plan / real for n, (real, plan) in speed.items()},
        "speedup": speed[2][0] / speed[1][0],
        "exchange_share": found,
        "exchange_share_idle": idle,
        "rounds": rounds,
        "all": {"trained": trained, "planned": planned},
    }
    print_line("scaling", **facts)


if __name__ == "__main__":
    tyro.cli(main)
