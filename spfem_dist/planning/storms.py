"""S3 and MLflow in virtual time: a storage that refuses what comes too fast, and workers that wait and come again as the project's do."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import simpy

from spfem_dist.backoff import pauses
from spfem_dist.planning.constants import Services
from spfem_dist.planning.imagined_s3 import Request, Rounds, Traffic
from spfem_dist.training import checkpoint
from spfem_dist.training.manifest import absent, manifest_name

Events = Generator[simpy.Event, Any, Any]


@dataclass
class Allowance:
    """Requests that S3 takes of one kind: `rate` for each second, a second's worth at once."""

    rate: float
    left: float = field(init=False)
    _since: float = 0.0

    def __post_init__(self) -> None:
        self.left = self.rate

    def take(self, now: float) -> bool:
        """Whether a request at `now` is taken."""
        self.left = min(self.rate, self.left + (now - self._since) * self.rate)
        self._since = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass
class Storm:
    """What many workers' requests at once came to: seconds, requests of each kind, refused ones (503), and workers that gave up."""

    seconds: float = 0.0
    reads: int = 0
    writes: int = 0
    refused: int = 0
    failed: int = 0

    @property
    def requests(self) -> int:
        """All that were made."""
        return self.reads + self.writes


class ImaginedStorage:
    """One prefix of a bucket, or a folder (`remote` False: no requests to count, no limits but the disk's), between nodes' links.

    read, write: bytes/s of one node. sizes: bytes of a file by its name, for what it is.
    """

    def __init__(
        self, env: simpy.Environment, services: Services, remote: bool, read: float, write: float, sizes: Any, seed: int
    ) -> None:
        self.env, self.services, self.remote, self.sizes = env, services, remote, sizes
        self.links = {True: write, False: read}
        self.free: dict[tuple[int, bool], float] = {}
        self.allowances = {True: Allowance(services.s3_writes_per_s), False: Allowance(services.s3_reads_per_s)}
        self.rng = np.random.default_rng(seed)
        self.storm = Storm()

    def work(self, node: int, rounds: Rounds) -> Events:
        """One worker of `node` makes these requests: those of a round side by side, on as many connections as it has."""
        for together in rounds:
            lanes = min(len(together), self.services.connections)
            if lanes == 1:
                yield from self._lane(node, together)
            else:
                yield self.env.all_of([self.env.process(self._lane(node, together[n::lanes])) for n in range(lanes)])

    def _lane(self, node: int, requests: list[Request]) -> Events:
        for request in requests:
            yield from self._request(node, request)

    def _request(self, node: int, request: Request) -> Events:
        if self.remote:
            began = self.env.now
            for pause in pauses():
                taken = self.allowances[request.writes].take(self.env.now)
                self.storm.writes += request.writes
                self.storm.reads += not request.writes
                yield self.env.timeout(self.services.s3_latency_s * (0.5 + self.rng.random()))
                if taken:
                    break
                self.storm.refused += 1
                if self.env.now - began > self.services.patience_s:
                    self.storm.failed += 1
                    return
                yield self.env.timeout(pause)
        size = self.sizes(request.name)
        link = (node, request.writes)
        self.free[link] = max(self.free.get(link, 0.0), self.env.now) + size / self.links[request.writes]
        yield self.env.timeout(self.free[link] - self.env.now)


def together(storage: ImaginedStorage, workers: Iterable[tuple[int, Rounds]]) -> Storm:
    """Workers, each (its node, its requests), begin at once; the storm ends with the last of them."""
    env = storage.env
    env.run(env.all_of([env.process(storage.work(node, rounds)) for node, rounds in workers]))
    storage.storm.seconds = env.now
    return storage.storm


def checkpoint_storm(storage: ImaginedStorage, traffic: Traffic, workers: int, per_node: int) -> Storm:
    """Every worker puts its part, rank 0 looks for all manifests as `Saver` does, notes the checkpoint and retires an older one."""
    env = storage.env
    there: set[str] = set()

    def worker(rank: int) -> Events:
        yield from storage.work(rank // per_node, traffic.put[rank > 0])
        there.add(manifest_name(rank))

    def leader() -> Events:
        yield from worker(0)
        for pause in pauses(*checkpoint.LOOKS):
            yield from storage.work(0, traffic.look)
            if not absent(there, workers):
                break
            if storage.storm.failed:
                return
            yield env.timeout(pause)
        yield from storage.work(0, traffic.note)
        yield from storage.work(0, traffic.retire)

    env.run(env.all_of([env.process(leader()), *(env.process(worker(rank)) for rank in range(1, workers))]))
    storage.storm.seconds = env.now
    return storage.storm


def restore_storm(storage: ImaginedStorage, traffic: Traffic, workers: int, per_node: int, reshard: bool) -> Storm:
    """Rank 0 chooses the checkpoint; then every worker reads its part, or one of each host all of it where workers have changed."""
    env = storage.env
    env.run(env.process(storage.work(0, traffic.choose)))
    if reshard:
        return together(storage, ((rank // per_node, traffic.whole) for rank in range(0, workers, per_node)))
    return together(storage, ((rank // per_node, traffic.own[rank > 0]) for rank in range(workers)))


class ImaginedMLflow:
    """MLflow's server: so many writers side by side, each call some time and some more for each point."""

    def __init__(self, env: simpy.Environment, services: Services) -> None:
        self.env, self.services = env, services
        self.server = simpy.Resource(env, services.mlflow_writers)
        self.calls, self.busy, self.longest = 0, 0.0, 0.0

    def log_batch(self, points: int) -> Events:
        """One call with so many points."""
        asked = self.env.now
        with self.server.request() as turn:
            yield turn
            took = self.services.mlflow_call_s + points * self.services.mlflow_point_s
            yield self.env.timeout(took)
        self.calls += 1
        self.busy += took / self.services.mlflow_writers
        self.longest = max(self.longest, self.env.now - asked)

    def node(self, first: float) -> Events:
        """A node's monitor: a reading, a call, a wait, again."""
        yield self.env.timeout(first)
        for _ in count():
            yield from self.log_batch(self.services.node_points)
            yield self.env.timeout(self.services.node_every_s)
