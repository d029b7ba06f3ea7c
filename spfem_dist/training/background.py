"""A run that trains beside another one, in a process of its own, without Ray: two small runs fill cores that wait for each other."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from rich.console import Console

from spfem_dist.config import Run
from spfem_dist.stage import Stage
from spfem_dist.training.launch import start

#: Forked, so that what the caller has imported need not be imported again. Called before Ray starts threads in the caller.
_FORKS = multiprocessing.get_context("fork")


def event() -> Event:
    """What `train_beside` can wait for."""
    return _FORKS.Event()


def train_beside(run: Run, stage: Stage, ready: Event, logs: Path) -> BaseProcess:
    """A process that trains `run` by itself as soon as `ready` is set; what it says goes to `<logs>/<name of the run>.log`."""
    process = _FORKS.Process(target=_train, args=(run, stage, ready, logs), name=run.name, daemon=True)
    process.start()
    return process


def _train(run: Run, stage: Stage, ready: Event, logs: Path) -> None:
    logs.mkdir(parents=True, exist_ok=True)
    with open(logs / f"{run.name}.log", "w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    torch.set_num_threads(1)
    ready.wait()
    sys.exit(0 if start(run, stage, local=True) == "finished" else 130)


def wait_for(process: BaseProcess, run: Run, logs: Path, console: Console) -> str:
    """Wait for what trains beside; returns the folder of its run. SystemExit with the end of its log where it failed."""
    process.join()
    said = (logs / f"{run.name}.log").read_text()
    if process.exitcode:
        raise SystemExit(f"{run.name} ended with status {process.exitcode}:\n{said[-3000:]}")
    console.print(said[-2000:], markup=False, highlight=False)
    return run.absolute().folder()
