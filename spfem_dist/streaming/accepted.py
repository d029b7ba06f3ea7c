"""Which groups of an index a loader may draw from, as arrays, so that a hundred million samples fit a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spfem_dist.corpora.splits import Part
from spfem_dist.shard_format import GroupEntry, ShardIndex
from spfem_dist.shard_table import Columns, ShardTable, example_of

Accept = Callable[[GroupEntry], bool]


@dataclass(frozen=True)
class Accepted:
    """The accepted groups, in index order, and what was counted on the way; n of them in S shards.

    first: int64 [S + 1], the number of the first accepted group of each shard. groups: int32 [n], its number within its shard.
    shards: int, S. total: groups of the index. refused_by_split, refused_by_view: groups left out. recordings, frames, group_bytes: of the
    accepted groups. shard_bytes: of the whole shards that hold one.
    """

    first: np.ndarray
    groups: np.ndarray
    total: int
    refused_by_split: int
    refused_by_view: int
    recordings: int
    frames: int
    group_bytes: int
    shard_bytes: int

    @property
    def shards(self) -> int:
        """Shards of the index."""
        return len(self.first) - 1

    def place(self, number: int) -> tuple[int, int]:
        """(shard, group) of accepted group `number`."""
        return int(np.searchsorted(self.first, number, side="right")) - 1, int(self.groups[number])

    def number(self, shard: int, group: int) -> int:
        """The number of an accepted group, the inverse of `place`."""
        first, last = self.first[shard], self.first[shard + 1]
        return int(first + np.searchsorted(self.groups[first:last], group))

    @classmethod
    def of(cls, index: ShardIndex, accept: Accept | None = None, serves: Accept | None = None) -> Accepted:
        """The groups that `accept` (a split's part) and then `serves` (a view) keep; None keeps all.

        Of a table, `serves` is asked once for each set of emotions, and a `Part` for each name; any other `accept` for every group.
        """
        parts = list(_parts(index, accept, serves))
        counts = [np.zeros(1, np.int64), *(part.first[1:] - part.first[:-1] for part in parts)]
        sums = {
            f.name: sum(getattr(part, f.name) for part in parts)
            for f in fields(cls)
            if f.name not in ("first", "groups")
        }
        groups = np.concatenate([part.groups for part in parts]) if parts else np.zeros(0, np.int32)
        return cls(first=np.cumsum(np.concatenate(counts)), groups=groups, **sums)


def speakers_of(index: ShardIndex) -> set[str]:
    """The names of all speakers."""
    if not isinstance(index.shards, ShardTable):
        return {entry.speaker for shard in index.shards for entry in shard.groups}
    return {c.speaker_names[n].as_py() for c in index.shards.columns() for n in np.unique(c.speakers)}


def longest_recording(index: ShardIndex) -> int:
    """Frames of the longest recording."""
    if not isinstance(index.shards, ShardTable):
        return max(r.frames for shard in index.shards for entry in shard.groups for r in entry.recordings)
    return max(columns.longest for columns in index.shards.columns())


def said_by(index: ShardIndex, accepted: Accepted) -> dict[str, np.ndarray]:
    """The numbers of the accepted groups of each speaker, in index order."""
    found: dict[str, list[np.ndarray]] = {}
    if not isinstance(index.shards, ShardTable):
        for number in range(len(accepted.groups)):
            shard, group = accepted.place(number)
            found.setdefault(index.shards[shard].groups[group].speaker, []).append(np.array([number]))
    else:
        shards = 0
        for columns in index.shards.columns():
            bounds = accepted.first[shards : shards + len(columns.first)]
            within = accepted.groups[bounds[0] : bounds[-1]] + np.repeat(columns.first[:-1], np.diff(bounds))
            speakers = columns.speakers[within]
            order = np.argsort(speakers, kind="stable")
            names, starts = np.unique(speakers[order], return_index=True)
            split = np.split(order + bounds[0], starts[1:])[: len(names)]  # of nothing, np.split makes one part
            for name, numbers in zip(names, split, strict=True):
                found.setdefault(columns.speaker_names[name].as_py(), []).append(numbers)
            shards += len(columns.first) - 1
    return {name: np.concatenate(numbers) for name, numbers in found.items()}


def _parts(index: ShardIndex, accept: Accept | None, serves: Accept | None) -> Iterator[Accepted]:
    if not isinstance(index.shards, ShardTable):
        yield _of_entries(index, accept, serves)
        return
    answers: dict[int, bool] = {}
    first = 0
    for columns in index.shards.columns():
        held = _held(index, columns, first, accept)
        served = np.ones(len(held), bool)
        if serves is not None:
            masks, where = np.unique(columns.emotions, return_inverse=True)
            for mask in masks.tolist():
                if mask not in answers:
                    answers[mask] = serves(example_of(mask))
            served = np.array([answers[mask] for mask in masks.tolist()], bool)[where]
        kept = held & served
        shard_of = np.repeat(np.arange(len(columns.first) - 1), np.diff(columns.first))
        counts = np.bincount(shard_of[kept], minlength=len(columns.first) - 1)
        yield Accepted(
            first=np.concatenate([[0], np.cumsum(counts)]),
            groups=(np.arange(len(kept)) - columns.first[shard_of])[kept].astype(np.int32),
            total=len(kept),
            refused_by_split=int((~held).sum()),
            refused_by_view=int((held & ~served).sum()),
            recordings=int(columns.recordings[kept].sum()),
            frames=int(columns.frames[kept].sum()),
            group_bytes=int(columns.group_bytes[kept].sum()),
            shard_bytes=int(columns.shard_bytes[counts > 0].sum()),
        )
        first += len(columns.first) - 1


def _held(index: ShardIndex, columns: Columns, first: int, accept: Accept | None) -> np.ndarray:
    """bool [G]: whether the split keeps each group of these shards, of which the index's shard `first` is the first."""
    held = np.ones(len(columns.speakers), bool)
    if isinstance(accept, Part):
        for names, all_names, numbers in (
            (accept.speakers, columns.speaker_names, columns.speakers),
            (accept.sentences, columns.sentence_names, columns.sentences),
        ):
            if names is not None and len(all_names):
                held &= pc.is_in(all_names, pa.array(sorted(names), pa.string())).to_numpy(zero_copy_only=False)[
                    numbers
                ]
    elif accept is not None:
        shards = index.shards[first : first + len(columns.first) - 1]
        held[:] = [accept(entry) for shard in shards for entry in shard.groups]
    return held


def _of_entries(index: ShardIndex, accept: Accept | None, serves: Accept | None) -> Accepted:
    counts, groups = [0], []
    split = view = recordings = frames = group_bytes = shard_bytes = 0
    for shard in index.shards:
        kept = []
        for number, entry in enumerate(shard.groups):
            if accept is not None and not accept(entry):
                split += 1
            elif serves is not None and not serves(entry):
                view += 1
            else:
                kept.append(number)
                recordings += len(entry.recordings)
                frames += sum(r.frames for r in entry.recordings)
                group_bytes += entry.bytes
        counts.append(len(kept))
        groups += kept
        shard_bytes += shard.bytes if kept else 0
    return Accepted(
        first=np.cumsum(np.array(counts, np.int64)),
        groups=np.array(groups, np.int32),
        total=sum(len(shard.groups) for shard in index.shards),
        refused_by_split=split,
        refused_by_view=view,
        recordings=recordings,
        frames=frames,
        group_bytes=group_bytes,
        shard_bytes=shard_bytes,
    )
