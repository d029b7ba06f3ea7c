"""Shards in virtual time: which node fetches which, by the order of samples itself, and how long steps wait for it."""

from __future__ import annotations

from collections import deque

import numpy as np

from spfem_dist.config import Data
from spfem_dist.planning.constants import Services
from spfem_dist.planning.imagined_s3 import Request, Rounds
from spfem_dist.shares import share_of
from spfem_dist.streaming.order import Order

#: Steps whose shards are looked up one by one; in later ones the nodes meet as many, at random.
LOOKED_UP = 300


class Feeding:
    """The nodes' folders of fetched shards, filled as the loaders of `data` do: whole shards, once for each node, kept while there is room.

    order: None, or shards in a local folder (`remote` False), means that nothing is fetched. Attributes: `fetched_bytes`.
    """

    def __init__(
        self, order: Order | None, shard_bytes: np.ndarray | None, data: Data, services: Services, remote: bool
    ) -> None:
        self.order, self.bytes, self.data, self.services = order, shard_bytes, data, services
        self.remote = remote and order is not None
        self.index_rounds: Rounds = [[Request("get_object", "index")]]
        self.fetched_bytes, self._requests = 0.0, 0.0
        self._held: np.ndarray | None = None  # bool [nodes, shards]
        self._free = np.zeros(0)  # when what each node fetches so far has passed
        self._taken: deque[float] = deque(maxlen=max(1, data.prefetch))  # when the last micro-batches were taken
        self._looked_up = 0
        self._met = 0.0  # shards that nodes met in the steps that were looked up, held or not
        self._share_held: float | None = None  # of the nodes' folders, in the steps that are not

    @property
    def warm(self) -> bool:
        """Whether every node has every shard."""
        if not self.remote or self._held is None or not self._fits:
            return not self.remote
        return bool(self._held.all()) if self._share_held is None else self._share_held > 0.9999

    @property
    def _fits(self) -> bool:
        assert self.bytes is not None
        return float(self.bytes.sum()) <= self.data.cache_mb << 20

    def take_requests(self) -> float:
        """Requests since the last call."""
        taken, self._requests = self._requests, 0.0
        return taken

    def forget_ahead(self) -> None:
        """New processes have fetched nothing ahead; the folders of the nodes stay."""
        self._taken.clear()

    def waits(self, step: int, times: np.ndarray, batch: int, workers: int, per_node: int, now: float) -> np.ndarray:
        """Seconds that each of these steps (of `times` seconds, the first is number `step`) waits for the slowest node's shards."""
        waits = np.zeros(len(times))
        if self.warm:
            return waits
        assert self.order is not None
        assert self.bytes is not None
        nodes = -(-workers // per_node)
        if self._held is None or len(self._held) < nodes:
            self._held = np.zeros((nodes, len(self.bytes)), bool)
            self._held[:, np.setdiff1d(np.arange(len(self.bytes)), self.order.used)] = True
        if len(self._free) != nodes:
            self._free = np.zeros(nodes)
        bounds = [share_of(batch, rank, workers).first for rank in range(0, workers, per_node)]
        counts = np.diff([*bounds, batch])
        if self._looked_up >= LOOKED_UP:
            return self._going_on(times, nodes, per_node)
        for n, seconds in enumerate(times):
            new, size = self._fetches((step + n) * batch, batch, np.repeat(np.arange(nodes), counts), nodes)
            self._requests += new.sum()
            self.fetched_bytes += size.sum()
            # Loaders begin a micro-batch when the one `prefetch` before it is taken; bytes and S3's rate pass one after the other,
            # while answers are waited for side by side.
            begun = np.maximum(self._free, self._taken[0] if self._taken else now)
            passing = np.maximum(size / self.services.storage_read, new.sum() / self.services.s3_reads_per_s)
            self._free = np.where(new > 0, begun + passing, self._free)
            rounds = np.ceil(new / (self.data.threads * per_node))
            ready = np.where(new > 0, self._free + rounds * self.services.s3_latency_s, 0.0)
            waits[n] = max(0.0, float(ready.max()) - now)
            self._taken.append(now + waits[n])
            now += seconds + waits[n]
            self._looked_up += 1
        return waits

    def _going_on(self, times: np.ndarray, nodes: int, per_node: int) -> np.ndarray:
        """The same for later steps: a node meets as many shards as it did, at random, and fetches those that it does not hold yet."""
        assert self.bytes is not None
        shards, met = len(self.bytes), self._met / self._looked_up / nodes  # shards that a node meets in a step
        if self._share_held is None:
            assert self._held is not None
            self._share_held = float(self._held.mean())
        absent = 1 - self._share_held
        new = nodes * shards * absent * (1 - np.exp(-met * len(times) / shards))
        if self._fits:
            self._share_held += new / nodes / shards
        self._requests += new
        self.fetched_bytes += new * float(self.bytes.mean())
        each = new / len(times)
        passing = max(
            each / nodes * float(self.bytes.mean()) / self.services.storage_read, each / self.services.s3_reads_per_s
        )
        rounds = np.ceil(each / nodes / (self.data.threads * per_node))
        ahead = max(1, self.data.prefetch)
        # A step is as long as its arithmetic, as what must pass for it, or as a part of the way of a micro-batch that is made ahead.
        longest = np.maximum(times, max(passing, (passing + rounds * self.services.s3_latency_s) / ahead))
        return longest - times

    def _fetches(self, first: int, batch: int, node_of: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards and bytes that each node fetches for the step of these samples."""
        assert self.order is not None
        assert self.bytes is not None
        assert self._held is not None
        shards = self.order.shards_of(range(first, first + batch))
        if not self._fits and first // self.order.samples_per_epoch != (first + batch) // self.order.samples_per_epoch:
            # The folder holds less than an epoch, so that at its end it has none that the next one begins with.
            self._held[:, self.order.used] = False
        pairs = np.unique(node_of * len(self.bytes) + shards)
        node, shard = np.divmod(pairs, len(self.bytes))
        self._met += len(pairs)
        absent = ~self._held[node, shard]
        node, shard = node[absent], shard[absent]
        self._held[node, shard] = True
        return np.bincount(node, minlength=nodes), np.bincount(node, weights=self.bytes[shard], minlength=nodes)
