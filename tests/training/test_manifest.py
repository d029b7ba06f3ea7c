"""A checkpoint counts when every worker's manifest is there, and its bytes are what the manifests say."""

import json

import fsspec
import pytest

from spfem_dist.errors import UnreachableStorage
from spfem_dist.planning.imagined_s3 import imagined
from spfem_dist.training.manifest import (
    CheckpointStore,
    DamagedCheckpoint,
    checkpoint_name,
    committed,
    fetched,
    manifest_name,
)

NAME = checkpoint_name(6)


def part(folder, rank, **files):
    """A worker's local files."""
    mine = folder / f"local-{rank}"
    for name, text in (files or {f"net/shard_{rank}": f"of worker {rank}"}).items():
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(text)
    return mine


@pytest.fixture(params=["disk", "memory"])
def location(request, tmp_path):
    """On disk, where a checkpoint is read in place, and elsewhere, from where it is fetched."""
    place = tmp_path / "storage" if request.param == "disk" else f"memory://{tmp_path.name}"
    yield str(place)
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def written(location, tmp_path):
    """A whole checkpoint of two workers."""
    for rank in (0, 1):
        CheckpointStore(location).put(part(tmp_path, rank), NAME, rank, 2, {"attempt": "a"})
    return location


def rewrite(location, name, text):
    fs, root = fsspec.core.url_to_fs(location)
    fs.pipe_file(f"{root}/{NAME}/{name}", text.encode())


def test_a_checkpoint_is_committed_by_the_last_manifest_whoever_writes_it(location, tmp_path):
    store = CheckpointStore(location)
    assert committed(location) == []
    store.put(part(tmp_path, 1), NAME, 1, 2, {})
    assert committed(location) == []
    assert store.standing(NAME) == "incomplete"
    store.put(part(tmp_path, 0), NAME, 0, 2, {})
    assert committed(location) == [NAME]


def test_a_cut_manifest_commits_nothing_and_is_known_from_one_that_never_came(written):
    rewrite(written, manifest_name(0), '{"world": 2, "fil')
    assert committed(written) == []
    assert CheckpointStore(written).standing(NAME) == "damaged"


def test_a_checkpoint_set_aside_is_whole_and_no_run_looks_for_it(written):
    store = CheckpointStore(written)
    assert store.set_aside(NAME) == f"set-aside_{NAME}"
    assert store.names() == []
    assert set(store.files(f"set-aside_{NAME}")) >= {"net/shard_0", "net/shard_1", manifest_name(0)}


def test_a_worker_reads_its_own_files_and_no_others(written):
    with fetched(f"{written}/{NAME}", ["*shard_1"], {0, 1}) as folder:
        assert (folder / "net" / "shard_1").read_text() == "of worker 1"
        if written.startswith("memory"):
            assert [file.name for file in folder.rglob("*") if file.is_file()] == ["shard_1"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [("net/shard_1", "of worker I", "is altered"), ("net/shard_1", "of", "has 2 bytes of 11")],
)
def test_other_bytes_are_noticed_and_the_file_is_named(name, text, said, written):
    rewrite(written, name, text)
    with pytest.raises(DamagedCheckpoint, match=rf"{name} {said}"), fetched(f"{written}/{NAME}"):
        pass


def test_bytes_that_nobody_asked_for_are_not_read(written):
    rewrite(written, "net/shard_1", "x")
    with fetched(f"{written}/{NAME}", ["*shard_0"], {0}) as folder:
        assert (folder / "net" / "shard_0").exists()


def test_many_workers_ask_no_more_for_each_of_them(tmp_path, monkeypatch):
    def asked(workers):
        with imagined() as s3:
            store = CheckpointStore("s3://bucket/run")
            put = []
            for rank in range(workers):
                s3.rounds = []
                store.put(part(tmp_path, rank), NAME, rank, workers, {"attempt": "a"})
                put.append(sum(map(len, s3.rounds)))
            s3.rounds = []
            with fetched(f"s3://bucket/run/{NAME}") as folder:
                assert {file.name for file in folder.rglob("shard_*")} == {f"shard_{rank}" for rank in range(workers)}
            return max(put), len(s3.rounds)

    monkeypatch.setattr("spfem_dist.training.manifest._LISTED", 8)
    few, many = asked(3), asked(12)
    assert many == few  # requests of one worker's part, and rounds of requests, one after the other, to read all parts


def test_a_manifest_that_is_missing_among_many_is_named(tmp_path):
    with imagined() as s3:
        for rank in range(3):
            CheckpointStore("s3://bucket/run").put(part(tmp_path, rank), NAME, rank, 3, {"attempt": "a"})
        s3.objects.pop(f"run/{NAME}/{manifest_name(1)}")
        with (
            pytest.raises(DamagedCheckpoint, match=r"manifest_rank_1\.json is missing"),
            fetched(f"s3://bucket/run/{NAME}"),
        ):
            pass


def test_parts_of_two_attempts_are_no_checkpoint(written):
    fs, root = fsspec.core.url_to_fs(written)
    other = json.loads(fs.cat_file(f"{root}/{NAME}/{manifest_name(1)}")) | {"attempt": "b"}
    rewrite(written, manifest_name(1), json.dumps(other))
    with pytest.raises(DamagedCheckpoint, match="another attempt"), fetched(f"{written}/{NAME}"):
        pass


def test_a_storage_that_fails_for_a_while_is_waited_for(location, tmp_path, monkeypatch):
    store, failures = CheckpointStore(location), iter([OSError("reset"), TimeoutError("slow")])
    put = store.fs.put_file

    def flaky(*arguments, **options):
        if (error := next(failures, None)) is not None:
            raise error
        return put(*arguments, **options)

    monkeypatch.setattr(store.fs, "put_file", flaky)
    store.put(part(tmp_path, 0), NAME, 0, 1, {})
    assert committed(location) == [NAME]


def test_a_storage_that_goes_on_failing_is_named_with_the_fix(location, tmp_path, monkeypatch):
    store = CheckpointStore(location)
    store.patience_s = 0.1

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.fs, "put_file", full)
    with pytest.raises(UnreachableStorage, match=rf"{NAME}/net/shard_0 failed .* free some space"):
        store.put(part(tmp_path, 0), NAME, 0, 1, {})
    assert committed(location) == []
