"""Shards in a bucket: fetched whole, checked, kept within a bound, retried, and described without secrets."""

from __future__ import annotations

import fcntl
import os
import re
import time
from itertools import islice

import boto3
import pytest
import torch
from moto_s3 import moto_s3

from spfem_dist import backoff, storage
from spfem_dist.config import Data, Storage
from spfem_dist.errors import UnreachableStorage
from spfem_dist.shard_format import DamagedShard
from spfem_dist.storage import set_retry_policy
from spfem_dist.streaming.loader import Loader
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.streaming.store import MissingShard, RemoteStore
from spfem_dist.streaming.views import CONTENT

SECRET = "very-secret-key-0123456789"
URL = "s3://faces/mead"


@pytest.fixture(scope="module")
def server():
    with moto_s3() as address:
        yield address


@pytest.fixture
def bucket(server, small, monkeypatch):
    """The small shards in a bucket, and the standard variables that lead to it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(backoff, "FIRST", 0.01)
    monkeypatch.setattr(storage, "_policy", storage.patience())
    client = boto3.client("s3")
    client.create_bucket(Bucket="faces")
    for path in small.root.iterdir():
        if not path.name.startswith("."):
            client.upload_file(str(path), "faces", f"mead/{path.name}")
    yield client
    for entry in client.list_objects_v2(Bucket="faces").get("Contents", []):
        client.delete_object(Bucket="faces", Key=entry["Key"])
    client.delete_bucket(Bucket="faces")


def remote(tmp_path, **changes) -> ShardReader:
    return ShardReader(URL, cache=str(tmp_path / "cache"), **changes)


class Flaky:
    """A file system whose reads fail or come short a given number of times."""

    def __init__(self, fs, failures):
        self.fs, self.failures, self.calls = fs, list(failures), 0

    def _next(self):
        self.calls += 1
        return self.failures.pop(0) if self.failures else None

    def get_file(self, source, target):
        failure = self._next()
        if isinstance(failure, Exception):
            raise failure
        self.fs.get_file(source, target)
        if failure == "short":
            os.truncate(target, os.path.getsize(target) // 2)
        if failure == "altered":
            with open(target, "r+b") as file:
                file.write(b"\xff")

    def cat_file(self, path, start=None, end=None):
        failure = self._next()
        if isinstance(failure, Exception):
            raise failure
        content = self.fs.cat_file(path, start=start, end=end)
        return content[:-1] if failure == "short" else content


def test_batches_from_a_bucket_equal_those_from_a_folder(bucket, small, tmp_path):
    found = []
    for shards in (str(small.root), URL):
        data = Data(**small.data().model_dump() | {"shards": shards, "cache": str(tmp_path / "cache")})
        with Loader(data, CONTENT, 0, 0, 1, 6) as loader:
            found.append([batch for batch, _ in islice(loader, 3)])
    for local, fetched in zip(*found, strict=True):
        assert local.keys == fetched.keys
        assert torch.equal(local.frames, fetched.frames)
        assert torch.equal(local.speech, fetched.speech)


def test_each_shard_is_fetched_once(bucket, tmp_path):
    first, second = remote(tmp_path), remote(tmp_path)
    for group in (0, 1, 0):
        assert first.read(3, group).key == second.read(3, group).key
    assert first.store.fetched == ["shard-000003.tar"]
    assert second.store.fetched == []


def test_the_next_blocks_shards_are_fetched_ahead(bucket, small, tmp_path):
    data = Data(**small.data(prefetch=1).model_dump() | {"shards": URL, "cache": str(tmp_path / "cache")})
    with Loader(data, CONTENT, 0, 0, 1, 2, block=2) as loader:
        order, entries = loader.order, loader.reader.index.shards
        wanted = {entries[s].name for s in order.block_of(0) + order.shards_after(0)}
        next(iter(loader))
        deadline = time.perf_counter() + 10
        while set(loader.reader.store.fetched) != wanted and time.perf_counter() < deadline:
            time.sleep(0.05)
        assert set(loader.reader.store.fetched) == wanted


def test_the_folder_stays_within_its_bound(bucket, small, tmp_path):
    reader = remote(tmp_path)
    sizes = [shard.bytes for shard in reader.index.shards]
    reader.store.limit = sum(sizes[:3])
    for shard in (0, 1, 2, 0, 3):  # 0 was used last but one, so 1 goes
        reader.read(shard, 0)
        time.sleep(0.02)
        kept = list((tmp_path / "cache").rglob("*.tar"))
        assert sum(path.stat().st_size for path in kept) <= reader.store.limit
    assert {path.name.split("-", 1)[1] for path in kept} >= {"shard-000000.tar", "shard-000003.tar"}
    assert "shard-000001.tar" not in {path.name.split("-", 1)[1] for path in kept}


def test_what_killed_fetches_left_goes_and_what_others_fetch_stays(bucket, tmp_path):
    reader = remote(tmp_path)
    reader.read(0, 0)
    folder = next((tmp_path / "cache").iterdir())
    killed = folder / ".0123456789abcdef-shard-000001.tar.4194305.part"
    fetched = folder / ".0123456789abcdef-shard-000002.tar.4194305.part"
    for part in (killed, fetched):
        part.write_bytes(b"half of it")
    with open(folder / ".shard-000002.tar.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reader.read(3, 0)
        assert not killed.exists()
        assert fetched.exists()
    reader.read(1, 0)
    assert [path for path in folder.iterdir() if path.suffix == ".part"] == []


def test_shards_beyond_the_bound_are_read_by_ranges(bucket, tmp_path):
    reader = remote(tmp_path, cache_mb=0)
    assert reader.read(0, 1).key == "S00_001"
    assert not list(tmp_path.rglob("*.tar"))


def test_failed_short_and_altered_reads_are_tried_again(bucket, tmp_path, caplog):
    reader = remote(tmp_path, retries=5)
    reader.store.fs = flaky = Flaky(
        reader.store.fs, [OSError(5, "503 Slow Down"), "short", "altered", TimeoutError("late")]
    )
    assert reader.read(0, 0).key == "S00_000"
    assert flaky.calls == 5
    assert "attempt 1 of 5" in caplog.text
    assert [path.name for path in tmp_path.rglob("*.part")] == []


def test_the_server_itself_answering_503_is_tried_again(bucket, tmp_path, monkeypatch):
    from moto.s3.responses import S3Response

    answers = iter([503, 503])
    real = S3Response.key_response.__func__ if hasattr(S3Response.key_response, "__func__") else S3Response.key_response

    def failing(self, *arguments, **options):
        status = next(answers, None)
        return (status, {}, "<Error><Code>SlowDown</Code></Error>") if status else real(self, *arguments, **options)

    reader = remote(tmp_path, retries=4)
    monkeypatch.setattr(S3Response, "key_response", failing)
    assert reader.read(1, 0).key == "S00_002"
    assert next(answers, None) is None


def test_after_the_last_attempt_the_error_names_the_shard_and_the_fix(bucket, tmp_path):
    reader = remote(tmp_path, retries=3)
    reader.store.fs = flaky = Flaky(reader.store.fs, [OSError(5, f"no route, key {SECRET}")] * 9)
    with pytest.raises(
        UnreachableStorage, match=r"shard-000000\.tar could not be read in 3 attempts.*data\.retries"
    ) as caught:
        reader.read(0, 0)
    assert flaky.calls == 3
    assert SECRET not in str(caught.value)


def test_a_shard_that_always_arrives_altered_is_damaged_and_not_kept(bucket, tmp_path):
    bucket.put_object(Bucket="faces", Key="mead/shard-000004.tar", Body=b"something else")
    reader = remote(tmp_path, retries=2)
    for _ in range(2):
        with pytest.raises(DamagedShard, match=r"shard-000004\.tar: 14 bytes arrived of \d+ in each of 2 attempts"):
            reader.read(4, 0)
    assert not list(tmp_path.rglob("*.tar"))
    assert reader.read(3, 0).key


def test_a_missing_shard_names_shard_bucket_and_fix_at_once(bucket, tmp_path):
    bucket.delete_object(Bucket="faces", Key="mead/shard-000002.tar")
    began = time.perf_counter()
    with pytest.raises(
        MissingShard, match=r"shard-000002\.tar is missing: bucket faces has no s3://faces/mead/.*Upload it again"
    ):
        remote(tmp_path).read(2, 0)
    assert time.perf_counter() - began < 5


def test_a_missing_index_and_a_missing_bucket_are_named(bucket, tmp_path):
    for url in ("s3://faces/nothing", "s3://no-such-bucket/mead"):
        with pytest.raises(MissingShard, match=r"index\.json is missing: bucket .* data\.shards"):
            ShardReader(url, cache=str(tmp_path), retries=2)


def test_an_unreachable_endpoint_is_named(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    set_retry_policy(Storage(patience_s=1))
    with pytest.raises(
        UnreachableStorage, match=r"index\.json could not be read: .* failed for \d s .*AWS_ENDPOINT_URL"
    ) as caught:
        remote(tmp_path, retries=2)
    assert SECRET not in str(caught.value)


def test_refused_credentials_are_not_tried_again(bucket, tmp_path):
    store = RemoteStore(URL, str(tmp_path), retries=5)
    store.fs = flaky = Flaky(store.fs, [PermissionError("Access Denied")])
    with pytest.raises(UnreachableStorage, match=r"bucket faces refuses .*AWS_ACCESS_KEY_ID"):
        store.index()
    assert flaky.calls == 1


def test_on_a_full_disk_shards_are_read_piece_by_piece(bucket, tmp_path, caplog):
    import errno

    reader = remote(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    reader.store.fs = flaky = Flaky(reader.store.fs, [full, full])
    assert reader.read(0, 1).key == "S00_001"
    assert not list(tmp_path.rglob("*.tar"))
    assert re.search(r"no room for shard-000000\.tar in the cache folder .*data\.cache_mb", caplog.text)
    reader.store._full_until = 0.0
    assert reader.read(0, 0).key == "S00_000"
    assert list(tmp_path.rglob("*.tar")), "there is room again"
    assert flaky.calls == 4
