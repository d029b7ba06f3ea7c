"""A run of N workers in virtual time: the loop's own schedule, with measured constants in place of arithmetic.

The order of samples, the shares, the cadence of checkpoints, the pauses of retries and the requests to S3 are those of the project's own
code. Steps are taken together, as collectives make them be: a step ends with its slowest worker. Between two points of the schedule
(a point for MLflow, a checkpoint) steps pass in one stretch, so that a day of a thousand workers is minutes.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import simpy

from spfem_dist.config import JobSettings, Run
from spfem_dist.files import is_address
from spfem_dist.planning.constants import Constants
from spfem_dist.planning.feeding import Feeding
from spfem_dist.planning.imagined_s3 import traffic
from spfem_dist.planning.predict import (
    Shape,
    checkpoint_bytes,
    contention,
    exchange_seconds,
    job_constants,
    zero_collectives,
)
from spfem_dist.planning.storms import (
    Events,
    ImaginedMLflow,
    ImaginedStorage,
    Storm,
    checkpoint_storm,
    restore_storm,
    together,
)
from spfem_dist.shares import held_out_share, share_of
from spfem_dist.streaming.order import Order
from spfem_dist.tracking import outbox

#: Storms of one kind that are played through; later ones of a run are drawn from them.
STORMS = 12
#: Seconds between two looks of the outbox's thread, as it is made.
OUTBOX_S = float(signature(outbox.Outbox).parameters["interval"].default)
#: Seconds of a bin of the timeline.
BIN_S = 60.0
#: What is counted in the timeline.
COUNTED = ("samples", "reads", "writes", "refused", "mlflow calls")


@dataclass(frozen=True)
class Case:
    """What is simulated: a job of `run` on so many workers. order: None where its data say nothing of shards.

    shard_bytes: of each shard of the order's index. index_bytes: of the index, `once` for each node (a table) or for each worker.
    """

    run: Run
    name: str
    shape: Shape
    constants: Constants
    workers: int
    per_node: int
    global_batch: int
    order: Order | None = None
    shard_bytes: np.ndarray | None = None
    index_bytes: int = 0
    index_once: bool = False
    elastic: bool = False
    seed: int = 0

    def remote(self, place: str) -> bool:
        """Whether a place of the run is S3. Of several nodes it is taken to be, though the run that is planned lies in a folder here."""
        return self.nodes > 1 or is_address(place)

    @property
    def nodes(self) -> int:
        """Hosts."""
        return -(-self.workers // self.per_node)

    @property
    def settings(self) -> JobSettings:
        """The job's, with this case's batch."""
        return self.run.jobs()[self.name].model_copy(update={"global_batch": self.global_batch})


@dataclass
class Outcome:
    """What a simulated run came to. Seconds but where it says otherwise; `timeline` has a number for each `BIN_S` seconds."""

    case: Case
    hours: float
    steps: int = 0
    samples: int = 0
    start_s: float = 0.0
    training_s: float = 0.0
    straggling_s: float = 0.0
    data_wait_s: float = 0.0
    data_fetched: float = 0.0
    stall_s: float = 0.0
    checkpoints: int = 0
    uploads: list[Storm] = field(default_factory=list)
    restores: list[Storm] = field(default_factory=list)
    losses: int = 0
    outage_s: float = 0.0
    repeated_steps: int = 0
    gave_up: str = ""
    mlflow_calls: int = 0
    mlflow_busy: float = 0.0
    mlflow_wait_s: float = 0.0
    timeline: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def step_s(self) -> float:
        """Mean of a step, what it waits for data in it."""
        return self.training_s / max(1, self.steps + self.repeated_steps)

    @property
    def refused_share(self) -> float:
        """Share of the checkpoints' requests that S3 refused."""
        storms = [*self.uploads, *self.restores]
        return sum(s.refused for s in storms) / max(1, sum(s.requests for s in storms))

    @property
    def upload_s(self) -> float:
        """Mean seconds from a checkpoint's write to its commit."""
        return float(np.mean([storm.seconds for storm in self.uploads])) if self.uploads else 0.0


def simulate(
    case: Case, hours: float = 24.0, lost: tuple[float, ...] | None = None, steps: int | None = None
) -> Outcome:
    """Run the case for so many hours, or until it has taken `steps`.

    lost: hours at which a host is lost; None draws them at the rate that `Services` says.
    """
    return _Cluster(case, hours, lost, steps).play()


class _Cluster:
    def __init__(self, case: Case, hours: float, lost: tuple[float, ...] | None, steps: int | None) -> None:
        self.case, self.run, self.services = case, case.run, case.constants.services
        self.most_steps = steps
        self.env = simpy.Environment()
        self.rng = np.random.default_rng(case.seed)
        self.until = hours * 3600
        self.job = job_constants(case.constants, case.name, case.shape, case.run.zero.precision)
        self.outcome = Outcome(case, hours)
        self.bins = {name: np.zeros(int(self.until // BIN_S) + 2) for name in COUNTED}
        self.mlflow = ImaginedMLflow(self.env, self.services)
        self.waiting = 0  # points in rank 0's outbox
        self.settings = case.settings
        self.workers = case.workers
        self.step, self.committed, self.upload_ends = 0, 0, 0.0
        self.even_s, self.exchange_s = 0.0, 0.0  # of a step with as many workers as there are
        self.written_by = case.workers
        self.storms: dict[Any, list[Storm]] = defaultdict(list)
        rate = case.workers / self.services.worker_hours_between_losses
        drawn = np.cumsum(self.rng.exponential(1 / rate, 1000)) if lost is None else np.array(lost)
        self.lost = [float(at) * 3600 for at in drawn if at < hours]
        self.back: list[float] = []  # when hosts stand in for lost ones
        self.feeding = Feeding(
            case.order, case.shard_bytes, self.run.data, self.services, case.remote(self.run.data.shards)
        )
        self.done = self.env.event()

    def play(self) -> Outcome:
        self.env.process(self._outbox())
        if self.run.tracking.uri and self.run.tracking.system_metrics:
            for _ in range(self.case.nodes):
                self.env.process(self.mlflow.node(self.rng.uniform(0, self.services.node_every_s)))
        self.env.process(self._training())
        self.env.run(self.env.any_of([self.done, self.env.timeout(self.until)]))
        found, elapsed = self.outcome, max(self.env.now, 1e-9)
        found.hours = elapsed / 3600
        found.steps, found.samples = self.step, self.step * self.case.global_batch
        found.mlflow_calls, found.mlflow_wait_s = self.mlflow.calls, self.mlflow.longest
        found.mlflow_busy = self.mlflow.busy / elapsed
        found.timeline = {name: counts[: int(elapsed // BIN_S) + 1] for name, counts in self.bins.items()}
        return found

    # --- the schedule ----------------------------------------------------------------------------------------------

    def _training(self) -> Events:
        yield from self._start(resumed=False)
        self.outcome.start_s = self.env.now
        log_every, checkpoints = self.run.tracking.log_every_steps, self.run.checkpoint
        cadences = [checkpoints.every_steps]
        if self.run.validation.every_steps:
            cadences.append(self.run.validation.every_steps)
        last = self.most_steps if self.most_steps is not None else 1 << 62
        while self.step < last and not self.outcome.gave_up:
            # Points that the outbox sends together anyhow need no stretch of their own.
            logs = log_every * max(1, round(OUTBOX_S / (log_every * (self.even_s + self.exchange_s))))
            following = min(last, *((self.step // every + 1) * every for every in [*cadences, logs]))
            yield from self._stretch(following - self.step)
            if self._losses_due():
                yield from self._lose()
                continue
            due = following % checkpoints.every_steps == 0 or following == last
            points = following // log_every - self.step // log_every
            self.waiting += self.services.points * max(points, int(due))
            self.step = following
            if self.run.validation.every_steps and self.step % self.run.validation.every_steps == 0:
                yield self.env.timeout(self._validation_s())
            if due:
                yield from self._save()
                if self.back and self.env.now >= self.back[0] + self.run.scaling.resize_check_s:
                    yield from self._grow()
        yield self.env.timeout(max(0.0, self.upload_ends - self.env.now))
        self.done.succeed()

    def _stretch(self, steps: int) -> Events:
        """So many steps; data are waited for within them."""
        ideal = self.even_s
        times = ideal * self._slowest(steps) + self.exchange_s
        waits = self.feeding.waits(
            self.step, times, self.case.global_batch, self.workers, self.case.per_node, self.env.now
        )
        took = float(times.sum() + waits.sum())
        found = self.outcome
        found.training_s += took
        found.straggling_s += float(times.sum()) - steps * (ideal + self.exchange_s)
        found.data_wait_s += float(waits.sum())
        found.data_fetched = self.feeding.fetched_bytes
        self._count("samples", steps * self.case.global_batch)
        self._count("reads", self.feeding.take_requests())
        yield self.env.timeout(took)

    def _save(self) -> Events:
        """What `Saver.save` does: wait for the upload in flight, write, upload behind the steps unless they are to be held."""
        began = self.env.now
        yield self.env.timeout(max(0.0, self.upload_ends - began) + self.job.save_s)
        storm = self._storm("checkpoint")
        self.outcome.uploads.append(storm)
        self.outcome.checkpoints += 1
        self.upload_ends = self.env.now + storm.seconds
        self._counted(storm)
        self.env.process(self._commit(self.step, storm))
        if not self.run.checkpoint.background:
            yield self.env.timeout(storm.seconds)
        self.outcome.stall_s += self.env.now - began

    def _commit(self, step: int, storm: Storm) -> Events:
        losses = self.outcome.losses
        yield self.env.timeout(storm.seconds)
        if storm.failed:
            self.outcome.gave_up = f"S3 refused a worker's part of a checkpoint for {self.services.patience_s:g} s"
        elif losses == self.outcome.losses:
            self.committed, self.written_by = step, self.workers

    def _losses_due(self) -> bool:
        return bool(self.lost) and self.env.now >= self.lost[0]

    def _lose(self) -> Events:
        """A host is gone: notice it, begin anew with fewer workers (or wait for another host), from the last checkpoint."""
        began = self.env.now
        self.lost.pop(0)
        self.outcome.losses += 1
        self.back.append(began + self.services.replace_s)
        yield self.env.timeout(self.services.notice_s)
        if self.case.elastic and self.workers > self.case.per_node:
            self.workers -= self.case.per_node
        else:
            yield self.env.timeout(max(0.0, self.back.pop(0) - self.env.now))
        yield from self._resume()
        self.outcome.outage_s += self.env.now - began

    def _grow(self) -> Events:
        """Hosts have come: the steps end with the checkpoint just written, and begin anew with more workers."""
        began = self.env.now
        come = [at for at in self.back if at <= began]
        self.back = self.back[len(come) :]
        yield self.env.timeout(max(0.0, self.upload_ends - began))
        self.workers = min(self.case.workers, self.workers + len(come) * self.case.per_node)
        yield from self._resume()
        self.outcome.outage_s += self.env.now - began

    def _resume(self) -> Events:
        self.outcome.repeated_steps += self.step - self.committed
        self._count("samples", -(self.step - self.committed) * self.case.global_batch)
        self.step, self.upload_ends = self.committed, 0.0
        yield from self._start(resumed=True)
        self.feeding.forget_ahead()

    def _start(self, resumed: bool) -> Events:
        """Processes start, each opens the index; a resumed run reads its checkpoint."""
        self.even_s, self.exchange_s = self._even_step(), self._exchange()
        yield self.env.timeout(self.job.start_s if self.job.start_s is not None else self.services.start_s)
        opened = self._storm("index")
        self._counted(opened)
        yield self.env.timeout(opened.seconds)
        if resumed and self.committed:
            restored = self._storm("reshard" if self._resharded() else "restore")
            self.outcome.restores.append(restored)
            self._counted(restored)
            yield self.env.timeout(restored.seconds)
            if restored.failed:
                self.outcome.gave_up = f"S3 refused the checkpoint to a worker for {self.services.patience_s:g} s"

    def _resharded(self) -> bool:
        return self.run.zero.stage > 0 and self.written_by != self.workers

    # --- how long it takes -----------------------------------------------------------------------------------------

    def _even_step(self) -> float:
        """A step of the worker with most samples, where all are as fast as they are on average, without exchange."""
        batch, workers, micro = self.case.global_batch, self.workers, self.settings.micro_batch
        largest = max(share_of(batch, rank, workers, micro).samples for rank in {0, workers // 2, workers - 1})
        update = self.job.optimizer_s / (workers if self.run.zero.stage > 0 else 1)
        beside = min(workers, self.case.per_node)
        return contention(self.job, beside) * (self.job.fixed_s + largest * self.job.sample_s + update)

    def _exchange(self) -> float:
        c = self.case.constants
        collectives = self.job.collectives or zero_collectives(self.case.shape.trainable, self.run.zero)
        return exchange_seconds(collectives, self.workers, c.bandwidth, c.latency_s, c.processes, self.job.call_s)

    def _slowest(self, steps: int) -> np.ndarray:
        """[steps]: how much longer than the mean the slowest of all workers takes. The largest of N draws is one draw's N-th root."""
        spread = self.job.spread
        if not spread:
            return np.ones(steps)
        # What was measured side by side had the slowest of that many in it already.
        measured = max((n for n in self.job.contention if n <= min(self.workers, self.case.per_node)), default=1)
        independent = max(1.0, self.workers / measured)
        return np.interp(self.rng.random(steps) ** (1 / independent), np.linspace(0, 1, len(spread)), spread)

    def _validation_s(self) -> float:
        """A forward pass is taken for a third of a step."""
        share = held_out_share(self.settings, self.run.validation.samples, 0, self.workers)
        return (self.job.fixed_s + share.samples * self.job.sample_s) / 3

    # --- storms ----------------------------------------------------------------------------------------------------

    def _storm(self, kind: str) -> Storm:
        """One of its kind and size: played through at first, then drawn from those."""
        played = self.storms[kind, self.workers, self.written_by]
        if len(played) < STORMS:
            played.append(self._played(kind, len(played)))
            return played[-1]
        return played[int(self.rng.integers(len(played)))]

    def _played(self, kind: str, number: int) -> Storm:
        case, stage = self.case, self.run.zero.stage
        asked = traffic(
            self.workers if kind == "checkpoint" else self.written_by,
            case.shape.networks,
            self.run.checkpoint.keep,
            stage > 0,
        )
        random.seed(f"{case.seed} {kind} {number}")  # the project's pauses between attempts are drawn from it
        remote = case.remote(self.run.data.shards if kind == "index" else self.run.checkpoint.storage)
        write = case.constants.storage_write or self.services.storage_read
        storage = ImaginedStorage(
            simpy.Environment(),
            self.services,
            remote,
            self.services.storage_read,
            write,
            self._sizes,
            case.seed + number,
        )
        if kind == "index":
            ranks = range(0, self.workers, case.per_node if case.index_once else 1)
            return together(storage, ((rank // case.per_node, self.feeding.index_rounds) for rank in ranks))
        if kind == "checkpoint":
            return checkpoint_storm(storage, asked, self.workers, case.per_node)
        return restore_storm(storage, asked, self.workers, case.per_node, kind == "reshard")

    def _sizes(self, name: str) -> float:
        """Bytes of a file of a checkpoint, by its name."""
        case, zero = self.case, self.run.zero
        whole = checkpoint_bytes(case.shape.trainable, case.shape.frozen_bytes, case.shape.optimizer_states, zero)
        networks = case.shape.networks
        width = {"bf16": 2, "fp32": 4, "fp64": 8}[zero.precision]
        states = case.shape.frozen_bytes + (width * case.shape.trainable if zero.stage < 3 else 0)
        if name.startswith("index"):
            return case.index_bytes
        if "zero_pp_rank" in name:
            return (whole - states) / networks / self.workers
        return (states if zero.stage else whole) / networks if name.endswith("model_states.pt") else 1e3

    # --- MLflow ----------------------------------------------------------------------------------------------------

    def _outbox(self) -> Events:
        """Rank 0's thread: what waits goes in batches to the job's run, its headlines to the parent."""
        while True:
            yield self.env.timeout(OUTBOX_S)
            while self.waiting:
                some = min(self.waiting, outbox.BATCH)
                self.waiting -= some
                yield from self.mlflow.log_batch(some)
                yield from self.mlflow.log_batch(max(1, some // 4))
                self._count("mlflow calls", 2)

    def _count(self, name: str, number: float) -> None:
        self.bins[name][min(int(self.env.now // BIN_S), len(self.bins[name]) - 1)] += number

    def _counted(self, storm: Storm) -> None:
        for name in ("reads", "writes", "refused"):
            self._count(name, getattr(storm, name))
