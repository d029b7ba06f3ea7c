"""What one utterance group looks like inside a shard, and what the index says: docs/shards.md as code.

Neutral ground between `prepare` (writes) and `streaming` (reads). Bytes that come from a shard are not trusted:
only regular files with expected names, arrays whose header agrees with their length, and never a pickle.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
import re
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spfem_dist.emotions import Emotion
from spfem_dist.files import UNREADABLE_ARRAY, write_whole
from spfem_dist.records import Recording, UtteranceGroup

GROUP_FORMAT: Final = "spfem-group/1"
INDEX_FORMAT: Final = "spfem-shards/1"
INDEX_NAME = "index.json"
#: A group or member beyond these sizes is refused: no talking-face sentence comes near them.
MAX_GROUP_BYTES = 2 << 30
MAX_MEMBER_BYTES = 512 << 20

_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MEMBER = re.compile(r"[A-Za-z0-9_-]{1,64}(\.[a-z0-9_+-]+)+")
_SHARD_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*\.tar$"

Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
RecordingName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]


class DamagedShard(ValueError):
    """Bytes of a shard, or an index, that are cut, altered or not what `docs/shards.md` says. Names what and where."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordingEntry(_Entry):
    """What the index says about one recording of a group: enough to draw samples without opening a tar."""

    name: RecordingName
    emotion: Emotion
    level: int
    take: int
    frames: Annotated[int, Field(ge=1)]


class GroupEntry(_Entry):
    """Where one group lies: members in `[offset, offset + bytes)` of its tar, both multiples of 512."""

    key: Key
    speaker: str
    sentence: str
    offset: Annotated[int, Field(ge=0, multiple_of=tarfile.BLOCKSIZE)]
    bytes: Annotated[int, Field(ge=tarfile.BLOCKSIZE, le=MAX_GROUP_BYTES, multiple_of=tarfile.BLOCKSIZE)]
    recordings: list[RecordingEntry]


class StoredFile(_Entry):
    """A file beside the index, as it must be: its size in bytes and its sha256."""

    name: str
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ShardEntry(StoredFile):
    """One tar and its groups in order."""

    name: Annotated[str, Field(pattern=_SHARD_NAME)]
    groups: list[GroupEntry]

    @model_validator(mode="after")
    def _groups_lie_inside(self) -> ShardEntry:
        for group in self.groups:
            if group.offset + group.bytes > self.bytes:
                raise ValueError(f"group {group.key} ends beyond {self.name}, which has {self.bytes} bytes")
        return self


class IndexFacts(_Entry):
    """What an index says of all its shards. `digest` is the data set's identity (see `shards_digest`).

    style: how much the speakers of a rendered corpus show emotions in a way of their own; not written where it is 0.
    """

    format: str
    corpus: str
    fps: Annotated[float, Field(gt=0)]
    size: Annotated[int, Field(ge=1)]
    speech_features: str
    feature_dim: Annotated[int, Field(ge=1)]
    landmarks: str
    style: Annotated[float, Field(ge=0)] = 0.0
    digest: str


class ShardIndex(IndexFacts):
    """`index.json`: what a folder of shards holds. Of very many shards the list is a table beside it (`shard_table.open_index` reads both)."""

    format: Literal["spfem-shards/1"] = INDEX_FORMAT
    shards: list[ShardEntry]

    @classmethod
    def load(cls, source: str | Path | bytes) -> ShardIndex:
        """The index in `source`: a folder of shards, the index file itself, or its bytes; none whose shards are in a table.

        Raises FileNotFoundError where there is none and DamagedShard where it is not a valid index.
        """
        if isinstance(source, bytes):
            where, content = INDEX_NAME, source
        else:
            path = Path(source)
            path = path / INDEX_NAME if path.is_dir() or path.suffix != ".json" else path
            if not path.is_file():
                raise FileNotFoundError(
                    f"no shard index at {path}: write shards with `spfem prepare`, or name the folder that holds {INDEX_NAME}"
                )
            where, content = str(path), path.read_bytes()
        try:
            index = cls.model_validate_json(content)
        except ValidationError as error:
            raise DamagedShard(
                f"{where} is not a valid shard index: {_first_error(error)}; run `spfem prepare` again"
            ) from None
        if index.digest != shards_digest(index.shards):
            raise DamagedShard(
                f"{where}: digest does not match its shards (edited or mixed?); run `spfem prepare` again"
            )
        return index

    def save(self, folder: str | Path) -> Path:
        """Write `index.json` into `folder` (whole or not at all); returns its path."""
        path = Path(folder) / INDEX_NAME
        write_whole(path, self.model_dump_json(indent=1, exclude=None if self.style else {"style"}) + "\n")
        return path


def shards_digest(shards: Iterable[ShardEntry]) -> str:
    """sha256 over the shards' sha256 in order: equal exactly when all tars are equal."""
    return digest_of(s.sha256 for s in shards)


def digest_of(sha256s: Iterable[str]) -> str:
    """`shards_digest` of shards with these sha256."""
    return hashlib.sha256("\n".join(sha256s).encode()).hexdigest()


# --- one group as tar members -------------------------------------------------------------------------------------


class _WarpHeader(_Entry):
    a: RecordingName
    b: RecordingName
    cost: Annotated[float, Field(allow_inf_nan=False)] | None


class _RecordingHeader(RecordingEntry):
    video: Literal["mp4", "webm"]


class _GroupHeader(_Entry):
    format: Literal["spfem-group/1"]
    corpus: str
    speaker: str
    sentence: str
    fps: Annotated[float, Field(gt=0)]
    size: Annotated[int, Field(ge=1)]
    recordings: Annotated[list[_RecordingHeader], Field(min_length=1)]
    warps: list[_WarpHeader]


def encode_group(group: UtteranceGroup) -> list[tuple[str, bytes]]:
    """The tar members of `group` as (name, content), in order; the same group gives the same bytes.

    Raises ValueError for a key, name, video or array that the format cannot hold.
    """
    if not _KEY.fullmatch(group.key):
        raise ValueError(f"group key {group.key!r} must be 1-64 letters, digits, '_' or '-': it names tar members")
    recordings = {recording.name: recording for recording in group.recordings}
    header = _GroupHeader(
        format=GROUP_FORMAT,
        corpus=group.corpus,
        speaker=group.speaker,
        sentence=group.sentence,
        fps=group.fps,
        size=group.size,
        recordings=[
            _RecordingHeader(
                name=r.name, emotion=r.emotion, level=r.level, take=r.take, frames=r.frames, video=container_of(r.video)
            )
            for r in group.recordings
        ],
        warps=[_WarpHeader(a=a, b=b, cost=group.warp_costs.get((a, b))) for a, b in group.warps],
    )
    members = [("json", json.dumps(header.model_dump(mode="json"), separators=(",", ":")).encode())]
    for entry in header.recordings:
        recording = recordings[entry.name]
        _check_rows(recording)
        members.append((f"{entry.name}.{entry.video}", recording.video))
        members.append((f"{entry.name}.flac", recording.speech))
        members.append((f"{entry.name}.features.npy", _to_npy(recording.features, np.float16)))
        if recording.landmarks is not None:
            members.append((f"{entry.name}.landmarks.npy", _to_npy(recording.landmarks, np.float16)))
        members.append((f"{entry.name}.valid.npy", _to_npy(recording.valid, np.uint8)))
        for name, values in sorted(recording.truth.items()):
            members.append((f"{entry.name}.truth_{name}.npy", _to_npy(values, np.float32)))
    for (a, b), path in group.warps.items():
        _check_warp(path, recordings[a].frames, recordings[b].frames, f"warp {a} to {b} of group {group.key}")
        members.append((f"{a}+{b}.warp.npy", _to_npy(path, np.int32)))
    return [(f"{group.key}.{name}", content) for name, content in members]


def decode_group(members: Mapping[str, bytes]) -> UtteranceGroup:
    """The group that `members` (name -> content, as from `members_of`) hold; videos and speech stay encoded.

    Raises DamagedShard where a member is missing, unexpected or disagrees with the others.
    """
    key = _key_of(members)
    try:
        header = _GroupHeader.model_validate_json(members[f"{key}.json"])
    except ValidationError as error:
        raise DamagedShard(f"member {key}.json is not a valid group header: {_first_error(error)}") from None
    left = dict(members)
    del left[f"{key}.json"]

    def take(name: str) -> bytes:
        try:
            return left.pop(f"{key}.{name}")
        except KeyError:
            raise DamagedShard(f"group {key} lacks its member {key}.{name}: the shard is incomplete") from None

    def take_array(name: str) -> np.ndarray:
        return _from_npy(take(name), f"{key}.{name}")

    recordings = []
    for entry in header.recordings:
        landmarks = f"{entry.name}.landmarks.npy"
        truths = sorted(n for n in left if n.startswith(f"{key}.{entry.name}.truth_") and n.endswith(".npy"))
        recording = Recording(
            name=entry.name,
            emotion=entry.emotion,
            level=entry.level,
            take=entry.take,
            frames=entry.frames,
            video=take(f"{entry.name}.{entry.video}"),
            speech=take(f"{entry.name}.flac"),
            features=take_array(f"{entry.name}.features.npy").astype(np.float32),
            valid=take_array(f"{entry.name}.valid.npy").astype(bool),
            landmarks=take_array(landmarks).astype(np.float32) if f"{key}.{landmarks}" in left else None,
            truth={
                n.removeprefix(f"{key}.{entry.name}.truth_").removesuffix(".npy"): take_array(n.removeprefix(f"{key}."))
                for n in truths
            },
        )
        try:
            _check_rows(recording)
        except ValueError as error:
            raise DamagedShard(f"group {key}: {error}") from None
        recordings.append(recording)

    frames = {r.name: r.frames for r in recordings}
    group = UtteranceGroup(key, header.corpus, header.speaker, header.sentence, header.fps, header.size, recordings)
    for warp in header.warps:
        path = take_array(f"{warp.a}+{warp.b}.warp.npy")
        try:
            _check_warp(path, frames[warp.a], frames[warp.b], f"warp {warp.a} to {warp.b} of group {key}")
        except (KeyError, ValueError) as error:
            raise DamagedShard(str(error)) from None
        group.warps[(warp.a, warp.b)] = path
        if warp.cost is not None:
            group.warp_costs[(warp.a, warp.b)] = warp.cost
    if left:
        raise DamagedShard(f"group {key} holds members that its header does not name: {', '.join(sorted(left)[:3])}")
    return group


def container_of(video: bytes) -> Literal["mp4", "webm"]:
    """The container of encoded video bytes, by their first bytes; ValueError for any other."""
    if video[4:8] == b"ftyp":
        return "mp4"
    if video[:4] == b"\x1a\x45\xdf\xa3":
        return "webm"
    raise ValueError(f"video bytes are neither mp4 nor webm (they begin with {video[:8]!r})")


# --- tar blocks ---------------------------------------------------------------------------------------------------


def pack_members(members: Iterable[tuple[str, bytes]]) -> bytes:
    """The members as a run of ustar blocks without the end-of-archive mark: no times, owners or random order."""
    blocks = []
    for name, content in members:
        if not _MEMBER.fullmatch(name):
            raise ValueError(
                f"tar member name {name!r} is not allowed: KEY.part with letters, digits, '_', '-', '+' and dots"
            )
        info = tarfile.TarInfo(name)
        info.size = len(content)
        blocks += [
            info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"),
            content,
            bytes(-len(content) % tarfile.BLOCKSIZE),
        ]
    return b"".join(blocks)


def members_of(tar_bytes: bytes) -> dict[str, bytes]:
    """The members in one group's byte range of a tar, name -> content, in order.

    Only regular files of one key are accepted, with plain names (no folders, no '..'); the first must be `KEY.json`.
    Raises DamagedShard for bytes that are cut or altered, or hold anything else. Nothing is written anywhere.
    """
    # tarfile.open() treats a damaged header after the first as the end of the archive, and follows links and
    # pax records; walking the headers one by one is stricter.
    members: dict[str, bytes] = {}
    offset = 0
    while offset < len(tar_bytes):
        header = tar_bytes[offset : offset + tarfile.BLOCKSIZE]
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
            raise DamagedShard(
                f"damaged tar header at byte {offset} of {len(tar_bytes)} of the group ({error}): the shard is cut or altered"
            ) from None
        if info.type != tarfile.REGTYPE:
            raise DamagedShard(f"tar member {info.name!r} is not a regular file (type {info.type!r}): refused")
        if not _MEMBER.fullmatch(info.name):
            raise DamagedShard(f"tar member name {info.name!r} is not a plain KEY.part name: refused (path traversal?)")
        if info.size > MAX_MEMBER_BYTES or info.size < 0:
            raise DamagedShard(
                f"tar member {info.name!r} claims {info.size} bytes, more than {MAX_MEMBER_BYTES}: refused"
            )
        start = offset + tarfile.BLOCKSIZE
        offset = start + math.ceil(info.size / tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if offset > len(tar_bytes):
            raise DamagedShard(
                f"tar member {info.name!r} needs {offset} bytes, the group has {len(tar_bytes)}: the shard is cut in the middle"
            )
        if info.name in members:
            raise DamagedShard(f"tar member {info.name!r} comes twice in one group: refused")
        members[info.name] = tar_bytes[start : start + info.size]
    key = _key_of(members)
    for name in members:
        if not name.startswith(f"{key}."):
            raise DamagedShard(
                f"tar member {name!r} does not belong to group {key}: the byte range is wrong or the shard altered"
            )
    return members


def _key_of(members: Mapping[str, bytes]) -> str:
    first = next(iter(members), "")
    if not first.endswith(".json") or not _KEY.fullmatch(first.removesuffix(".json")):
        raise DamagedShard(
            f"a group begins with its KEY.json, found {first or 'nothing'!r}: the byte range is wrong or cut"
        )
    return first.removesuffix(".json")


# --- arrays -------------------------------------------------------------------------------------------------------


def _to_npy(values: Any, dtype: type) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<")), allow_pickle=False)
    return buffer.getvalue()


def _from_npy(content: bytes, name: str) -> np.ndarray:
    # The header is checked against the length before anything is allocated. Parsing a header costs more than the
    # array it describes and few differ, so parsed headers are remembered (10 times faster for a whole group).
    try:
        if content[:8] != b"\x93NUMPY\x01\x00":
            raise ValueError("not npy version 1.0")
        start = 10 + int.from_bytes(content[8:10], "little")
        shape, dtype = _npy_header(content[:start])
        if math.prod(shape) * dtype.itemsize != len(content) - start:
            raise ValueError(f"header says {dtype} {shape}, {len(content) - start} bytes follow")
        return np.frombuffer(content, dtype, offset=start).reshape(shape).copy()
    except UNREADABLE_ARRAY as error:
        raise DamagedShard(f"member {name} is not a whole array: {error}") from None


@functools.lru_cache(maxsize=4096)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], np.dtype]:
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header[8:]))
    if fortran_order or dtype.hasobject:
        raise ValueError(f"header says {dtype}, Fortran order {fortran_order}: not an array that prepare writes")
    return shape, dtype


def _check_rows(recording: Recording) -> None:
    arrays = {"features": recording.features, "valid": recording.valid, "landmarks": recording.landmarks}
    arrays |= {f"truth_{name}": values for name, values in recording.truth.items()}
    dimensions = {"features": 2, "valid": 1, "landmarks": 3}
    for name, values in arrays.items():
        if values is None:
            continue
        if np.ndim(values) != dimensions.get(name, np.ndim(values)) or len(values) != recording.frames:
            raise ValueError(
                f"{recording.name}: {name} has shape {np.shape(values)}, the recording has {recording.frames} frames"
            )


def _check_warp(path: np.ndarray, frames_a: int, frames_b: int, what: str) -> None:
    if path.ndim != 2 or path.shape[0] != 2 or path.shape[1] < 1 or path.dtype.kind != "i":
        raise ValueError(f"{what}: expected int [2, P], found {path.dtype} {path.shape}")
    steps = np.diff(path, axis=1)
    inside = path.min() >= 0 and path[0].max() < frames_a and path[1].max() < frames_b
    if not inside or (steps < 0).any():
        raise ValueError(f"{what}: not a monotone path inside {frames_a} x {frames_b} frames")


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "top level"
    given = "" if isinstance(first["input"], dict | list) else f", not {first['input']!r}"
    return f"{where}: {first['msg']}{given}"
