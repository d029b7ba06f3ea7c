"""ZeRO stages side by side: what each worker holds, what a checkpoint weighs, how long a step takes; and what the plan says of them.

python benchmarks/zero.py             # two workers on the CPU, a network of 12.6 million parameters, every stage in turn
python benchmarks/zero.py --smoke     # a small network, three steps: does it run?

Resident memory is read from the operating system before the network is made and at its largest while it trains; the plan's figure is
`training/plan.py: memory`, which does not know what the allocator and the libraries take.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import tyro
from figures import print_line
from rich.console import Console
from rich.table import Table
from torch import nn

from spfem_dist.config import Optimizer, Zero
from spfem_dist.planning.predict import checkpoint_bytes
from spfem_dist.shares import share_of
from spfem_dist.training import engines
from spfem_dist.training.plan import memory

STAGES = (0, 1, 2, 3)
#: Workers are forked from one process that has done the imports, which cost seconds and memory of their own.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["deepspeed", "spfem_dist.training.engines", "spfem_dist.training.plan"])


@dataclass
class Worker:
    """What one process of a measurement is told."""

    stage: int
    width: int
    steps: int
    folder: Path


def network_of(width: int) -> nn.Module:
    """Twelve layers of `width`, so that ZeRO-3 has something to gather."""
    return nn.Sequential(*(layer for _ in range(12) for layer in (nn.Linear(width, width), nn.GELU())))


def work(asked: Worker, rank: int, port: int) -> None:
    """One worker: train, and write down what it took."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu" else "cpu")
    engines.connect(device)
    torch.manual_seed(0)
    process = psutil.Process()
    share = share_of(16, rank, 2)
    probe = engines.make_engine(nn.Linear(8, 8), Optimizer(), Zero(stage=asked.stage), share, device)  # its imports
    probe(torch.zeros(1, 8, device=device)).sum()
    before = process.memory_info().rss
    engine = engines.make_engine(network_of(asked.width), Optimizer(), Zero(stage=asked.stage), share, device)
    batch, times, largest = torch.randn(8, asked.width, device=device), [], 0
    for _ in range(asked.steps + 2):
        began = time.perf_counter()
        engine.backward(engine(batch).square().mean())
        largest = max(largest, process.memory_info().rss)
        engine.step()
        times.append(time.perf_counter() - began)
        largest = max(largest, process.memory_info().rss)
    engine.save_checkpoint(str(asked.folder / "checkpoint"), tag="here", save_latest=False)
    facts = {"step_s": statistics.median(times[2:]), "memory": largest - before}
    (asked.folder / f"{rank}.json").write_text(json.dumps(facts))


def measure(stage: int, width: int, steps: int) -> dict[str, float]:
    """The slowest worker's step, the fullest worker's memory, and the checkpoint of both."""
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
        free.close()
        asked = Worker(stage, width, steps, Path(scratch))
        workers = [FORKS.Process(target=work, args=(asked, rank, port)) for rank in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            sys.exit(f"ZeRO-{stage} failed; its worker says why above")
        found = [json.loads((Path(scratch) / f"{rank}.json").read_text()) for rank in range(2)]
        size = sum(f.stat().st_size for f in (Path(scratch) / "checkpoint").rglob("*") if f.suffix == ".pt")
    return {key: max(f[key] for f in found) for key in found[0]} | {"checkpoint": size}


def main(width: int = 1024, steps: int = 12, rounds: int = 2, smoke: bool = False) -> None:
    """Every stage in turn; print the table and one line of JSON."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu" if not torch.cuda.is_available() else "cuda")
    os.environ["OMP_NUM_THREADS"] = "1"
    width, steps, rounds = (128, 3, 1) if smoke else (width, steps, rounds)
    results: dict[int, list[dict[str, float]]] = {stage: [] for stage in STAGES}
    for _ in range(rounds):
        for stage in results:
            results[stage].append(measure(stage, width, steps))
    trainable = sum(p.numel() for p in network_of(width).parameters())
    activations = 8 * width * 4 * 24
    table = Table(
        "ZeRO",
        "step",
        "of stage 0",
        "MB of a worker",
        "planned",
        "checkpoint MB",
        "planned",
        title=f"{trainable:,} parameters",
    )
    facts: dict[str, dict[str, float]] = {}
    for stage, rows in results.items():
        row = {key: statistics.median(r[key] for r in rows) for key in rows[0]}
        zero = Zero(stage=stage)  # type: ignore[arg-type]
        planned = memory(trainable, 0, activations, zero, 2).total
        weight = checkpoint_bytes(trainable, 0, 2, zero)
        facts[str(stage)] = row | {"planned_memory": planned, "planned_checkpoint": weight}
        table.add_row(
            str(stage),
            f"{row['step_s'] * 1e3:.0f} ms",
            f"{row['step_s'] / facts['0']['step_s']:.2f}",
            f"{row['memory'] / 1e6:.0f}",
            f"{planned / 1e6:.0f}",
            f"{row['checkpoint'] / 1e6:.0f}",
            f"{weight / 1e6:.0f}",
        )
    Console().print(table)
    print_line("zero", parameters=trainable, stages=facts, rounds=rounds)


if __name__ == "__main__":
    tyro.cli(main)
