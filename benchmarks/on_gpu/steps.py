"""Optimiser steps of the three jobs: through the loop and DeepSpeed, in plain PyTorch, and as `spfem plan` expects them.

Published trunks have random weights here: arithmetic does not depend on what is in them.
"""

from __future__ import annotations

import copy
import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

from spfem_dist.config import Data, GuidedRun, Run, Zero
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.ned import Settings as NED
from spfem_dist.generators.ned.stage import guided_job
from spfem_dist.nets.frozen import freeze
from spfem_dist.planning.constants import Constants, JobConstants, assumed
from spfem_dist.planning.predict import Shape, fit, predict
from spfem_dist.priors.frozen import FrozenPriors
from spfem_dist.priors.prior import build_prior, find
from spfem_dist.records import Batch, Seeds
from spfem_dist.shares import share_of
from spfem_dist.stage import Job, job_of_one
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.training import engines
from spfem_dist.training.loop import Sums, optimiser_step
from spfem_dist.training.plan import measure
from spfem_dist.training.status import peak_flops

#: Folders `64` and `256` of shards with landmarks, which the loader and stage 2 read.
SHARDS = "SPFEM_GPU_SHARDS"
#: Turns of a measurement, and seconds of each.
TURNS, SECONDS = 3, 1.0


class NEDRun(GuidedRun):
    """A run of NED alone."""

    ned: NED = Field(default_factory=NED)


def device_here() -> torch.device:
    """The GPU, or the CPU where the script itself is tried out."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def data_of(job: str, size: str, tiny: bool) -> Data:
    """64 px as on a laptop, or 256 px as published."""
    side = 256 if size == "paper" else 64
    stored = 256 if Path(os.environ.get(SHARDS, ""), "256", "index.json").exists() and size == "paper" else 64
    frames = 10 if job == "ned" else 2 if tiny else 6
    shards = str(Path(os.environ.get(SHARDS, ""), str(stored)))
    return Data(shards=shards, size=side, frames_per_recording=frames, split="none")


def random_batch(job: str, data: Data, count: int, features: int, number: int) -> Batch:
    """Random faces and speech in the shape of the job's samples."""
    generator = torch.Generator().manual_seed(number)
    emotions = SEVEN if job == "cerl" else SEVEN[:2]
    shape = (count, len(emotions), 2 if job == "cerl" else data.frames_per_recording)
    numbers = torch.tensor([list(Emotion).index(e) for e in emotions])
    return Batch(
        frames=torch.randint(0, 256, (*shape, 3, data.size, data.size), dtype=torch.uint8, generator=generator),
        speech=torch.randn(*shape, data.speech_window, features, generator=generator),
        position=(torch.arange(shape[2]) * data.minimum_gap).expand(shape).clone(),
        emotion=numbers.expand(count, -1).clone(),
        valid=torch.ones(shape, dtype=torch.bool),
        sample=torch.arange(count),
        seed=Seeds(tuple(range(1000 * number, 1000 * number + count))),
        keys=[str(i) for i in range(count)],
    )


def stage1_job(name: str, size: str, batch: int | None, tiny: bool) -> tuple[Job, list[Batch]]:
    """A prior and two batches for it."""
    settings = find(name).Settings(network=size)
    settings.global_batch = batch or (3 if tiny else settings.global_batch)
    data, features = data_of(name, size, tiny), 1024 if size == "paper" else 160
    network = build_prior(settings, data, features, pretrained=False)
    job = job_of_one(name, network, settings, lambda _start: iter([]), lambda: [], {}, export=lambda *_: None)
    return job, [random_batch(name, data, settings.global_batch, features, n) for n in range(2)]


def stage2_job(size: str, batch: int | None, tiny: bool, device: torch.device) -> tuple[Job, list[Batch]]:
    """NED under random priors of the same size, and two batches of recordings with their landmarks."""
    run = NEDRun(data=data_of("ned", size, tiny))
    run.scaling.workers, run.tracking.uri, run.data.decoder = 1, "", "pyav"
    run.ned.network = size  # type: ignore[assignment]
    run.ned.global_batch = batch or (3 if tiny else run.ned.global_batch)
    features = ShardReader.of(run.data).index.feature_dim
    priors = {
        kind: freeze(build_prior(find(kind).Settings(network=size), run.data, features, pretrained=False).to(device))
        for kind in ("ccrl", "cerl")
    }
    job = guided_job(run, "ned", FrozenPriors(priors, {}), 0, 1, device)
    stream = job.batches(0)
    return job, [next(stream)[0] for _ in range(2)]


def step(
    job: str, size: str, precision: str, compiled: bool = False, batch: int | None = None, tiny: bool = False
) -> dict[str, Any]:
    """Samples/s, MFU and memory of one job; see `benchmarks/gpu.py` for what the figures mean."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
    device = device_here()
    engines.connect(device)
    torch.manual_seed(0)
    made, batches = stage2_job(size, batch, tiny, device) if job == "ned" else stage1_job(job, size, batch, tiny)
    try:
        return _step(made, [b.to(device) for b in batches], precision, compiled, tiny, device)
    finally:
        made.close()


def _step(
    job: Job, batches: list[Batch], precision: str, compiled: bool, tiny: bool, device: torch.device
) -> dict[str, Any]:
    zero = Zero(precision="bf16" if precision == "bf16" else "fp32")
    for network in job.networks.values():
        network.to(device)
    shape = shape_of(job, batches[0], zero)
    count = len(batches[0])
    plain = None if compiled else copy.deepcopy(job.networks)
    facts: dict[str, Any] = {"samples": count, "gflop_per_sample": shape.flops_per_sample / 1e9}
    facts |= {"parameters": shape.trainable, "memory_planned_gb": planned_memory(shape, zero, count)}
    if plain is not None:
        facts |= {f"plain_{key}": value for key, value in plainly(job, plain, batches, precision, tiny, device).items()}
        del plain
        gc.collect()
    if compiled:
        compile_parts(job.networks)
    facts |= ours(job, batches, zero, tiny, device)
    peak = peak_flops(device, precision)
    facts["tflops"] = shape.flops_per_sample * facts["samples_per_s"] / 1e12
    if peak:
        facts["mfu"] = shape.flops_per_sample * facts["samples_per_s"] / peak
        facts["peak_tflops"] = peak / 1e12
    facts |= planned(job.name, shape, zero, count, facts)
    if "plain_samples_per_s" in facts:
        facts["ratio_to_plain"] = facts["samples_per_s"] / facts["plain_samples_per_s"]
    return facts


def shape_of(job: Job, batch: Batch, zero: Zero) -> Shape:
    """What `spfem plan` counts on one sample."""
    flops, activations = measure(job, batch.part(slice(1)))
    networks = nn.ModuleDict(job.networks)
    sizes = [sum(p.numel() for p in networks.parameters() if p.requires_grad is wanted) for wanted in (False, True)]
    width = 2 if zero.precision == "bf16" else 4
    return Shape(
        trainable=sizes[1],
        frozen_bytes=sizes[0] * width,
        activation_bytes=activations * width / 4,
        flops_per_sample=flops,
        optimizer_states=2,
        samples_per_epoch=1,
        bytes_per_epoch=1,
        shard_bytes=1,
    )


def planned_memory(shape: Shape, zero: Zero, count: int) -> float:
    """GB of one worker, by the plan."""
    return predict(assumed("h100"), "-", shape, zero, 1, count, count, 1).memory.total / 1e9


def planned(name: str, shape: Shape, zero: Zero, count: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Samples/s by the plan: from what is assumed of an H100, and from steps measured at other sizes."""
    found: dict[str, Any] = {}
    found["planned_assumed"] = predict(assumed("h100"), name, shape, zero, 1, count, count, 1).samples_per_s
    if len(facts["step_s_by_samples"]) >= 2:
        points = {int(n): seconds for n, seconds in facts["step_s_by_samples"].items()}
        fixed, slope, _ = fit(points)
        constants = Constants(
            name="here", kind="measured", bandwidth=1e12, jobs={name: JobConstants(fixed_s=fixed, sample_s=slope)}
        )
        found["planned_measured"] = predict(constants, name, shape, zero, 1, count, count, 1).samples_per_s
        found["plan_error"] = found["planned_measured"] / facts["samples_per_s"] - 1
    return found


def compile_parts(networks: Mapping[str, nn.Module]) -> None:
    """torch.compile of the networks' large convolutional and attention parts, in place."""
    torch._functorch.config.donated_buffer = False  # type: ignore[attr-defined]  # gradients of one graph are taken twice
    for name, network in networks.items():
        inner: Any = network
        if name == "ccrl":
            inner.face.compile(dynamic=False)
        elif name == "cerl":
            (inner.network.clip.vision_model if hasattr(inner.network, "clip") else inner.network.face).compile(
                dynamic=False
            )
        elif name == "renderer":
            inner.compile(dynamic=False)


def paced(take: Callable[[int], None], tiny: bool, device: torch.device, warm_up: int = 3) -> dict[str, float]:
    """Seconds of a step and peak GB over some turns of `take(number)`; waits for the GPU between turns only."""

    def one(number: int) -> float:
        began = time.perf_counter()
        take(number)
        _settle(device)
        return time.perf_counter() - began

    first, *_ = [one(number) for number in range(1 if tiny else warm_up)]
    each = first if tiny else one(0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    many = 1 if tiny else max(2, min(50, round(SECONDS / each)))
    turns = []
    for _ in range(1 if tiny else TURNS):
        began = time.perf_counter()
        for number in range(many):
            take(number)
        _settle(device)
        turns.append((time.perf_counter() - began) / many)
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    return {"step_s": statistics.median(turns), "memory_gb": memory, "first_step_s": first}


def ours(job: Job, batches: list[Batch], zero: Zero, tiny: bool, device: torch.device) -> dict[str, Any]:
    """Through the loop's own step and one DeepSpeed engine for each network; also at a third and two thirds of the batch."""
    count = len(batches[0])
    share = share_of(count, 0, 1)
    trained = {
        name: engines.make_engine(network, job.optimizers[name], zero, share, device)
        for name, network in job.networks.items()
    }
    sums = Sums(device)

    def take(number: int, samples: int = count) -> None:
        batch = batches[number % len(batches)]
        if samples < count:
            batch = batch.part(slice(samples))
        optimiser_step(job, trained, iter([(batch, 0.0)]), share_of(samples, 0, 1), device, sums)

    found: dict[str, Any] = paced(take, tiny, device)
    losses = sums.mean()
    if bad := [name for name, value in losses.items() if value != value]:
        raise ArithmeticError(f"{', '.join(bad)} became nan")
    found["loss"] = sum(value for name, value in losses.items() if name in sums.losses)
    by_samples = {}
    for samples in sorted({max(1, round(count / 3)), max(1, round(2 * count / 3))} - {count}):
        by_samples[str(samples)] = paced(lambda number, n=samples: take(number, n), tiny, device, 2)["step_s"]
    trained.clear()
    return found | {"samples_per_s": count / found["step_s"], "step_s_by_samples": by_samples}


def plainly(
    job: Job,
    networks: Mapping[str, nn.Module],
    batches: list[Batch],
    precision: str,
    tiny: bool,
    device: torch.device,
) -> dict[str, float]:
    """Forward, backward, clip and step for each phase; bf16 by autocast, as a short script would have it."""
    optimizers = {
        name: engines.optimizer_for([p for p in networks[name].parameters() if p.requires_grad], settings, "none")
        for name, settings in job.optimizers.items()
    }

    def take(number: int) -> None:
        batch = batches[number % len(batches)].to(device)
        for phase in job.phases:
            trained = [p for p in networks[phase.trains].parameters() if p.requires_grad]
            with engines.only(networks, phase.trains):
                with torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext():
                    losses, _ = phase.losses(networks, batch)
                torch.stack([value.float() for value in losses.values()]).sum().backward()
            nn.utils.clip_grad_norm_(trained, job.optimizers[phase.trains].clip or float("inf"))
            optimizers[phase.trains].step()
            optimizers[phase.trains].zero_grad()

    found = paced(take, tiny, device)
    return {"samples_per_s": len(batches[0]) / found["step_s"], "memory_gb": found["memory_gb"]}


def waiting(decoder: str, size: str, tiny: bool = False) -> dict[str, Any]:
    """CCRL in bf16 on real shards whose frames are decoded anew every time: share of a step spent waiting."""
    from spfem_dist.streaming import dali
    from spfem_dist.streaming.feed import JobData
    from spfem_dist.streaming.loader import Source

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = device_here()
    engines.connect(device)
    run, settings = Run(data=data_of("ccrl", size, tiny)), find("ccrl").Settings(network=size)
    run.data.decoder = decoder  # type: ignore[assignment]
    run.data.decoded_cache_mb, run.data.threads, run.data.prefetch = 0, min(8, os.cpu_count() or 1), 4
    run.scaling.workers = 1
    if tiny:
        settings.global_batch = 3
    source = Source(run.data, device)
    network = build_prior(settings, run.data, source.reader.index.feature_dim, pretrained=False)
    feed = JobData(run, settings, network.view, source, 0, 1, device)
    job = job_of_one(
        "ccrl", network, settings, feed.batches, feed.validation, {}, export=lambda *_: None, close=feed.close
    )
    try:
        share = share_of(settings.global_batch, 0, 1)
        zero = Zero(precision="bf16")
        trained = {"ccrl": engines.make_engine(network, settings.optimizer, zero, share, device)}
        stream, sums, waits = job.batches(0), Sums(device), []
        skipped, steps = (1, 2) if tiny else (5, 40)
        for number in range(skipped + steps):
            if number == skipped:
                began = time.perf_counter()
            waits.append(optimiser_step(job, trained, stream, share, device, sums))
            _settle(device)  # the host must not run ahead of the GPU: the loop, which looks at losses, does not either
        taken = time.perf_counter() - began
        if dali.refused and decoder == "dali-gpu":
            raise RuntimeError(f"the GPU's decoder refused the shards: {next(iter(dali.refused.values()))}")
        frames = 2 * run.data.frames_per_recording * settings.global_batch
        facts = {"wait_share": sum(waits[skipped:]) / taken, "samples_per_s": steps * settings.global_batch / taken}
        facts["frames_per_s"] = steps * frames / taken
        return facts | {"stored_px": source.reader.index.size, "threads": run.data.threads}
    finally:
        job.close()


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
