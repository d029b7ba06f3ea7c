"""What a frozen trunk makes of frames, computed once and kept in files: `feature_cache` of the priors that stand on such a trunk.

    FOLDER/KEY/SHARD.safetensors    features float32 [rows, V, P, D] of one shard; its header says what they are of

KEY is the beginning of a sha256 over all that the features depend on: the trunk's weights, the shards' digest, sizes, crop and
augmentation. A row is a frame of a recording of one of the seven emotions, in the index's order; V are the views of it that were drawn,
P the pictures that a prior looks at (a face, and its twin with another mouth), D the width. The files are written whole or not at all,
each by one worker; one that is cut, altered or of something else is refused in words and made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.files import cache_folder, whole_file
from spfem_dist.job_settings import CachedSettings
from spfem_dist.nets.augment import uniform
from spfem_dist.records import Batch, Recording, Seeds
from spfem_dist.redact import redact
from spfem_dist.saved import not_finite, parameters_sha256
from spfem_dist.shard_format import DamagedShard, GroupEntry, ShardEntry
from spfem_dist.storage import is_local, open_filesystem
from spfem_dist.streaming.accepted import Accept, Accepted
from spfem_dist.streaming.encoded import DamagedVideo
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.views import EMOTION_FRAMES, View

log = logging.getLogger(__name__)

FORMAT = "spfem-features/1"
#: The key of a batch's extras, float32 [B, R, K, P, D].
FEATURES = "features"
#: Frames that the trunk is given at once, at most.
AT_ONCE = 64
#: Seconds between two lines on how far it is.
SAY_EVERY = 20.0


class OnFrozenTrunk(Protocol):
    """What the cache asks of a prior. augments: whether its training draws views of a frame; if not, there is one."""

    view: View
    augments: bool

    def frozen_trunk(self) -> nn.Module | None:
        """The part whose output is kept; None where all of it learns."""
        ...

    def feature_shape(self) -> tuple[int, int]:
        """(P, D): pictures of a frame, numbers of each."""
        ...

    def feature_identity(self, augmented: bool) -> dict[str, Any]:
        """All that the features depend on, but for the trunk's weights and the shards. augmented: views are drawn."""
        ...

    def frozen_features(self, batch: Batch) -> Tensor:
        """What the trunk makes of a batch's frames, [B, R, K, P, D]; augmented in training mode only."""
        ...


@dataclass
class _Kept:
    """One shard's features [rows, V, P, D], mapped from its file; the first row of each recording and what could not be decoded, both by
    (group's number, recording)."""

    features: Tensor
    first: dict[tuple[int, str], int]
    absent: set[tuple[int, str]]


class _Refused(ValueError):
    """A file that is not what it should be; says in what."""


class FeatureCache:
    """The kept features of the shards that worker `rank` of `size` trains on.

    accept: keeps a group of the split; shards without one are left out. `make` is called by all workers before the first step;
    `given` then fills batches. Until then, in a dry run or a plan, it fills them with zeros: arithmetic does not depend on numbers.
    """

    def __init__(
        self,
        prior: Any,
        settings: CachedSettings,
        source: Source,
        accept: Accept | None,
        rank: int,
        size: int,
        device: torch.device,
    ):
        self.prior, self.source, self.rank, self.size, self.device = prior, source, rank, size, device
        self.index = source.reader.index
        self.drawn = settings.feature_views if prior.augments else 0
        self.shape = (max(1, self.drawn), *prior.feature_shape())
        self.folder = settings.feature_cache.rstrip("/")
        self.shards = np.flatnonzero(np.diff(Accepted.of(self.index, accept, prior.view.serves).first)).tolist()
        self.ready = False
        self._open: dict[int, _Kept] = {}
        self._lock = threading.Lock()

    def make(self) -> Iterator[str]:
        """Compute what is not there yet, the workers side by side, a shard each; lines to tell, empty ones as signs of life.

        A collective. Raises TooMuchDamaged past data.bad_share of groups that cannot be decoded.
        """
        self.prior.to(self.device)
        self.identity = self._identity()
        text = json.dumps(self.identity, sort_keys=True)
        self.place = f"{self.folder}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.fs, self.root = open_filesystem(self.place)
        self.fs.makedirs(self.root, exist_ok=True)
        lacking = []
        for shard in self.shards[self.rank :: self.size]:
            if not self._is_sound(shard):
                lacking.append(shard)
            yield ""
        if self.size > 1:
            dist.barrier()  # what its worker refuses is gone before another one looks for it
        began = said = time.monotonic()
        for number, shard in enumerate(lacking):
            for done, of in self._made(shard):
                line = ""
                if time.monotonic() - said > SAY_EVERY:
                    said = time.monotonic()
                    line = f"image features: shard {number + 1} of {len(lacking)} of this worker, group {done} of {of}"
                yield line
        yield from self._others()
        self.ready = True
        made = f"made in {time.monotonic() - began:.0f} s" if lacking else "were there"
        rows = sum(self._rows(self.index.shards[shard])[1] for shard in self.shards)
        views = f"{self.drawn} augmented views" if self.drawn else "one plain view"
        yield f"image features of {rows} frames, {views} of each, {made}: {redact(self.place)}"

    def given(self, batch: Batch) -> Batch:
        """The batch with its frames' features among its extras. What could not be decoded counts nowhere: not valid.

        Which view of a frame is taken is a function of the sample's seed.
        """
        b, r, k = batch.valid.shape
        features = torch.zeros(b, r, k, *self.shape[1:])
        if not self.ready:
            return replace(batch, extras=batch.extras | {FEATURES: features})
        assert batch.origins is not None  # the loader's batches say where they come from
        views = (uniform(batch.seed, "features/view", r, k) * self.shape[0]).long()
        valid = batch.valid.clone()
        for sample, origins in enumerate(batch.origins):
            for row, origin in enumerate(origins):
                if origin is None:
                    continue
                shard, group, name = origin
                kept = self._kept(shard)
                if (group, name) in kept.absent:
                    valid[sample, row] = False
                    continue
                first = kept.first[group, name]
                features[sample, row] = kept.features[first + batch.position[sample, row], views[sample, row]]
        return replace(batch, valid=valid, extras=batch.extras | {FEATURES: features})

    def _identity(self) -> dict[str, Any]:
        trunk = self.prior.frozen_trunk()
        return {
            "format": FORMAT,
            "trunk": parameters_sha256(trunk.state_dict()),
            "shards": self.index.digest,
            "size": self.source.data.size,
            "views": self.drawn,
        } | self.prior.feature_identity(self.drawn > 0)

    def _rows(self, shard: ShardEntry) -> tuple[dict[tuple[int, str], int], int]:
        """(the first row of each recording by group's number and name, all rows) of a shard's features."""
        first, rows = {}, 0
        for number, group in enumerate(shard.groups):
            for recording in group.recordings:
                if recording.emotion in SEVEN:
                    first[number, recording.name] = rows
                    rows += recording.frames
        return first, rows

    def _file(self, shard: int) -> str:
        return f"{Path(self.index.shards[shard].name).stem}.safetensors"

    def _is_sound(self, shard: int) -> bool:
        """Whether a shard's features are there and whole; what is not is said, and removed."""
        path = f"{self.root}/{self._file(shard)}"
        if not self.fs.exists(path):
            return False
        try:
            self._read(shard, check=True)
        except _Refused as error:
            log.warning("%s/%s is not used and made again: %s", redact(self.place), self._file(shard), error)
            self.fs.rm_file(path)
            return False
        return True

    def _others(self) -> Iterator[str]:
        """Wait for the shards of the other workers; a sign of life whenever one has come."""
        waited, lacking = -1, [self._file(shard) for shard in self.shards]
        while lacking := [file for file in lacking if not self.fs.exists(f"{self.root}/{file}")]:
            if len(lacking) != waited:
                told = f"image features: waiting for {len(lacking)} files of other workers in {redact(self.place)}, which all must see"
                yield told if waited < 0 else ""
                waited = len(lacking)
            time.sleep(0.2)

    def _kept(self, shard: int) -> _Kept:
        with self._lock:
            if shard not in self._open:
                self._open[shard] = self._found(shard)
            return self._open[shard]

    def _found(self, shard: int) -> _Kept:
        """A shard's features, whose bytes a worker of the run has checked; of those on S3, this host's copy, or a new one."""
        local = is_local(self.fs)
        try:
            try:
                return self._read(shard, check=not local, anew=False)
            except _Refused:
                if local:
                    raise
                return self._read(shard, check=True)
        except _Refused as error:
            raise ValueError(
                f"{redact(self.place)}/{self._file(shard)}: {error}, since the run began; started again, it makes the file again"
            ) from None

    def _read(self, shard: int, check: bool, anew: bool = True) -> _Kept:
        """A shard's features, mapped into memory. check: hold the bytes against their sha256. anew: from S3 even where this host has a
        copy. Raises _Refused."""
        file = Path(self.root) / self._file(shard)
        if not is_local(self.fs):
            file = cache_folder("features") / self.place.rsplit("/", 1)[1] / self._file(shard)
            if anew or not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(file) as temporary:
                    self.fs.get_file(f"{self.root}/{self._file(shard)}", str(temporary))
        try:
            with safe_open(file, framework="pt") as opened:
                said, features = opened.metadata() or {}, opened.get_tensor("features")
            identity = json.loads(said.get("identity", "null"))
            absent = {(int(group), str(name)) for group, name in json.loads(said.get("absent", "[]"))}
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise _Refused(f"it is damaged ({error})") from None
        if identity != self.identity:
            known = identity if isinstance(identity, dict) else {}
            other = [key for key, value in self.identity.items() if known.get(key) != value]
            raise _Refused(
                f"its features are of something else ({', '.join(other) or 'more than is known here'} differs)"
            )
        first, rows = self._rows(self.index.shards[shard])
        wanted = (rows, *self.shape)
        if said.get("shard") != self.index.shards[shard].sha256 or tuple(features.shape) != wanted:
            raise _Refused(f"it is of another shard, {tuple(features.shape)} numbers where {wanted} belong")
        if check and said.get("sha256") != _digest(features):
            raise _Refused("its numbers are not those that were written")
        return _Kept(features, first, absent)

    def _made(self, number: int) -> Iterator[tuple[int, int]]:
        """Compute and write one shard's features; after each piece, the group that it is of, from 1, and how many there are."""
        shard = self.index.shards[number]
        first, rows = self._rows(shard)
        features, absent = torch.zeros(rows, *self.shape), set[tuple[int, str]]()
        for group, entry in enumerate(shard.groups):
            frames = self._decoded(number, group, entry)
            absent |= {(group, n) for g, n in first if g == group and n not in frames}
            for view in range(self.shape[0]) if frames else ():
                for names, positions, found in self._of_group(entry.key, frames, view):
                    for row, name in enumerate(names):
                        features[first[group, name] + positions[:, row].flatten(), view] = found[:, row].flatten(0, 1)
                    yield group + 1, len(shard.groups)
        if broken := not_finite({"features": features}):
            raise ValueError(
                f"the trunk makes numbers that are not finite of {shard.name} ({broken[0]}): check its weights"
            )
        facts = {
            "identity": json.dumps(self.identity, sort_keys=True),
            "shard": shard.sha256,
            "sha256": _digest(features),
            "absent": json.dumps(sorted(absent)),
        }
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(self.root) if is_local(self.fs) else Path(scratch)
            with whole_file(local / self._file(number)) as temporary:
                save_file({"features": features}, temporary, facts)
            if not is_local(self.fs):  # an object appears whole
                self.fs.put_file(str(local / self._file(number)), f"{self.root}/{self._file(number)}")

    def _decoded(self, shard: int, group: int, entry: GroupEntry) -> dict[str, tuple[Recording, Tensor]]:
        """The group's recordings of the seven emotions by name, each with all its frames; without those that cannot be decoded."""
        reader = self.source.reader
        try:
            recordings = [r for r in self.source.group(shard, group).recordings if r.emotion in SEVEN]
        except DamagedShard as error:
            reader.count_bad(shard, group, error)
            return {}
        while recordings:
            wanted = [((shard, group), r, np.arange(r.frames)) for r in recordings]
            try:
                return {r.name: (r, frames) for r, frames in zip(recordings, self.source.frames(wanted), strict=True)}
            except DamagedVideo as error:
                reader.count_bad(shard, group, error)
                del recordings[error.request]
        return {}

    @torch.inference_mode()
    def _of_group(
        self, key: str, frames: dict[str, tuple[Recording, Tensor]], view: int
    ) -> Iterator[tuple[list[str], Tensor, Tensor]]:
        """One view of a group's frames in pieces: (names of R recordings, positions [B, R, K], features [B, R, K, P, D]).

        The pieces are batches as training has them: K moments of each recording, drawn here without putting back; a recording
        that is shorter than the longest comes round again.
        """
        names, moments = list(frames), pairs({n: r.frames for n, (r, _) in frames.items()}, key, view)
        emotions = torch.tensor([list(Emotion).index(r.emotion) for r, _ in frames.values()])
        step = max(1, AT_ONCE // (len(names) * EMOTION_FRAMES * self.shape[1]))
        training = self.prior.training
        self.prior.train(self.drawn > 0)
        try:
            for start in range(0, len(moments), step):
                positions = moments[start : start + step]
                count = len(positions)
                pictures = torch.stack([f[positions[:, i].to(f.device)] for i, (_, f) in enumerate(frames.values())], 1)
                batch = Batch(
                    frames=pictures.permute(0, 1, 2, 5, 3, 4),
                    speech=torch.zeros(count, len(names), EMOTION_FRAMES, 1, 1),
                    position=positions,
                    emotion=emotions.expand(count, -1),
                    valid=torch.ones(positions.shape, dtype=torch.bool),
                    sample=torch.arange(count),
                    seed=Seeds(tuple(_number(f"{key} {view} {start + i}") for i in range(count))),
                    keys=[key] * count,
                )
                yield names, positions, self.prior.frozen_features(batch.to(self.device)).float().cpu()
        finally:
            self.prior.train(training)


def pairs(frames: dict[str, int], key: str, view: int) -> Tensor:
    """int64 [M, R, K]: the frames of R recordings in the order in which a view of the group `key` takes them, K at a time.

    frames: how many each recording has. A function of the names and the view alone.
    """
    longest = -(-max(frames.values()) // EMOTION_FRAMES) * EMOTION_FRAMES
    rows = [
        np.resize(
            np.argsort(np.random.PCG64(_number(f"{key} {name} {view}")).random_raw(count), kind="stable"), longest
        )
        for name, count in frames.items()
    ]
    return torch.from_numpy(np.stack(rows)).view(len(rows), -1, EMOTION_FRAMES).transpose(0, 1)


def _number(of: str) -> int:
    """63 bits that depend on the text alone."""
    return int.from_bytes(hashlib.blake2b(f"spfem features {of}".encode(), digest_size=8).digest(), "little") >> 1


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy()).hexdigest()  # type: ignore[arg-type]
