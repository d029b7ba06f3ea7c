"""Ray Train against torchrun on the same recipe, same shards, same steps: samples/s as the loop itself measures them.

python benchmarks/launchers.py --shards shards/synthetic             # two workers each, in turn, twice
python benchmarks/launchers.py --shards shards/synthetic --workers 1 # on two cores: Ray's own processes have one to themselves
python benchmarks/launchers.py --shards shards/synthetic --smoke     # a few steps: does it run?
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro
from figures import print_line

ROOT = Path(__file__).resolve().parents[1]


def train(how: str, storage: Path, shards: Path, split: str, steps: int, workers: int = 2) -> float:
    """Samples/s of one run of `workers` by `how` (ray or torchrun), from its last status line."""
    recipe = [
        str(ROOT / "recipes" / "cdrl_stage1.py"),
        "--name",
        how,
        "--checkpoint.storage",
        str(storage),
        "--tracking.uri",
        "",
    ]
    recipe += [
        "--data.shards",
        str(shards.resolve()),
        "--data.split",
        split,
        "--cerl.enabled",
        "False",
        "--ccrl.steps",
        str(steps),
        "--scaling.workers",
        str(workers),
    ]
    recipe += [
        "--validation.every-steps",
        "0",
        "--tracking.pictures-every-steps",
        "0",
        "--checkpoint.every-steps",
        "100000",
    ]
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(workers),
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
    ]
    command = [sys.executable, *(torchrun if how == "torchrun" else []), *recipe]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": os.environ.get("DS_ACCELERATOR", "cpu")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if "samples/s" in line]
    if done.returncode or not lines:
        sys.exit(f"{how} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return float(lines[-1].split(" samples/s")[0].split()[-1])


def main(
    shards: Path = Path("shards/synthetic"),
    split: str = "synthetic",
    steps: int = 120,
    rounds: int = 2,
    workers: int = 2,
    smoke: bool = False,
) -> None:
    """Run both in turn and print the ratio of medians (1 or more: Ray Train is as fast)."""
    steps, rounds = (8, 1) if smoke else (steps, rounds)
    speeds: dict[str, list[float]] = {"ray": [], "torchrun": []}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds):
            for how, found in speeds.items():
                found.append(train(how, Path(scratch) / str(number), shards, split, steps, workers))
                print(f"round {number + 1} {how}: {found[-1]:.1f} samples/s", flush=True)
    ray, torchrun = (statistics.median(speeds[how]) for how in ("ray", "torchrun"))
    print(f"Ray Train / torchrun: {ray / torchrun:.3f}")
    facts = {
        "ray_samples_per_s": ray,
        "torchrun_samples_per_s": torchrun,
        "ratio": ray / torchrun,
        "steps": steps,
        "workers": workers,
    }
    print_line("launchers", **facts)


if __name__ == "__main__":
    tyro.cli(main)
