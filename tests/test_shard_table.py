"""The table of many shards says what the list says, is opened without reading it, and is refused where it is damaged."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pyarrow as pa
import pytest

from spfem_dist.corpora.splits import Part
from spfem_dist.shard_format import INDEX_NAME, DamagedShard, GroupEntry, ShardEntry, ShardIndex, shards_digest
from spfem_dist.shard_table import SCHEMA, ShardTable, number_of_groups, save_index
from spfem_dist.streaming import accepted
from spfem_dist.streaming.accepted import Accepted
from spfem_dist.streaming.order import Order
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.streaming.views import serves_content, serves_emotion

SHOWN = (("neutral", "happy"), ("calm",), ("neutral",), ("sad", "happy", "calm"))


def entry(number: int) -> GroupEntry:
    speaker, sentence = f"S{number % 3}", f"{number // 3 % 4}"
    recordings = [
        {"name": f"{e}-1-1", "emotion": e, "level": 1, "take": 1, "frames": 10 + number}
        for e in SHOWN[number % len(SHOWN)]
    ]
    return GroupEntry.model_validate(
        {
            "key": f"{speaker}_{number}",
            "speaker": speaker,
            "sentence": sentence,
            "offset": 1024 * (number % 5),
            "bytes": 1024,
        }
        | {"recordings": recordings}
    )


def listed(shards: int = 7) -> ShardIndex:
    entries = [
        ShardEntry(
            name=f"shard-{s:06d}.tar",
            bytes=10240 + s,
            sha256=f"{s:064x}",
            groups=[entry(5 * s + g) for g in range(s % 5)],
        )
        for s in range(shards)
    ]
    facts = {
        "corpus": "made",
        "fps": 25,
        "size": 64,
        "speech_features": "logmel",
        "feature_dim": 160,
        "landmarks": "none",
    }
    return ShardIndex(**facts, digest=shards_digest(entries), shards=entries)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The index of `listed`, as a table of several record batches."""
    monkeypatch.setattr("spfem_dist.shard_table._BATCH", 3)
    save_index(listed(), tmp_path, table=True)
    return tmp_path


def test_the_table_says_what_the_list_says(folder):
    index = ShardReader(str(folder)).index
    assert isinstance(index.shards, ShardTable)
    assert list(index.shards) == listed().shards
    assert index.shards[-1] == listed().shards[-1]
    assert index.shards[2:5] == listed().shards[2:5]
    with pytest.raises(IndexError):
        index.shards[7]
    assert (index.digest, index.corpus, number_of_groups(index)) == (
        listed().digest,
        "made",
        number_of_groups(listed()),
    )
    assert accepted.speakers_of(index) == accepted.speakers_of(listed())
    assert accepted.longest_recording(index) == accepted.longest_recording(listed()) == 10 + 30


@pytest.mark.parametrize(
    ("accept", "serves"),
    list(
        product(
            (
                None,
                Part(speakers=frozenset({"S0", "S2", "S9"}), sentences=frozenset("013")),
                lambda e: e.sentence != "2",
            ),
            (None, serves_content, serves_emotion),
        )
    ),
)
def test_an_order_is_the_same_from_a_table_and_from_a_list(folder, accept, serves):
    index = ShardReader(str(folder)).index
    ours, plain = (Order(i, accept, seed=3, draws_per_group=2, block=2, serves=serves) for i in (index, listed()))
    assert ours.coverage == plain.coverage
    samples = range(2 * ours.samples_per_epoch + 3)
    refs = [ours.sample(k) for k in samples]
    assert refs == [plain.sample(k) for k in samples]
    assert ours.shards_of(samples).tolist() == [ref.shard for ref in refs]
    assert [ours.substitute(r, 5) for r in refs] == [plain.substitute(r, 5) for r in refs]
    assert [ours.companion(r, serves_emotion) for r in refs] == [plain.companion(r, serves_emotion) for r in refs]


def test_places_and_numbers_of_accepted_groups_are_each_others_inverse():
    found = Accepted.of(listed(), Part(sentences=frozenset("12")))
    assert [found.number(*found.place(n)) for n in range(len(found.groups))] == list(range(len(found.groups)))


def test_many_groups_make_a_table_and_few_a_list(tmp_path, monkeypatch):
    save_index(listed(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [INDEX_NAME]
    monkeypatch.setattr("spfem_dist.shard_table.TABLED_FROM", 10)
    save_index(listed(), tmp_path)
    assert (tmp_path / INDEX_NAME).stat().st_size < 1000
    monkeypatch.undo()
    save_index(listed(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [INDEX_NAME]


def test_a_table_that_is_missing_cut_or_anothers_is_refused(folder):
    table = folder / "index.arrows"
    whole = table.read_bytes()
    table.write_bytes(whole[:-100])
    with pytest.raises(DamagedShard, match=r"index\.arrows has"):
        ShardReader(str(folder))
    table.write_bytes(whole.replace(f"{6:064x}".encode(), f"{7:064x}".encode()))
    with pytest.raises(DamagedShard, match="other shards than the digest names"):
        ShardReader(str(folder))
    table.write_bytes(bytes(len(whole)))
    with pytest.raises(DamagedShard, match="no whole table"):
        ShardReader(str(folder))
    with pa.OSFile(str(table), "wb") as sink, pa.ipc.new_stream(sink, pa.schema([("name", pa.string())])):
        pass
    with pytest.raises(DamagedShard, match="no table of shards"):
        ShardTable(table)
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"index\.arrows is missing"):
        ShardReader(str(folder))


def test_an_entry_of_a_table_is_checked_like_any_other(folder):
    table = folder / "index.arrows"
    table.write_bytes(table.read_bytes().replace(b"shard-000004.tar", b"../../000004.tar"))
    shards = ShardReader(str(folder)).index.shards
    assert shards[3].name == "shard-000003.tar"
    with pytest.raises(DamagedShard, match="shard 4 is not valid"):
        shards[4]


@pytest.mark.parametrize("field", ["sha256", "groups", "speaker", "frames", "emotion"])
def test_a_table_in_which_something_is_not_there_is_refused(field, tmp_path):
    rows = [shard.model_dump(mode="json") for shard in listed().shards]
    group = rows[4]["groups"][1]
    for owner in (rows[4], group, group["recordings"][0]):
        owner.update({field: None} if field in owner else {})
    with pa.OSFile(str(tmp_path / "index.arrows"), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    column = field if field in rows[4] else "groups"
    with pytest.raises(DamagedShard, match=rf"an entry of {column} is empty"):
        ShardTable(tmp_path / "index.arrows")


def test_a_table_names_its_own_file_alone(folder):
    facts = json.loads((folder / INDEX_NAME).read_text())
    facts["table"]["name"] = "../index.arrows"
    (folder / INDEX_NAME).write_text(json.dumps(facts))
    with pytest.raises(DamagedShard, match=r"not a valid shard index"):
        ShardReader(str(folder))
