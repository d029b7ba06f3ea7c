"""The order of data as a function: global sample number -> which utterance group, which draw, which seed.

Nothing here knows about world size, workers or restarts. An epoch is a permutation of the shards, taken in blocks of a
few; within a block every accepted group comes `draws_per_group` times, once in each pass over the block, so that reads
stay within a handful of shards for a long while and still mix.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spfem_dist.inventory import lacking_pairs, speakers_by_emotion
from spfem_dist.shard_format import GroupEntry, ShardIndex

Accept = Callable[[GroupEntry], bool]

#: Epochs whose permutation is kept (a validation and a prefetch may straddle two).
_KEPT_EPOCHS = 3


@dataclass(frozen=True)
class SampleRef:
    """Where global sample `sample` comes from.

    shard, group: numbers into the index. draw: which of the group's draws in this epoch. seed: 63 bits, the key of
    all randomness of this sample, equal wherever and whenever the sample is made.
    """

    sample: int
    epoch: int
    shard: int
    group: int
    draw: int
    seed: int


@dataclass(frozen=True)
class Coverage:
    """What an order takes from its shards, for a dry run.

    refused_by_split, refused_by_view: groups not used, and why. group_bytes: bytes of the accepted groups.
    shard_bytes: bytes of the whole shards that hold one, which is what an epoch fetches from S3.
    """

    shards: int
    shards_used: int
    groups: int
    accepted: int
    refused_by_split: int
    refused_by_view: int
    recordings: int
    frames: int
    group_bytes: int
    shard_bytes: int
    samples_per_epoch: int


class Order:
    """The order of samples over the accepted groups of `index`; see `sample`.

    accept: keeps a group of the split (None keeps all). serves: keeps a group that the view can be drawn from.
    draws_per_group: samples of each group for each epoch. block: shards that are mixed at a time.
    Raises ValueError where no group is left.
    """

    def __init__(
        self,
        index: ShardIndex,
        accept: Accept | None = None,
        seed: int = 0,
        draws_per_group: int = 4,
        block: int = 4,
        serves: Accept | None = None,
    ):
        self.seed, self.draws_per_group, self.block = seed, draws_per_group, block
        self._groups_of: list[np.ndarray] = []
        split_refused = view_refused = recordings = frames = group_bytes = shard_bytes = 0
        for shard in index.shards:
            kept = []
            for number, entry in enumerate(shard.groups):
                if accept is not None and not accept(entry):
                    split_refused += 1
                elif serves is not None and not serves(entry):
                    view_refused += 1
                else:
                    kept.append(number)
                    recordings += len(entry.recordings)
                    frames += sum(r.frames for r in entry.recordings)
                    group_bytes += entry.bytes
            self._groups_of.append(np.array(kept, dtype=np.int64))
            shard_bytes += shard.bytes if kept else 0
        self._accepted = [(s, int(g)) for s, groups in enumerate(self._groups_of) for g in groups]
        self._rank = {place: n for n, place in enumerate(self._accepted)}
        self._entries = [shard.groups for shard in index.shards]
        self._said_by: dict[str, list[tuple[int, int]]] = {}
        for place in self._accepted:
            self._said_by.setdefault(self._entry(place).speaker, []).append(place)
        used = [s for s, groups in enumerate(self._groups_of) if len(groups)]
        self._used = np.array(used, dtype=np.int64)
        total = sum(len(shard.groups) for shard in index.shards)
        if not self._accepted:
            speakers = list(speakers_by_emotion(index))
            named = f"{', '.join(speakers[:6])}{', ...' * (len(speakers) > 6)}"
            fix = lacking_pairs(index) if view_refused else ""
            fix = fix or f"check data.split: the shards' speakers are {named}; data.split none uses all of them"
            raise ValueError(
                f"none of the {total} utterance groups of these {index.corpus} shards can be used: {split_refused} are "
                f"outside the split, {view_refused} lack the recordings that samples are drawn from; {fix}"
            )
        self.groups = len(self._accepted)
        self.samples_per_epoch = self.groups * draws_per_group
        self.bytes_per_epoch = group_bytes
        self.coverage = Coverage(
            shards=len(index.shards),
            shards_used=len(used),
            groups=total,
            accepted=self.groups,
            refused_by_split=split_refused,
            refused_by_view=view_refused,
            recordings=recordings,
            frames=frames,
            group_bytes=group_bytes,
            shard_bytes=shard_bytes,
            samples_per_epoch=self.samples_per_epoch,
        )
        self._epochs: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def sample(self, k: int) -> SampleRef:
        """Global sample `k` (>= 0, runs on across epochs). O(1) once its epoch's permutation is there."""
        if k < 0:
            raise ValueError(f"sample number {k} is negative: samples are counted from 0")
        epoch, place = divmod(k, self.samples_per_epoch)
        shard, group, draw = self._epoch(epoch)[place]
        return SampleRef(k, epoch, int(shard), int(group), int(draw), sample_seed(self.seed, k))

    def substitute(self, ref: SampleRef, attempt: int) -> SampleRef:
        """The group to take in place of `ref`'s when that one and `attempt - 1` substitutes could not be used.

        The next accepted group in index order; sample number and seed stay. Attempt 0 is `ref` itself.
        """
        shard, group = self._accepted[(self._rank[(ref.shard, ref.group)] + attempt) % self.groups]
        return SampleRef(ref.sample, ref.epoch, shard, group, ref.draw, ref.seed)

    def companion(self, ref: SampleRef, serves: Accept) -> SampleRef | None:
        """Another sentence of the speaker of `ref`, drawn by its seed among the accepted groups that `serves` keeps; None without one.

        Of `ref`'s own shard where that has any, so that nothing more is fetched.
        """
        here = self._entry((ref.shard, ref.group))
        others = [
            place
            for place in self._said_by[here.speaker]
            if self._entry(place).sentence != here.sentence and serves(self._entry(place))
        ]
        near = [place for place in others if place[0] == ref.shard] or others
        if not near:
            return None
        shard, group = near[_number(ref.seed, len(near))]
        return SampleRef(ref.sample, ref.epoch, shard, group, ref.draw, ref.seed)

    def _entry(self, place: tuple[int, int]) -> GroupEntry:
        return self._entries[place[0]][place[1]]

    def block_of(self, k: int) -> list[int]:
        """The shards that are mixed where sample `k` comes from."""
        shards = self._shard_order(k // self.samples_per_epoch)
        first = shards.index(self.sample(k).shard) // self.block * self.block
        return shards[first : first + self.block]

    def shards_after(self, k: int) -> list[int]:
        """The shards of the block that follows sample `k`'s (the next epoch's first after the last)."""
        epoch = k // self.samples_per_epoch
        shards = self._shard_order(epoch)
        after = (shards.index(self.sample(k).shard) // self.block + 1) * self.block
        return shards[after : after + self.block] or self._shard_order(epoch + 1)[: self.block]

    def _shard_order(self, epoch: int) -> list[int]:
        return [int(s) for s in self._used[_permutation(len(self._used), self.seed, epoch, 0)]]

    def _epoch(self, epoch: int) -> np.ndarray:
        """int64 [samples_per_epoch, 3]: shard, group, draw of every sample of the epoch."""
        with self._lock:
            if epoch not in self._epochs:
                while len(self._epochs) >= _KEPT_EPOCHS:
                    del self._epochs[next(iter(self._epochs))]
                self._epochs[epoch] = self._permute(epoch)
            return self._epochs[epoch]

    def _permute(self, epoch: int) -> np.ndarray:
        shards, rows = self._shard_order(epoch), []
        for first in range(0, len(shards), self.block):
            chosen = shards[first : first + self.block]
            places = np.concatenate(
                [np.stack([np.full(len(self._groups_of[s]), s), self._groups_of[s]], axis=1) for s in chosen]
            )
            for draw in range(self.draws_per_group):
                mixed = places[_permutation(len(places), self.seed, epoch, 1, first, draw)]
                rows.append(np.concatenate([mixed, np.full((len(mixed), 1), draw)], axis=1))
        return np.concatenate(rows)


def sample_seed(seed: int, k: int) -> int:
    """63 bits that depend on the run's seed and the sample number alone, on every machine and version."""
    digest = hashlib.blake2b(f"spfem sample {seed} {k}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _number(seed: int, n: int) -> int:
    """A number below n that depends on the seed alone."""
    return int.from_bytes(hashlib.blake2b(f"spfem companion {seed}".encode(), digest_size=8).digest(), "little") % n


def _permutation(n: int, *key: int) -> np.ndarray:
    # numpy promises frozen bit streams for bit generators, not for Generator.permutation, and a resumed run may meet
    # a newer numpy: sort raw bits instead.
    return np.argsort(np.random.PCG64(np.random.SeedSequence(key)).random_raw(n), kind="stable")
