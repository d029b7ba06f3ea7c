"""The arithmetic of a plan: pure functions from constants to what N workers would do.

    t(N) = contention x (fixed + samples x sample_s + optimizer_s / N) + exchange(N)

The exchange is not hidden behind the computation, because DeepSpeed is told not to overlap it here (`overlap_comm`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from spfem_dist.config import Zero
from spfem_dist.planning.constants import Collective, Constants, JobConstants
from spfem_dist.training.plan import Memory, memory
from spfem_dist.training.status import arithmetic

#: Share of the volume that a link carries, as a function of N: of a ring, times (N - 1) / N.
CARRIED = {
    "all_reduce": 2.0,
    "all_gather": 1.0,
    "reduce_scatter": 1.0,
    "broadcast": 1.0,
    "reduce": 1.0,
    "all_to_all": 1.0,
}


@dataclass(frozen=True)
class Shape:
    """What a job is, whatever machine it runs on. Bytes and FLOPs are for each sample where they say so."""

    trainable: int
    frozen_bytes: int
    activation_bytes: float
    flops_per_sample: float
    optimizer_states: float
    samples_per_epoch: int
    bytes_per_epoch: int
    shard_bytes: int
    networks: int = 1


@dataclass(frozen=True)
class Prediction:
    """N workers. Seconds, bytes and samples/s; `hours` are for the same number of samples whatever N is.

    upload_s: of a checkpoint to the storage. stall_s: what the steps wait for one, beside its write to the local disk.
    """

    workers: int
    global_batch: int
    share: int
    step_s: float
    exchange_s: float
    memory: Memory
    steps: int
    hours: float
    s3_samples: float
    s3_nodes: float
    checkpoint_bytes: float
    upload_s: float | None
    stall_s: float | None

    @property
    def samples_per_s(self) -> float:
        """Of all workers together."""
        return self.global_batch / self.step_s

    @property
    def exchange_share(self) -> float:
        """Share of a step in which gradients and parameters travel."""
        return self.exchange_s / self.step_s

    @property
    def worker_hours(self) -> float:
        """Hours times workers."""
        return self.hours * self.workers


def exchange_seconds(
    collectives: Mapping[str, Collective],
    workers: int,
    bandwidth: float,
    latency_s: float,
    processes: int,
    call_s: Mapping[int, float] | None = None,
) -> float:
    """Seconds that the collectives of a step take between `workers`.

    bandwidth: bus bandwidth, bytes/s. latency_s: of one small call between `processes` that do nothing else; it grows with the depth of
    a tree. call_s: of one call within a step, by the number of workers it was measured with; grows likewise, and counts where it is more.
    """
    if workers == 1:
        return 0.0
    known = [(processes, latency_s), *(call_s or {}).items()]
    call = max(seconds * math.log2(workers) / math.log2(n) for n, seconds in known)
    volume = sum(CARRIED.get(kind, 1.0) * c.bytes for kind, c in collectives.items()) * (workers - 1) / workers
    return sum(c.calls for c in collectives.values()) * call + volume / bandwidth


def zero_collectives(trainable: int, zero: Zero) -> dict[str, Collective]:
    """The volume of a step by ZeRO's paper (section 7): 2 psi for stages 0 to 2, 3 psi for stage 3; one call each."""
    size = float(trainable * zero.width)
    if zero.stage == 0:
        return {"all_reduce": Collective(calls=1, bytes=size)}
    gathers = 2 if zero.stage == 3 else 1
    return {
        "reduce_scatter": Collective(calls=1, bytes=size),
        "all_gather": Collective(calls=gathers, bytes=gathers * size),
    }


def contention(job: JobConstants, beside: int) -> float:
    """Slow-down with `beside` workers on a node: as measured, or as at the largest measured number below."""
    measured = [n for n in job.contention if n <= beside]
    return job.contention[max(measured)] if measured else 1.0


def job_constants(constants: Constants, name: str, shape: Shape, precision: str = "fp32") -> JobConstants:
    """The measured constants of the job, or what the machine's FLOP/s at `precision` (of `Zero`) make of its arithmetic.

    ValueError where neither is known.
    """
    if name in constants.jobs:
        return constants.jobs[name]
    if not constants.flops:
        raise ValueError(
            f"job {name!r} was not measured on {constants.name}: add --measure, or enable only {sorted(constants.jobs)}"
        )
    flops = constants.flops.get(arithmetic(precision), constants.flops.get(precision))
    if flops is None:
        raise ValueError(
            f"nothing is known of {precision} arithmetic on {constants.name}, only of {', '.join(constants.flops)}: "
            "choose another --zero.precision, or --measure"
        )
    return JobConstants(fixed_s=constants.fixed_s, sample_s=shape.flops_per_sample / flops)


def checkpoint_bytes(trainable: int, frozen_bytes: int, states: float, zero: Zero) -> float:
    """Bytes of one checkpoint, all workers together: the networks, fp32 master weights and the optimiser's states.

    ZeRO-3 writes the weights once, as the master weights; ZeRO-0 in fp32 has no others.
    """
    width = zero.width if zero.stage < 3 else 0
    master = 4 if zero.masters else 0
    return trainable * (width + master + 4 * states) + frozen_bytes


def predict(
    constants: Constants,
    name: str,
    shape: Shape,
    zero: Zero,
    workers: int,
    global_batch: int,
    samples: int,
    workers_per_node: int,
    micro_batch: int | None = None,
    every_steps: int = 0,
    background: bool = True,
) -> Prediction:
    """What `workers` would do with `global_batch` samples for each step, for `samples` in all.

    every_steps: steps between checkpoints, 0 for none. background: a checkpoint is uploaded behind the steps, so that they wait for
    it where the next one is due before it has arrived, and at the end.
    """
    job = job_constants(constants, name, shape, zero.precision)
    share = -(-global_batch // workers)  # of the fullest worker, for whom the others wait
    beside = min(workers, workers_per_node)
    update = job.optimizer_s / (workers if zero.stage > 0 else 1)
    compute = contention(job, beside) * (job.fixed_s + share * job.sample_s + update)
    collectives = job.collectives or zero_collectives(shape.trainable, zero)
    exchange = exchange_seconds(
        collectives, workers, constants.bandwidth, constants.latency_s, constants.processes, job.call_s
    )
    step = compute + exchange
    steps = math.ceil(samples / global_batch)
    nodes = math.ceil(workers / workers_per_node)
    size = checkpoint_bytes(shape.trainable, shape.frozen_bytes, shape.optimizer_states, zero)
    upload = size / nodes / constants.storage_write if constants.storage_write else None
    stall = max(0.0, upload - every_steps * step) if upload is not None and background else upload
    waited = (steps // every_steps * (stall or 0.0) + (upload or 0.0)) if every_steps else 0.0
    rate = global_batch / step
    epoch_s = shape.samples_per_epoch / rate
    return Prediction(
        workers=workers,
        global_batch=global_batch,
        share=share,
        step_s=step,
        exchange_s=exchange,
        memory=memory(
            shape.trainable,
            shape.frozen_bytes,
            shape.activation_bytes * min(share, micro_batch or share),
            zero,
            workers,
            shape.optimizer_states,
        ),
        steps=steps,
        hours=(steps * step + waited) / 3600,
        s3_samples=shape.bytes_per_epoch / epoch_s,
        s3_nodes=nodes * shape.shard_bytes / epoch_s,
        checkpoint_bytes=size,
        upload_s=upload,
        stall_s=stall,
    )


def fit(points: Mapping[int, float]) -> tuple[float, float, float]:
    """(fixed seconds, seconds for each sample, largest relative error) of the line through {samples: seconds}.

    Weighted by 1 / seconds squared, so that relative errors count alike. Neither number is below 0. Needs two points.
    """
    if len(points) < 2:
        raise ValueError(
            f"a line needs steps of two or more sizes, not only of {sorted(points)} samples: give --shares 2 4 8"
        )
    weight = {b: 1 / t**2 for b, t in points.items()}
    total = sum(weight.values())
    mean_b = sum(weight[b] * b for b in points) / total
    mean_t = sum(weight[b] * t for b, t in points.items()) / total
    spread = sum(weight[b] * (b - mean_b) ** 2 for b in points)
    slope = sum(weight[b] * (b - mean_b) * (t - mean_t) for b, t in points.items()) / spread
    slope = max(0.0, slope)
    fixed = mean_t - slope * mean_b
    if fixed < 0:  # a line through the origin instead
        fixed, slope = 0.0, sum(weight[b] * b * t for b, t in points.items()) / sum(weight[b] * b * b for b in points)
    error = max(abs(fixed + slope * b - t) / t for b, t in points.items())
    return fixed, slope, error
