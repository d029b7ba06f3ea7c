"""The index of many shards as a table: an Arrow stream beside `index.json`, mapped into memory instead of read into objects.

A million shards are objects of gigabytes in every process, and a minute of parsing. The table is opened in a moment, its pages are shared by
all processes of a node, and an entry becomes a `ShardEntry`, checked like any other, when somebody asks for it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, overload

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationError

from spfem_dist.emotions import Emotion
from spfem_dist.files import file_sha256, whole_file, write_whole
from spfem_dist.shard_format import (
    INDEX_NAME,
    DamagedShard,
    GroupEntry,
    IndexFacts,
    ShardEntry,
    ShardIndex,
    StoredFile,
    digest_of,
)

#: Where the groups are more than this, `save_index` writes a table: the JSON would be read for longer than a second.
TABLED_FROM = 20_000
#: Shards of a record batch: enough that a million are some hundred batches, few enough that writing holds little.
_BATCH = 4096
#: Opened entries that are kept: the blocks that a few loaders are at.
_KEPT_ENTRIES = 256

_WORD = pa.dictionary(pa.int32(), pa.string())
_RECORDING = pa.struct(
    [("name", _WORD), ("emotion", _WORD), ("level", pa.int32()), ("take", pa.int32()), ("frames", pa.int32())]
)
_GROUP = pa.struct(
    [
        ("key", pa.string()),
        ("speaker", _WORD),
        ("sentence", _WORD),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("recordings", pa.list_(_RECORDING)),
    ]
)
SCHEMA = pa.schema(
    [("name", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string()), ("groups", pa.list_(_GROUP))]
)


class TableEntry(StoredFile):
    """The table beside an index: where it is, and how many shards it has."""

    name: Literal["index.arrows"] = "index.arrows"
    shards: Annotated[int, Field(ge=0)]


class _TabledIndex(IndexFacts):
    """`index.json` of a folder whose shards are in a table."""

    format: Literal["spfem-shards/2"] = "spfem-shards/2"
    table: TableEntry


def open_index(content: bytes, where: str, table: Callable[[TableEntry], Path]) -> ShardIndex:
    """The index whose `index.json`, from `where`, is `content`. table: gives the local file of a table.

    Raises DamagedShard where it is not valid or the table is another's.
    """
    try:
        form = json.loads(content).get("format") if len(content) < 1 << 16 else ""
    except (ValueError, AttributeError):
        form = ""
    if form != "spfem-shards/2":
        return ShardIndex.load(content)
    try:
        facts = _TabledIndex.model_validate_json(content)
    except ValidationError as error:
        raise DamagedShard(
            f"{where} is not a valid shard index: {error.errors()[0]['msg']}; run `spfem prepare` again"
        ) from None
    shards = ShardTable(table(facts.table))
    if len(shards) != facts.table.shards or facts.digest != digest_of(shards.sha256s()):
        raise DamagedShard(
            f"{where}: {facts.table.name} holds other shards than the digest names: copy both again, or run `spfem prepare` again"
        )
    values = facts.model_dump(exclude={"format", "table"}) | {"shards": shards}
    return ShardIndex.model_construct(**values)  # its shards are a list in all that anybody does with them


def number_of_groups(index: ShardIndex) -> int:
    """Utterance groups of all shards."""
    shards = index.shards
    return shards.groups if isinstance(shards, ShardTable) else sum(len(shard.groups) for shard in shards)


def save_index(index: ShardIndex, folder: str | Path, table: bool | None = None) -> None:
    """Write `index.json` into `folder`, with a table beside it where there are very many groups (or as `table` says)."""
    if table is None:
        table = number_of_groups(index) > TABLED_FROM
    path = Path(folder) / "index.arrows"
    if not table:
        index.save(folder)
        path.unlink(missing_ok=True)
        return
    ShardTable.write(path, index.shards)
    name_table(index, folder, len(index.shards))


def name_table(facts: IndexFacts, folder: str | Path, shards: int) -> None:
    """Write the `index.json` of a `folder` that has its table of so many shards."""
    path = Path(folder) / "index.arrows"
    entry = TableEntry(bytes=path.stat().st_size, sha256=file_sha256(path), shards=shards)
    named = _TabledIndex(**facts.model_dump(exclude={"format", "shards"}), table=entry)
    text = named.model_dump_json(indent=1, exclude=None if named.style else {"style"})
    write_whole(Path(folder) / INDEX_NAME, text + "\n")


@dataclass(frozen=True)
class Columns:
    """What an order needs of some shards that follow each other, G groups in S of them.

    first: int64 [S + 1], the first group of each shard, counted from these shards' first. shard_bytes: int64 [S]. The others are [G]:
    group_bytes, recordings (how many), frames (of all of them), emotions (bit e is set where a recording shows `list(Emotion)[e]`),
    and speakers and sentences as numbers into their names, arrays of strings. longest: frames of the longest recording.
    """

    first: np.ndarray
    shard_bytes: np.ndarray
    group_bytes: np.ndarray
    recordings: np.ndarray
    frames: np.ndarray
    emotions: np.ndarray
    speakers: np.ndarray
    sentences: np.ndarray
    speaker_names: pa.StringArray
    sentence_names: pa.StringArray
    longest: int


class ShardTable(Sequence[ShardEntry]):
    """The shards of a table file, in order. Raises DamagedShard where it is none; entries are checked when they are asked for.

    Attributes: `groups`, how many utterance groups all of them have.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
                if stream.schema != SCHEMA:
                    raise DamagedShard(
                        f"{path} is no table of shards: its columns are {', '.join(stream.schema.names)}"
                    )
                self._batches = list(stream)
            for batch in self._batches:
                batch.validate(full=True)  # no number in the file is believed before it is known to lie in the file
                if lacking := next((name for name in SCHEMA.names if _has_nulls(batch.column(name))), ""):
                    raise DamagedShard(
                        f"{path} is no whole table of shards (an entry of {lacking} is empty): copy it again"
                    )
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise DamagedShard(f"{path} is no whole table of shards ({error}): copy it again") from None
        self.groups = sum(len(batch.column("groups").flatten()) for batch in self._batches)
        self._ends = np.cumsum([batch.num_rows for batch in self._batches])
        self._entry = functools.lru_cache(maxsize=_KEPT_ENTRIES)(self._opened)

    @staticmethod
    def write(path: str | Path, shards: Iterable[ShardEntry]) -> None:
        """Write the table of `shards` (whole or not at all); memory holds a few thousand of them at a time."""
        left = iter(shards)
        with (
            whole_file(Path(path)) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_stream(sink, SCHEMA) as stream,
        ):
            while rows := [entry.model_dump(mode="json") for entry in islice(left, _BATCH)]:
                stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, number: int) -> ShardEntry: ...
    @overload
    def __getitem__(self, number: slice) -> list[ShardEntry]: ...
    def __getitem__(self, number: int | slice) -> ShardEntry | list[ShardEntry]:
        if isinstance(number, slice):
            return [self._entry(n) for n in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"shard {number} of {len(self)}")
        return self._entry(number % len(self))

    def __iter__(self) -> Iterator[ShardEntry]:
        return (self._opened(n) for n in range(len(self)))

    def _opened(self, number: int) -> ShardEntry:
        chunk = int(np.searchsorted(self._ends, number, side="right"))
        batch = self._batches[chunk]
        row = batch.slice(number - int(self._ends[chunk]) + batch.num_rows, 1).to_pylist()[0]
        try:
            return ShardEntry.model_validate(row)
        except ValidationError as error:
            raise DamagedShard(f"{self.path}: shard {number} is not valid: {error.errors()[0]['msg']}") from None

    def sha256s(self) -> Iterator[str]:
        """The shards' sha256, in order."""
        for batch in self._batches:
            yield from batch.column("sha256").to_pylist()

    def columns(self) -> Iterator[Columns]:
        """What the table says, a few thousand shards at a time, in order."""
        for batch in self._batches:
            groups = batch.column("groups")
            first = groups.offsets.to_numpy().astype(np.int64)
            inner = groups.flatten()  # as a struct of columns, without what lies outside the offsets
            recordings = inner.field("recordings")
            ends = recordings.offsets.to_numpy().astype(np.int64)
            counts = np.diff(ends)
            shown = recordings.flatten()
            bits = _bits(shown.field("emotion"))
            each = shown.field("frames").to_numpy()
            starts, filled = ends[:-1] - ends[0], counts > 0
            emotions = np.zeros(len(counts), np.uint16)
            frames = np.zeros(len(counts), np.int64)
            if filled.any():
                emotions[filled] = np.bitwise_or.reduceat(bits, starts[filled])
                frames[filled] = np.add.reduceat(each, starts[filled], dtype=np.int64)
            speakers, sentences = inner.field("speaker"), inner.field("sentence")
            yield Columns(
                first=first - first[0],
                shard_bytes=batch.column("bytes").to_numpy(),
                group_bytes=inner.field("bytes").to_numpy(),
                recordings=counts,
                frames=frames,
                emotions=emotions,
                speakers=speakers.indices.to_numpy(),
                sentences=sentences.indices.to_numpy(),
                speaker_names=speakers.dictionary,
                sentence_names=sentences.dictionary,
                longest=int(each.max(initial=0)),
            )


def _has_nulls(array: pa.Array) -> bool:
    """Whether anything in a column is not there, at whatever depth."""
    if array.null_count:
        return True
    if isinstance(array, pa.ListArray):
        return _has_nulls(array.flatten())
    if isinstance(array, pa.StructArray):
        return any(_has_nulls(array.field(number)) for number in range(array.type.num_fields))
    return isinstance(array, pa.DictionaryArray) and bool(array.dictionary.null_count)


def _bits(emotions: pa.DictionaryArray) -> np.ndarray:
    """uint16, one bit for each emotion. DamagedShard for a name that is none."""
    known = {emotion.value: 1 << number for number, emotion in enumerate(Emotion)}
    names = emotions.dictionary.to_pylist()
    if strange := [name for name in names if name not in known]:
        raise DamagedShard(f"a table of shards speaks of the emotion {strange[0]!r}; known: {', '.join(known)}")
    return np.array([known[name] for name in names] or [0], np.uint16)[emotions.indices.to_numpy()]


def example_of(emotions: int) -> GroupEntry:
    """A group with one recording of each emotion in these bits: what a view is asked about, which looks at emotions alone."""
    shown = [emotion for number, emotion in enumerate(Emotion) if emotions >> number & 1]
    recordings = [{"name": f"{e.value}-1-1", "emotion": e, "level": 1, "take": 1, "frames": 1} for e in shown]
    return GroupEntry.model_validate(
        {"key": "any", "speaker": "", "sentence": "", "offset": 0, "bytes": 512, "recordings": recordings}
    )
