"""One utterance group from one ranged read of a shard, wherever the shard lies."""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import dataclass

from spfem_dist.config import Data
from spfem_dist.records import UtteranceGroup
from spfem_dist.shard_format import INDEX_NAME, DamagedShard, GroupEntry, decode_group, members_of
from spfem_dist.shard_table import number_of_groups, open_index
from spfem_dist.streaming.store import LocalStore, RemoteStore

log = logging.getLogger(__name__)

#: Optional members that training has no use for.
_TRUTH = re.compile(r"\.truth_[a-z0-9_]+\.npy$")
_FOR_EVALUATION = re.compile(r"\.(landmarks|truth_[a-z0-9_]+)\.npy$")


class TooMuchDamaged(RuntimeError):
    """More than data.bad_share of the groups cannot be read: the data set is broken, not a clip or two."""


@dataclass(frozen=True)
class BadGroup:
    """A group that was not used although the index lists it: the named event behind `ShardReader.bad`."""

    shard: str
    group: str
    reason: str


class ShardReader:
    """Reads utterance groups of the shards under `root` (a folder, or `s3://bucket/prefix`).

    cache, cache_mb: local folder for fetched shards and its bound, MiB. retries: attempts for each read from S3.
    bad_share: largest share of groups that may be unreadable. Safe to use from several threads.
    Attributes: `index`; `bad`, the unreadable groups met so far.
    """

    def __init__(
        self,
        root: str,
        cache: str = "",
        cache_mb: int = 20_480,
        retries: int = 5,
        bad_share: float = 0.01,
        verify: bool = True,
    ):
        self.root, self.bad_share = root, bad_share
        self.store: LocalStore | RemoteStore = (
            RemoteStore(root, cache, cache_mb, retries, verify) if "://" in root else LocalStore(root)
        )
        self.index = open_index(self.store.index(), f"{root}/{INDEX_NAME}", self.store.table)
        self.groups = number_of_groups(self.index)
        self.bad: list[BadGroup] = []
        self._bad_places: dict[tuple[int, int], Exception] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, data: Data) -> ShardReader:
        """The reader that a run's data section describes."""
        return cls(data.shards, data.cache, data.cache_mb, data.retries, data.bad_share)

    def entry(self, shard: int, group: int) -> GroupEntry:
        """What the index says about a group."""
        return self.index.shards[shard].groups[group]

    def read(self, shard: int, group: int, whole: bool = True, landmarks: bool = False) -> UtteranceGroup:
        """The group `group` of shard `shard`, from one ranged read.

        whole: with landmarks and truth; landmarks: with these where it is not whole.

        Raises DamagedShard for bytes that are not what the index says (call `count_bad` then), MissingShard and
        UnreachableStorage where there are none.
        """
        if isinstance(known := self._bad_places.get((shard, group)), DamagedShard):
            raise known
        place, entry = self.index.shards[shard], self.entry(shard, group)
        members = members_of(self.store.read(place, entry.offset, entry.bytes))
        if not whole:  # half of the arrays of a group, and opening arrays is what reading a group costs
            left_out = _TRUTH if landmarks else _FOR_EVALUATION
            members = {name: content for name, content in members.items() if not left_out.search(name)}
        found = decode_group(members)
        if found.key != entry.key:
            raise DamagedShard(
                f"{place.name} holds group {found.key} where the index says {entry.key}: the index is not this shard's"
            )
        if [(r.name, r.frames) for r in found.recordings] != [(r.name, r.frames) for r in entry.recordings]:
            raise DamagedShard(f"{place.name}: recordings of group {entry.key} are not those the index lists")
        if widths := {r.features.shape[1] for r in found.recordings} - {self.index.feature_dim}:
            raise DamagedShard(
                f"{place.name}: group {entry.key} has {widths.pop()} speech features a frame where the index says "
                f"{self.index.feature_dim}: the index is not this shard's; run `spfem prepare` again"
            )
        return found

    def count_bad(self, shard: int, group: int, error: Exception, of: int | None = None) -> None:
        """Record that a group could not be used, once for each group; TooMuchDamaged past bad_share of `of` groups.

        A broken tar range (DamagedShard) is not read again. A broken video only fails the samples that need its
        broken frames, so that what a sample is stays independent of what this worker met before.
        """
        event = BadGroup(self.index.shards[shard].name, self.entry(shard, group).key, str(error))
        with self._lock:
            if (shard, group) in self._bad_places:
                return
            self._bad_places[(shard, group)] = error
            self.bad.append(event)
            count, total = len(self.bad), of or self.groups
        log.warning("damaged group %s of %s is left out: %s", event.group, event.shard, event.reason)
        if count > self.bad_share * total:
            raise TooMuchDamaged(
                f"{count} of {total} utterance groups of {self.root} cannot be read, more than data.bad_share "
                f"{self.bad_share:g}; last: {event.group} of {event.shard}: {event.reason}. Mend the shards, or raise "
                "data.bad_share to train without them"
            )
