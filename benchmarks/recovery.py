"""From a fault to the next step on Ray, beside starting the command by hand on a cluster that stands: each fault of the kill matrix.

python benchmarks/recovery.py              # worker, during checkpoint, during upload, driver, node; a Ray cluster of its own
python benchmarks/recovery.py --smoke      # a worker's death, without Ray: does it run?

Somebody who sits beside a run that died would give the command again: from then to its first step is a cold start. Recovery is
counted from the fault, so it has the time in which it is noticed, and the steps since the last checkpoint are not in it. A lost driver
is a cold start by itself: the same command is given again at once (on Kubernetes by the RayJob's backoffLimit).
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tyro
from figures import print_line
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "chaos"), str(ROOT / "recipes")]

from cells import FAULTS, STAGES, Cell, Ground  # noqa: E402
from hosts import Cluster  # noqa: E402
from toy_stage2 import make_toy  # noqa: E402
from ways import Alone, OnRay  # noqa: E402


def first_step(samples: Path, job: str) -> float:
    """When the first step of a run was done: its second one takes its samples then."""
    rows = (json.loads(line) for file in samples.glob(f"{job}-*.jsonl") for line in file.read_text().splitlines())
    return min(row["time"] for row in rows if row["step"] == 2)


def main(rounds: int = 1, smoke: bool = False) -> None:
    """Every fault in turn, `rounds` times; print the table and one line of JSON."""
    recovered: dict[str, list[float]] = {fault: [] for fault in FAULTS}
    cold = []
    with tempfile.TemporaryDirectory() as scratch:
        toy = make_toy(Path(scratch) / "toy")

        def measure(way: Alone | OnRay, faults: list[str], folder: Path) -> None:
            ground = Ground(folder, toy, lambda text: print(text, file=sys.stderr, flush=True))
            began = time.time()
            cold.append(first_step(ground.reference("stage 1", 1, way) / "samples", STAGES["stage 1"]) - began)
            for fault in faults:
                result = ground.run(Cell((fault,), "stage 1", 1), way)
                if result.wrong:
                    sys.exit(f"{result.cell}: {'; '.join(result.wrong)}")
                recovered[fault].append(result.seconds[fault])

        for number in range(1 if smoke else rounds):
            if smoke:
                (Path(scratch) / "alone").mkdir()
                measure(Alone(), ["worker"], Path(scratch) / "alone")
                continue
            for cluster, faults in (
                (Cluster(on_head=2), [fault for fault in FAULTS if fault != "node"]),
                (Cluster(on_head=0, nodes=3), ["node"]),
            ):
                with cluster:
                    folder = Path(scratch) / f"{number}-{faults[0]}"
                    folder.mkdir()
                    measure(OnRay(cluster), faults, folder)
    start = statistics.median(cold)
    table = Table("fault", "fault to next step", "cold start by hand", "ratio")
    facts: dict[str, Any] = {}
    for fault, seconds in recovered.items():
        if seconds:
            median = statistics.median(seconds)
            facts[fault] = {"seconds": median, "ratio": median / start}
            table.add_row(fault, f"{median:.1f} s", f"{start:.1f} s", f"{median / start:.2f}")
    Console().print(table)
    print_line("recovery", faults=facts, cold_start_s=start, rounds=rounds)


if __name__ == "__main__":
    tyro.cli(main)
