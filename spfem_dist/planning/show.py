"""The plan as a person reads it: what it rests on, then a row for each number of workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from accelerate.utils import compute_module_sizes
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn

from spfem_dist.config import Run
from spfem_dist.planning.constants import Constants
from spfem_dist.planning.measure import sized
from spfem_dist.planning.predict import Prediction, Shape, predict
from spfem_dist.stage import Stage
from spfem_dist.training import speed
from spfem_dist.training.plan import measure, states_of


def shape_of(run: Run, stage: Stage, name: str) -> Shape:
    """The job's sizes and arithmetic, counted on one sample on the CPU."""
    job = stage.job(sized(run, name, run.jobs()[name].global_batch, 1), name, 0, 1, torch.device("cpu"))
    try:
        speed.prepare(job.networks, run.speed)
        flops, activations = measure(job, next(iter(job.batches(0)))[0].part(slice(1)), run.zero.precision)
        networks = nn.ModuleDict(job.networks)
        trainable = sum(p.numel() for p in networks.parameters() if p.requires_grad)
        counts = job.dataset["counts"]
        return Shape(
            trainable=trainable,
            frozen_bytes=int(compute_module_sizes(networks)[""]) - 4 * trainable,
            activation_bytes=activations,
            flops_per_sample=flops,
            optimizer_states=states_of(job),
            samples_per_epoch=counts["samples_per_epoch"],
            bytes_per_epoch=counts["bytes_per_epoch"],
            shard_bytes=counts.get("shard_bytes_per_epoch", counts["bytes_per_epoch"]),
            networks=len(job.networks),
        )
    finally:
        job.close()


def predictions(
    run: Run,
    name: str,
    shape: Shape,
    constants: Constants,
    workers: Sequence[int],
    per_worker: int | None,
    per_node: int,
) -> list[Prediction]:
    """One for each number of workers that the global batch can be shared by, for as many samples as the run has.

    per_worker: samples of each worker, the global batch following; None keeps the run's global batch.
    """
    job = run.jobs()[name]
    samples = job.steps * job.global_batch
    sizes = [(n, per_worker * n if per_worker else job.global_batch) for n in workers]
    return [
        predict(
            constants,
            name,
            shape,
            run.zero,
            n,
            batch,
            samples,
            per_node,
            job.micro_batch,
            run.checkpoint.every_steps,
            run.checkpoint.background,
        )
        for n, batch in sizes
        if n <= batch
    ]


def unshared(run: Run, name: str, workers: Sequence[int], per_worker: int | None) -> str:
    """In words, which numbers of workers are left out and what to do; '' where none is."""
    batch = run.jobs()[name].global_batch
    left = [n for n in workers if not per_worker and n > batch]
    if not left:
        return ""
    return (
        f"{name}: a global batch of {batch} cannot be shared by {', '.join(map(str, left))} workers; "
        f"plan with --per-worker SAMPLES, or --{name}.global-batch {max(left)}"
    )


def table_of(name: str, constants: Constants, found: Sequence[Prediction], epoch: bool) -> Table:
    """A column for each number of workers, a row for each figure. epoch: show what S3 must give."""
    unit = constants.unit
    table = Table(title=f"{name} on {constants.name} ({constants.kind})", title_justify="left")
    table.add_column(f"{unit}s")
    for p in found:
        table.add_column(f"{p.workers:,}", justify="right", no_wrap=True)

    def row(label: str, write: Callable[[Prediction], str]) -> None:
        table.add_row(label, *(write(p) for p in found))

    def ideal(p: Prediction) -> float:
        # What the first column's samples/s for each worker would give with no loss to the number of workers.
        return found[0].samples_per_s / found[0].workers * p.workers

    row("global batch", lambda p: f"{p.global_batch:,}")
    row("  of each worker", lambda p: f"{p.share:,}")
    row("step, ms", lambda p: f"{p.step_s * 1e3:,.1f}")
    row("  of it exchange", lambda p: f"{p.exchange_share:.1%}")
    row("samples/s", lambda p: f"{p.samples_per_s:,.1f}")
    row("  of ideal", lambda p: f"{p.samples_per_s / ideal(p):.0%}")
    row(f"memory of each {unit.split()[-1]}, GB", lambda p: f"{p.memory.total / 1e9:.2f}")
    if epoch:
        row("S3 for samples, MB/s", lambda p: f"{p.s3_samples / 1e6:,.1f}")
        row("S3 for nodes, MB/s", lambda p: f"{p.s3_nodes / 1e6:,.1f}")
    row("steps", lambda p: f"{p.steps:,}")
    row("hours", lambda p: f"{p.hours:,.2f}")
    row(f"{unit} hours", lambda p: f"{p.worker_hours:,.2f}")
    row("checkpoint, GB", lambda p: f"{p.checkpoint_bytes / 1e9:.3f}")
    row("  its upload, s", lambda p: "?" if p.upload_s is None else f"{p.upload_s:.2f}")
    row("  steps stand still, s", lambda p: "?" if p.upload_s is None else f"{p.stall_s:.2f}")
    return table


def show(
    console: Console,
    run: Run,
    shapes: Mapping[str, Shape],
    constants: Constants,
    workers: Sequence[int],
    per_worker: int | None,
    per_node: int,
) -> dict[str, list[Prediction]]:
    """Print the plan of every job, of these shapes; returns the predictions by job."""
    console.print(
        Text.assemble(
            "measured" if constants.kind == "measured" else ("assumed, not measured", "yellow"),
            f": {constants.name}{f', {constants.date}' if constants.date else ''}; all-reduce {constants.bandwidth / 1e6:,.0f} MB/s, "
            f"{constants.latency_s * 1e6:,.0f} us between {constants.processes}; {per_node} workers to a node",
        )
    )
    for number, source in constants.sources.items():
        console.print(f"  {number}: {source}", highlight=False)
    result = {}
    for name, shape in shapes.items():
        result[name] = predictions(run, name, shape, constants, workers, per_worker, per_node)
        if job := constants.jobs.get(name):
            console.print(
                f"{name}: a step takes {job.fixed_s * 1e3:.1f} ms + {job.sample_s * 1e3:.2f} ms for each sample + {job.optimizer_s * 1e3:.1f} ms "
                f"of update; the fit is within {job.fit_error:.1%} of {len(job.measured)} measured sizes; side by side "
                + (", ".join(f"{n} take x {c:.2f}" for n, c in job.contention.items()) or "not measured"),
                highlight=False,
            )
        if left := unshared(run, name, workers, per_worker):
            console.print(Text(left, "yellow"))
        if result[name]:
            console.print(table_of(name, constants, result[name], epoch=True))
    console.print(
        "S3: what the samples need, and what all nodes fetch together in a first epoch (each fetches whole shards, and every node meets "
        "every shard); afterwards nothing where data.cache-mb holds the shards. Hours count steps and checkpoints, and no start-up.",
        highlight=False,
    )
    return result
