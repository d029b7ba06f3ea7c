"""The one training loop. It knows no method, no corpus and no cluster: a network with named losses, batches, and a world."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from spfem_dist.config import Run
from spfem_dist.faults import inject
from spfem_dist.records import Batch
from spfem_dist.shares import Share, held_out_share, share_of
from spfem_dist.stage import Job
from spfem_dist.training import checkpoint, engines, heartbeat, history, watchdog
from spfem_dist.training.averaging import Averages
from spfem_dist.training.guard import Guard
from spfem_dist.training.profiling import Profiler, part
from spfem_dist.training.samples import noted
from spfem_dist.training.screen import Status
from spfem_dist.training.speed import begin_step, compile_all, computing, prepare
from spfem_dist.training.status import Meter, arithmetic, flop_counter, peak_flops
from spfem_dist.training.world import World, highest

#: Optimiser steps between two looks at whether to stop, where a step takes less than QUICK seconds; each look is one tiny collective.
#: Slower steps are followed by a look each: a host that is taken away gives little time.
STOP_EVERY, QUICK = 5, 0.5


class Recorder(Protocol):
    """Where curves and pictures go; rank 0 owns the real one, other ranks pass None."""

    def metrics(self, values: dict[str, float], samples: int) -> None: ...
    def picture(self, key: str, image: Any, samples: int) -> None: ...
    def text(self, name: str, content: str) -> None: ...
    def secure(self) -> None: ...


class Terminal(Protocol):
    """Where a person reads how the run goes: a `World` on rank 0, nothing elsewhere."""

    def say(self, line: str) -> None: ...
    def show(self, status: Status) -> None: ...


@dataclass
class Outcome:
    """How training ended: `finished` or `stopped`, where, the engines of the networks by name, and the averages of their weights."""

    status: str
    progress: checkpoint.Progress
    engines: dict[str, Any]
    averages: Averages


@watchdog.watched
def train(
    job: Job, run: Run, world: World, device: torch.device, recorder: Recorder | None, terminal: Terminal
) -> Outcome:
    """Train `job` to its step budget, from its last committed checkpoint if there is one. Every rank calls it.

    The same configuration gives the same losses whatever the number of workers (the global batch is the constant)
    and however often the run was interrupted.
    """
    settings = job.settings
    share = share_of(settings.global_batch, world.rank, world.size, settings.micro_batch)
    for line in chain(job.begin(), job.fill()):
        heartbeat.beat("getting ready")
        if line:
            terminal.say(f"{job.name}: {line}")
    torch.manual_seed(run.seed)
    prepare(job.networks, run.speed)
    with checkpoint.newest(world, job.networks, run.zero.stage, run.checkpoint.begin_anew) as found:
        universal = found is not None and found.reshard
        trained = {
            name: engines.make_engine(network, job.optimizers[name], run.zero, share, device, universal)
            for name, network in job.networks.items()
        }
        averages = Averages(job, trained)
        progress = checkpoint.restore(trained, averages, found, world.rank) if found else checkpoint.Progress()
    guard = Guard(job, world, trained, run.zero.skipped_share, progress.step)
    if found:
        guard.check(
            progress.step,
            f"{found.location} was read, which an earlier version wrote or somebody changed: move it away, so that the checkpoint before it is used",
        )
        guard.checkpoint = found.location
        workers = f"{world.size} worker{'s' if world.size > 1 else ''}"
        terminal.say(
            f"{job.name}: {workers} resumed from {found.location} at step {progress.step} ({progress.samples} samples seen)"
        )
    if recorder is not None:
        replay(recorder, progress.history)

    peak = peak_flops(device, arithmetic(run.zero.precision))
    meter = Meter(world.size, settings.global_batch, progress.flops_per_sample, peak)
    stream = inject.stream(job.batches(progress.samples), progress.samples, settings.global_batch, share.steps)
    stream = noted(stream, run, job.name, world, progress.step, share.steps)
    running = Sums(device)
    profiler = Profiler(run, job.name, world.rank, device, recorder.text if recorder is not None else None)
    saved_at, status, look_every = progress.step if found else -1, "finished", 1
    if progress.flops_per_sample is not None:
        compile_all(job.networks, run.speed, terminal.say)
    with checkpoint.Saver(world, run.checkpoint) as saver:
        while progress.step < settings.steps:
            inject.at_step(progress.samples, settings.global_batch)
            for name, optimizer in job.optimizers.items():
                engines.set_learning_rate(
                    trained[name], engines.learning_rate(optimizer, progress.step, settings.steps)
                )
            averages.begin_step(progress.step, progress.samples)
            begin_step(run.speed)
            # Counted at no other step: one that is counted rounds otherwise, and a resumed run repeats every bit.
            counting = flop_counter() if progress.step == 0 else nullcontext()
            planted = inject.planted(trained, progress.samples, settings.global_batch)
            with profiler.recording(progress.step + 1), planted, counting as counter:
                waited = optimiser_step(job, trained, stream, share, device, running, run.zero.precision, progress.step)
            if counter is not None:
                meter.flops_per_sample = progress.flops_per_sample = counter.get_total_flops() / share.samples
                compile_all(job.networks, run.speed, terminal.say)
            guard.updated()
            progress.step += 1
            progress.samples += settings.global_batch
            meter.step(waited)
            heartbeat.stepped(progress.step)

            last = progress.step == settings.steps
            if progress.step % look_every == 0 and not last:
                asked = 2 * world.stop_requested() or int(world.preempted())
                asked, slow = highest([asked, int(meter.last > QUICK)], device)
                look_every = 1 if slow else STOP_EVERY
                status, last = ("finished", "preempted", "stopped")[asked], asked > 0
            due = progress.step % run.checkpoint.every_steps == 0 or last
            if progress.step % run.tracking.log_every_steps == 0 or due:
                _log(job, world, progress, running, meter, trained, guard, device, recorder, terminal)
                _record_uploads(saver, recorder)
            if run.validation.every_steps and (
                progress.step % run.validation.every_steps == 0 or (last and status == "finished")
            ):
                _validate(job, run, world, trained, averages, progress, device, recorder)
                meter.pause()
            if run.tracking.pictures_every_steps and progress.step % run.tracking.pictures_every_steps == 0:
                _picture(job, run, trained, averages, progress, device, recorder)
                meter.pause()
            if due:
                guard.check(progress.step, "no checkpoint was written")
                stall = saver.save(trained, progress)
                saved_at, guard.checkpoint = progress.step, saver.location(progress.step)
                if recorder is not None:
                    recorder.secure()  # what was logged up to here outlives this process, like the checkpoint
                    recorder.metrics({"perf/checkpoint_stall_s": stall}, progress.samples)
                meter.pause()
            if status != "finished":
                break
        profiler.close()
        if saved_at != progress.step:
            saver.save(trained, progress)
    _record_uploads(saver, recorder)
    if status == "preempted":
        terminal.say(
            f"{job.name}: this place is about to be taken away; the run goes on from step {progress.step} elsewhere"
        )
        world.yield_for_restart()
    return Outcome(status, progress, trained, averages)


def _record_uploads(saver: checkpoint.Saver, recorder: Recorder | None) -> None:
    for figures, samples in saver.take_figures():
        if recorder is not None:
            recorder.metrics({f"perf/{name}": value for name, value in figures.items()}, samples)


def replay(recorder: Recorder, rows: list[dict[str, Any]]) -> None:
    """Give a recorder the points of a restored history; the store drops those that it already has."""
    for row in rows:
        recorder.metrics(row["values"], row["samples"])


def optimiser_step(
    job: Job,
    trained: Mapping[str, Any],
    stream: Iterator[tuple[Batch, float]],
    share: Share,
    device: torch.device,
    running: Sums,
    precision: str = "fp32",
    step: int = 0,
) -> float:
    """Every phase that is due at `step` (from 0) over this rank's share of the global batch, at this `zero.precision`; returns seconds
    waited for data.

    DeepSpeed takes the mean over micro-batches and ranks; the share's weights make it the mean over samples.

    Networks are called as modules, not through their engines: with a gradient penalty, or a network judged within
    another's step, an engine's forward fails under ZeRO-1 and -2 and is silently wrong under ZeRO-3.
    """
    waited = 0.0

    def fetched() -> Iterator[Batch]:
        nonlocal waited
        for _ in range(share.steps):
            heartbeat.beat("waiting for data")
            with part("waiting for data"):
                batch, wait = next(stream)
            waited += wait
            yield batch.to(device)

    networks = modules(trained)
    batches: Iterable[Batch] = fetched() if len(job.phases) == 1 else list(fetched())
    for phase in (phase for phase in job.phases if step % phase.every == 0):
        engine = trained[phase.trains]
        with engines.only(networks, phase.trains):
            for batch, weight in zip(batches, share.weights, strict=True):
                heartbeat.beat(f"updating {phase.trains}")
                engines.begin_micro_batch(engine)
                with part(f"losses of {phase.trains}"), computing(device, precision):
                    losses, monitors = phase.losses(networks, batch)
                total = torch.stack([v.to(torch.promote_types(v.dtype, torch.float32)) for v in losses.values()]).sum()
                with part(f"backward of {phase.trains}"):
                    engine.backward(total if weight == 1 else total * weight)
                with part(f"update of {phase.trains}"):
                    engine.step()
                running.add(losses, monitors, weight)
    return waited


def modules(trained: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The networks inside their engines."""
    return {name: engine.module for name, engine in trained.items()}


def _log(
    job: Job,
    world: World,
    progress: checkpoint.Progress,
    running: Sums,
    meter: Meter,
    trained: Mapping[str, Any],
    guard: Guard,
    device: torch.device,
    recorder: Recorder | None,
    terminal: Terminal,
) -> None:
    """Average what was summed since the last point over ranks, check it, and hand it on. A collective."""
    means = running.mean()
    guard.bad_loss(progress.step, means)
    skipped = guard.look(progress.step)
    losses = {key: means[key] for key in running.losses if key in means}
    values = {
        f"train/{key}": value for key, value in (losses | means).items()
    }  # the losses first, as a step computes them
    for name, engine in trained.items():
        place = "train" if len(trained) == 1 else f"train/{name}"
        values[f"{place}/learning_rate"] = engine.optimizer.param_groups[0]["lr"]
        norm = engine.get_global_grad_norm()
        if norm is not None and math.isfinite(norm := float(norm)):
            values[f"{place}/gradient_norm"] = norm
        if name in skipped:
            values[f"{place}/skipped_updates"] = skipped[name]
            terminal.say(
                f"{job.name}: step {progress.step}: {skipped[name]} update(s) of {name} left out, their gradients were not finite"
            )
    if world.rank == 0:
        history.add(progress.history, progress.step, progress.samples, values)
    if recorder is not None:
        recorder.metrics(values, progress.samples)
        recorder.metrics({f"perf/{k}": v for k, v in meter.reading(device).items()}, progress.samples)
        terminal.show(meter.status(job.name, progress.step, job.settings.steps, losses, device))


@torch.no_grad()
def _validate(
    job: Job,
    run: Run,
    world: World,
    trained: Mapping[str, Any],
    averages: Averages,
    progress: checkpoint.Progress,
    device: torch.device,
    recorder: Recorder | None,
) -> None:
    """Mean losses on fixed held-out samples, in eval mode. A collective."""
    sums, batches = Sums(device), list(job.validation())
    share = held_out_share(job.settings, run.validation.samples, world.rank, world.size)
    with averages.shown(), evaluating(trained) as networks, computing(device, run.zero.precision):
        for batch, weight in zip(batches, share.weights, strict=bool(batches)):
            heartbeat.beat("validating")
            sums.add(*job.validation_losses(networks, batch.to(device)), weight)
    means = sums.mean()
    if not means:
        return
    values = {f"val/{key}": value for key, value in means.items()}
    if world.rank == 0:
        history.add(progress.history, progress.step, progress.samples, values)
    if recorder is not None:
        recorder.metrics(values, progress.samples)


@torch.no_grad()
def _picture(
    job: Job,
    run: Run,
    trained: Mapping[str, Any],
    averages: Averages,
    progress: checkpoint.Progress,
    device: torch.device,
    recorder: Recorder | None,
) -> None:
    """Pictures of the first held-out micro-batch, drawn by the job itself. A collective under ZeRO-3."""
    heartbeat.beat("drawing pictures")
    batch = next(iter(job.validation()), None)
    if batch is None or job.pictures is None:
        return
    with averages.shown(), evaluating(trained) as networks, computing(device, run.zero.precision):
        pictures = job.pictures(networks, batch.to(device))
    if recorder is not None:
        for key, image in pictures.items():
            recorder.picture(f"{job.name}/{key}", image, progress.samples)


@contextmanager
def evaluating(trained: Mapping[str, Any]) -> Iterator[dict[str, nn.Module]]:
    """The networks in eval mode; in train mode again afterwards."""
    for engine in trained.values():
        engine.eval()
    try:
        yield modules(trained)
    finally:
        for engine in trained.values():
            engine.train()


class Sums:
    """Named scalars summed on the device since the last reading, so that no step waits for the host."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.losses: dict[str, None] = {}  # names, in the order in which they came
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: Counter[str] = Counter()

    def add(self, losses: dict[str, torch.Tensor], monitors: dict[str, torch.Tensor], weight: float = 1.0) -> None:
        self.losses |= dict.fromkeys(losses)
        for key, value in (losses | monitors).items():
            value = value.detach().double()
            value = value if weight == 1 else value * weight
            self._sums[key] = self._sums[key] + value if key in self._sums else value
            self._counts[key] += 1

    def mean(self) -> dict[str, float]:
        """Mean over what was added, on all ranks, by weight (which is 1 on average); empties the sums. A collective; every rank must hold the same names."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        stacked = torch.stack([self._sums[name] / self._counts[name] for name in names]).to(self.device)
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(stacked)
            stacked /= dist.get_world_size()
        self._sums, self._counts = {}, Counter()
        return dict(zip(names, stacked.tolist(), strict=True))
