"""How long training stands still for a checkpoint on S3: ours behind the steps, ours before the steps go on, and DeepSpeed's own saved and put.

python benchmarks/checkpoint.py              # CCRL, a checkpoint every 6 steps, in moto's server; 0 to 100 ms added to each request
python benchmarks/checkpoint.py --smoke      # one checkpoint of each: does it run?

One process trains the recipe's CCRL on random batches and saves it in turn by each way:

  put         what a tutorial does: the engine's save_checkpoint into a temporary folder, then fsspec's put; nothing is verified, and
              a process that dies in between leaves a half checkpoint
  ours, held  the same files, with manifests of bytes and sha256, committed before the next step (checkpoint.background False)
  ours        the same, uploaded by a thread while training goes on (checkpoint.background True, which is what runs do)

A stall is what the loop waits at the checkpoint. What the thread then takes from the steps is the last column: the mean step from
one checkpoint to the next, over that of `put`.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import torch
import tyro
from figures import print_line
from rich.console import Console
from rich.table import Table
from s3_latency import BUCKET, delay, served
from step import FEATURES, batch_of

from spfem_dist import config
from spfem_dist.priors import ccrl
from spfem_dist.priors.prior import build_prior
from spfem_dist.shares import share_of
from spfem_dist.stage import job_of_one
from spfem_dist.training import engines
from spfem_dist.training.checkpoint import Progress, Saver
from spfem_dist.training.loop import Sums, optimiser_step
from spfem_dist.training.world import PlainWorld

EVERY = 6
WAYS = ("put", "ours, held", "ours")


class Put:
    """The tutorial's way."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def save(self, trained: dict[str, Any], progress: Progress) -> float:
        """Seconds that training stood still."""
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            for name, engine in trained.items():
                engine.save_checkpoint(scratch, tag=name, save_latest=False)
            Path(scratch, "state.json").write_text(json.dumps({"step": progress.step, "samples": progress.samples}))
            fs, place = fsspec.url_to_fs(f"{self.folder}/checkpoint_{progress.step:09d}")
            fs.put(f"{scratch}/", f"{place}/", recursive=True)
        return time.perf_counter() - began

    def wait(self) -> None:
        """Nothing is in flight."""


def one_round(step: Callable[[], None], trained: dict[str, Any], place: str, saves: int) -> dict[str, dict[str, float]]:
    """The stall, the step and the bytes of each way, over `saves` checkpoints of each."""
    found: dict[str, dict[str, float]] = {}
    for way in WAYS:
        world = PlainWorld(f"{place}/{way.replace(', ', '-')}")
        settings = config.Checkpoint(background=way == "ours")
        saver: Put | Saver = Put(world.storage) if way == "put" else Saver(world, settings)
        progress, stalls, times = Progress(), [], []
        for number in range(saves * EVERY):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
            progress.step, progress.samples = number + 1, 12 * (number + 1)
            if progress.step % EVERY == 0:
                stalls.append(saver.save(trained, progress))
        saver.wait()
        # The first checkpoint opens connections, and the steps before it are beside no upload.
        later = times[EVERY:] or times
        found[way] = {"stall_s": statistics.median(stalls[1:] or stalls), "step_s": statistics.fmean(later)}
    return found


def main(latencies: tuple[int, ...] = (0, 20, 100), saves: int = 6, rounds: int = 2, smoke: bool = False) -> None:
    """Every latency (ms) in turn, `rounds` times; print the table and one line of JSON."""
    torch.set_num_threads(1)
    latencies, saves, rounds = ((20,), 1, 1) if smoke else (latencies, saves, rounds)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run, settings = config.Run(data=config.Data(), seed=0), ccrl.Settings()
    engines.connect(device)
    network = build_prior(settings, run.data, FEATURES)
    share = share_of(settings.global_batch, 0, 1)
    trained = {"ccrl": engines.make_engine(network, settings.optimizer, run.zero, share, device)}
    job = job_of_one("ccrl", network, settings, lambda _start: iter([]), lambda: [], {}, export=lambda *_: None)
    batch, sums = batch_of(run, 0), Sums(device)

    def step() -> None:
        optimiser_step(job, trained, iter([(batch, 0.0)]), share, device, sums)

    for _ in range(3):  # the first steps allocate
        step()
    results: dict[int, list[dict[str, dict[str, float]]]] = {milliseconds: [] for milliseconds in latencies}
    with tempfile.TemporaryDirectory() as empty, served(Path(empty)) as address:
        for number in range(rounds):
            for milliseconds, found in results.items():
                delay(address, milliseconds)
                found.append(one_round(step, trained, f"s3://{BUCKET}/{number}-{milliseconds}", saves))
    table = Table("latency", "way", "stall", "stall / step", "stall / put's", "step / put's")
    facts: dict[str, Any] = {}
    for milliseconds, found in results.items():
        for way in WAYS:
            median = {key: statistics.median(r[way][key] for r in found) for key in ("stall_s", "step_s")}
            median["stall_steps"] = median["stall_s"] / median["step_s"]
            for key in ("stall_s", "step_s"):
                median[f"{key}_over_put"] = statistics.median(r[way][key] / r["put"][key] for r in found)
            facts.setdefault(str(milliseconds), {})[way] = median
            row = [f"{milliseconds} ms", way, f"{median['stall_s'] * 1e3:.0f} ms", f"{median['stall_steps']:.2f}"]
            table.add_row(*row, f"{median['stall_s_over_put']:.2f}", f"{median['step_s_over_put']:.2f}")
    Console().print(table)
    print_line("checkpoint", latencies=facts, parameters=sum(p.numel() for p in network.parameters()), rounds=rounds)


if __name__ == "__main__":
    tyro.cli(main)
