"""What is looked at before a run starts: what would end one of its jobs later is said now, before a cluster is asked for anything."""

from __future__ import annotations

import os

import psutil

from spfem_dist.config import Run
from spfem_dist.console import plain_console
from spfem_dist.corpora.splits import Split
from spfem_dist.prepare import synthetic
from spfem_dist.ray_address import refuse_dead_address
from spfem_dist.redact import redact
from spfem_dist.stage import Stage
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.tracking import store as tracking
from spfem_dist.training.runfolder import RunFolder
from spfem_dist.training.screen import Screen

#: Memory of the largest machine that a worker may be on, bytes.
_LARGEST = 2**42


def check(run: Run, stage: Stage, on_ray: bool = False) -> None:
    """Raise what would keep a job of `run` from starting: shards, split, groups to learn from, priors, weights, tracking, and
    `on_ray` the cluster that RAY_ADDRESS names.

    The synthetic shards that recipes name may be absent: `shards` makes them. Seconds at most, and no Ray.
    """
    if stage.reads_shards:
        check_memory(run, on_ray)
        Split.of(run.data)
        if not to_be_made(run):
            ShardReader.of(run.data)  # raises MissingShard with the command that makes them
    check_tracking(run)
    if on_ray:
        refuse_dead_address()
    if not (stage.reads_shards and to_be_made(run)):
        check_jobs(run, stage)


def check_memory(run: Run, on_ray: bool = False) -> None:
    """Raise ValueError for a micro-batch whose frames alone, as bytes, this machine could not hold; `on_ray`, where others may work, any.

    Four frames a sample are the least that any job draws, and twice `data.frames_per_recording` the least of those that draw so many.
    """
    room = _LARGEST if on_ray else psutil.virtual_memory().total
    for name, job in run.jobs().items():
        samples = min(job.micro_batch or job.global_batch, -(-job.global_batch // run.scaling.most))
        frames = max(4 * samples, 2 * run.data.frames_per_recording)
        need = frames * 3 * run.data.size**2
        if need > room:
            raise ValueError(
                f"{name}: a micro-batch of {samples:,} samples needs {need / 1e9:,.0f} GB for its frames alone, and there are "
                f"{room / 1e9:,.0f}: lower --{name}.micro-batch, --{name}.global-batch, --data.frames-per-recording or --data.size"
            )


def check_tracking(run: Run) -> None:
    """Raise TrackingUnavailable where the store does not answer. A run that it knows already goes on without it."""
    reach = tracking.reachable(run.tracking.uri)
    if reach.ok or (reach.away and RunFolder(run).read("state.json", {}).get("mlflow_run")):
        return
    raise tracking.TrackingUnavailable(
        f"tracking store {redact(run.tracking.uri)} cannot be used: {reach.detail}. Fix it, or {tracking.MENDING}"
    )


def check_jobs(run: Run, stage: Stage) -> None:
    """Raise ValueError that names every job which could not start, and why. Only the first process of several looks."""
    if int(os.environ.get("RANK", "0")) > 0:
        return
    folder, problems = RunFolder(run), []
    for name in stage.jobs(run):
        if folder.read(f"{name}/state.json", {}).get("status") == "finished":
            continue
        try:
            stage.check(run, name)
        except (OSError, RuntimeError, ValueError) as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ValueError("nothing was started:\n  " + "\n  ".join(problems) if len(problems) > 1 else problems[0])


def shards(run: Run, stage: Stage, screen: Screen, on_ray: bool = False) -> str:
    """The digest of the shards of `run`, which are made first where they are the synthetic ones and absent; '' where none are read.

    on_ray: make them by tasks of the Ray that this process has joined.
    """
    if not stage.reads_shards:
        return ""
    if to_be_made(run):
        synthetic.make(run.data.shards, plain_console(quiet=True) if screen.quiet else screen.console, on_ray)
        check_jobs(run, stage)
    return ShardReader.of(run.data).index.digest


def to_be_made(run: Run) -> bool:
    """Whether the shards of `run` are the synthetic ones that recipes name, and absent."""
    return synthetic.seed_of(run.data.shards) is not None and not synthetic.are_there(run.data.shards)
