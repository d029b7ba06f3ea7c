"""The order of data as a function: global sample number -> which utterance group, which draw, which seed.

Nothing here knows about world size, workers or restarts. An epoch is a permutation of the shards, taken in blocks of a
few; within a block every accepted group comes `draws_per_group` times, once in each pass over the block, so that reads
stay within a handful of shards for a long while and still mix.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from spfem_dist.inventory import lacking_pairs
from spfem_dist.shard_format import GroupEntry, ShardIndex
from spfem_dist.streaming.accepted import Accept, Accepted, said_by, speakers_of

#: Epochs whose order of shards is kept (a prefetch may straddle two), and mixed blocks (a worker is within one or two).
_KEPT_EPOCHS, _KEPT_BLOCKS = 3, 64


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
    Raises ValueError where no group is left. Attributes: `used`, the numbers of the shards that hold an accepted group.
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
        found = Accepted.of(index, accept, serves)
        self.groups = len(found.groups)
        if not self.groups:
            speakers = sorted(speakers_of(index))
            named = f"{', '.join(speakers[:6])}{', ...' * (len(speakers) > 6)}"
            fix = lacking_pairs(index) if found.refused_by_view else ""
            fix = fix or f"check data.split: the shards' speakers are {named}; data.split none uses all of them"
            raise ValueError(
                f"none of the {found.total} utterance groups of these {index.corpus} shards can be used: {found.refused_by_split} "
                f"are outside the split, {found.refused_by_view} lack the recordings that samples are drawn from; {fix}"
            )
        self._index, self._accepted = index, found
        self._sizes = np.diff(found.first)
        self.used = np.flatnonzero(self._sizes)
        self.samples_per_epoch = self.groups * draws_per_group
        self.bytes_per_epoch = found.group_bytes
        self.coverage = Coverage(
            shards=found.shards,
            shards_used=len(self.used),
            groups=found.total,
            accepted=self.groups,
            refused_by_split=found.refused_by_split,
            refused_by_view=found.refused_by_view,
            recordings=found.recordings,
            frames=found.frames,
            group_bytes=found.group_bytes,
            shard_bytes=found.shard_bytes,
            samples_per_epoch=self.samples_per_epoch,
        )
        # Threads ask side by side; an answer that two of them make is the same twice.
        self._epoch = lru_cache(_KEPT_EPOCHS)(self._arranged)
        self._mixed = lru_cache(_KEPT_BLOCKS)(self._mix)

    def sample(self, k: int) -> SampleRef:
        """Global sample `k` (>= 0, runs on across epochs), from its epoch's order of shards and its own block alone."""
        if k < 0:
            raise ValueError(f"sample number {k} is negative: samples are counted from 0")
        epoch, place = divmod(k, self.samples_per_epoch)
        block, within = self._block(epoch, place)
        places = self._mixed(epoch, block)
        shard, group = places[within]
        return SampleRef(
            k, epoch, int(shard), int(group), within * self.draws_per_group // len(places), sample_seed(self.seed, k)
        )

    def shards_of(self, samples: range) -> np.ndarray:
        """int64 [len(samples)]: the shard of each of these consecutive samples."""
        found, k = [], samples.start
        while k < samples.stop:
            epoch, place = divmod(k, self.samples_per_epoch)
            block, within = self._block(epoch, place)
            found.append(self._mixed(epoch, block)[within : within + samples.stop - k, 0])
            k += len(found[-1])
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def substitute(self, ref: SampleRef, attempt: int) -> SampleRef:
        """The group to take in place of `ref`'s when that one and `attempt - 1` substitutes could not be used.

        The next accepted group in index order; sample number and seed stay. Attempt 0 is `ref` itself.
        """
        shard, group = self._accepted.place((self._accepted.number(ref.shard, ref.group) + attempt) % self.groups)
        return SampleRef(ref.sample, ref.epoch, shard, group, ref.draw, ref.seed)

    def companion(self, ref: SampleRef, serves: Accept) -> SampleRef | None:
        """Another sentence of the speaker of `ref`, drawn by its seed among the accepted groups that `serves` keeps; None without one.

        Of `ref`'s own shard where that has any, so that nothing more is fetched.
        """
        here = self._entry((ref.shard, ref.group))
        others = [
            place
            for place in map(self._accepted.place, self._said_by[here.speaker].tolist())
            if self._entry(place).sentence != here.sentence and serves(self._entry(place))
        ]
        near = [place for place in others if place[0] == ref.shard] or others
        if not near:
            return None
        shard, group = near[_number(ref.seed, len(near))]
        return SampleRef(ref.sample, ref.epoch, shard, group, ref.draw, ref.seed)

    @cached_property
    def _said_by(self) -> dict[str, np.ndarray]:
        return said_by(self._index, self._accepted)

    def _entry(self, place: tuple[int, int]) -> GroupEntry:
        return self._index.shards[place[0]].groups[place[1]]

    def block_of(self, k: int) -> list[int]:
        """The shards that are mixed where sample `k` comes from."""
        epoch, place = divmod(k, self.samples_per_epoch)
        return self._block_shards(epoch, self._block(epoch, place)[0])

    def shards_after(self, k: int) -> list[int]:
        """The shards of the block that follows sample `k`'s (the next epoch's first after the last)."""
        epoch, place = divmod(k, self.samples_per_epoch)
        return self._block_shards(epoch, self._block(epoch, place)[0] + 1) or self._block_shards(epoch + 1, 0)

    def _arranged(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(the shards in the epoch's order, the first sample of each block and the end of the last)."""
        shards = self.used[_permutation(len(self.used), self.seed, epoch, 0)]
        sizes = np.add.reduceat(self._sizes[shards], np.arange(0, len(shards), self.block))
        return shards, np.concatenate([[0], np.cumsum(sizes * self.draws_per_group)])

    def _block(self, epoch: int, place: int) -> tuple[int, int]:
        """(number of the block, place within it) of a place in the epoch."""
        firsts = self._epoch(epoch)[1]
        block = int(np.searchsorted(firsts, place, side="right")) - 1
        return block, place - int(firsts[block])

    def _block_shards(self, epoch: int, block: int) -> list[int]:
        return self._epoch(epoch)[0][block * self.block :][: self.block].tolist()

    def _mix(self, epoch: int, block: int) -> np.ndarray:
        """int64 [samples of the block, 2]: shard and group of each, one pass over the block's groups after the other."""
        places = np.concatenate(
            [
                np.stack(
                    [np.full(self._sizes[s], s), self._accepted.groups[self._accepted.first[s] :][: self._sizes[s]]],
                    axis=1,
                )
                for s in self._block_shards(epoch, block)
            ]
        )
        first = block * self.block
        passes = range(self.draws_per_group)
        return np.concatenate([places[_permutation(len(places), self.seed, epoch, 1, first, draw)] for draw in passes])


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
