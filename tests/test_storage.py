"""Storage through the one door: whatever passes is waited for, what does not is said, and bytes are never other bytes."""

from __future__ import annotations

import json
import os
import pickle
import time

import boto3
import pyarrow.fs
import pytest
from faulty_s3 import KINDS, FaultyS3
from moto_s3 import moto_s3

from spfem_dist import backoff, s3, storage
from spfem_dist.config import Storage
from spfem_dist.errors import RefusedStorage, UnreachableStorage
from spfem_dist.s3 import PatientS3
from spfem_dist.storage import open_filesystem, set_retry_policy

SECRET = "a-secret-that-no-message-holds"


@pytest.fixture(scope="module")
def upstream():
    with moto_s3() as address:
        yield address


@pytest.fixture
def server(upstream, monkeypatch):
    """A server that fails as the test says, and the variables that lead to it."""
    faulty = FaultyS3(upstream, seconds=0.1).start()
    for name, value in {
        "AWS_ENDPOINT_URL": faulty.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(backoff, "FIRST", 0.01)
    monkeypatch.setattr(backoff, "LONGEST", 0.05)
    monkeypatch.setattr(storage, "_policy", Storage(patience_s=20, timeout_s=5))
    boto3.client("s3").create_bucket(Bucket="runs")
    yield faulty
    faulty.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_fault_is_outlived(server, tmp_path, kind):
    fs, root = open_filesystem("s3://runs/each/")
    content = os.urandom(200_000)
    (tmp_path / "sent").write_bytes(content)
    server.share, server.kinds = 0.5, (kind,)
    for attempt in range(2):
        path = f"{root}/{kind}-{attempt}"
        fs.put_file(str(tmp_path / "sent"), path)
        assert fs.exists(path)
        assert fs.cat_file(path) == content
        assert fs.cat_file(path, start=70_000, end=130_000) == content[70_000:130_000]
        assert fs.cat_file(path, start=-1000) == content[-1000:]
        fs.get_file(path, str(tmp_path / "came"))
        assert (tmp_path / "came").read_bytes() == content
        with fs.open(path, "rb") as file:
            assert file.read() == content
        fs.rm(path)
        assert not fs.exists(path)
    assert server.faults["all"] > 2


def test_parts_of_a_large_upload_survive_lost_answers(server):
    """The last request may be carried out and its answer lost: the upload it names is gone then, and the object is there."""
    fs, root = open_filesystem("s3://runs/parts")
    content = os.urandom(3 * 5 * 2**20)
    server.share, server.kinds = 0.4, ("lost", "busy")
    for attempt in range(4):
        with fs.open(f"{root}/{attempt}", "wb", block_size=5 * 2**20) as file:
            file.write(content)
    server.share = 0.0
    for attempt in range(4):
        assert fs.cat_file(f"{root}/{attempt}") == content
    assert server.faults["lost"] > 2


def test_what_is_not_there_is_said_at_once(server):
    fs, root = open_filesystem("s3://runs/nothing")
    began = time.perf_counter()
    with pytest.raises(FileNotFoundError):
        fs.cat_file(f"{root}/here")
    assert not fs.exists(f"{root}/here")
    with pytest.raises(FileNotFoundError):
        fs.ls(root)
    assert time.perf_counter() - began < 10
    assert server.requests["GET"] < 5


def test_when_patience_ends_the_error_names_place_reason_and_fix(server):
    set_retry_policy(Storage(patience_s=1.0))
    fs, root = open_filesystem("s3://runs/away")
    server.share, server.kinds = 1.0, ("busy",)
    with pytest.raises(
        UnreachableStorage,
        match=r"put object of s3://runs/away/it failed for \d s \(\d+ attempts; last: .*SlowDown.*patience",
    ) as caught:
        fs.pipe_file(f"{root}/it", b"1")
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value, OSError)


def test_a_wait_is_announced(server, monkeypatch, caplog):
    monkeypatch.setattr(s3, "SAY_AFTER", 0.2)
    set_retry_policy(Storage(patience_s=1.5))
    fs, root = open_filesystem("s3://runs/away")
    assert not fs.exists(f"{root}/it")  # making the client can take a second
    server.down = True
    with pytest.raises(UnreachableStorage):
        fs.exists(f"{root}/it")
    assert "head object of s3://runs/away/it fails" in caplog.text
    assert SECRET not in caplog.text


def test_refused_credentials_are_not_tried_again(server, monkeypatch):
    fs, root = open_filesystem("s3://runs/refused")
    calls = []

    async def refuse(self, method, *_options, **_request):
        calls.append(method)
        raise s3.aws.ClientError(
            {
                "Error": {"Code": "AccessDenied", "Message": f"not {SECRET}"},
                "ResponseMetadata": {"HTTPStatusCode": 403},
            },
            method,
        )

    monkeypatch.setattr(PatientS3, "_request", refuse)
    with pytest.raises(
        RefusedStorage, match=r"refuses get object of s3://runs/refused/it .*AWS_ACCESS_KEY_ID"
    ) as caught:
        fs.cat_file(f"{root}/it", start=0, end=1)
    assert calls == ["get_object"]
    assert SECRET not in str(caught.value)


def test_missing_credentials_are_named(server, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    fs, root = open_filesystem("s3://runs/none")
    with pytest.raises(RefusedStorage, match="AWS_ACCESS_KEY_ID"):
        fs.cat_file(f"{root}/it")


def test_ray_trains_own_copies_are_as_patient(server, tmp_path):
    """Ray Train copies checkpoints through Arrow, in processes to which the file system was pickled."""
    set_retry_policy(Storage(patience_s=17))
    fs = pickle.loads(pickle.dumps(open_filesystem("s3://runs")[0]))
    assert fs.patience_s == 17
    arrow = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs))
    (tmp_path / "sent").mkdir()
    (tmp_path / "back").mkdir()
    for number in range(6):
        (tmp_path / "sent" / f"part{number}").write_bytes(os.urandom(50_000))
    server.share = 0.4
    pyarrow.fs.copy_files(str(tmp_path / "sent"), "runs/arrow", destination_filesystem=arrow)
    pyarrow.fs.copy_files("runs/arrow", str(tmp_path / "back"), source_filesystem=arrow)
    for file in (tmp_path / "back").iterdir():
        assert file.read_bytes() == (tmp_path / "sent" / file.name).read_bytes()
    assert len(list((tmp_path / "back").iterdir())) == 6
    assert server.faults["all"] > 5


def test_an_upload_that_failed_is_no_upload(server, tmp_path):
    set_retry_policy(Storage(patience_s=0.3))
    fs, root = open_filesystem("s3://runs/failing")
    (tmp_path / "part").write_bytes(b"1")
    server.share, server.kinds = 1.0, ("busy",)
    with pytest.raises(UnreachableStorage, match="put object of s3://runs/failing/part failed"):
        fs.put_file(str(tmp_path / "part"), f"{root}/part")
    with pytest.raises(UnreachableStorage), fs.open(f"{root}/file", "w") as file:
        file.write("1")


def test_what_another_process_wrote_is_seen(server):
    fs, root = open_filesystem("s3://runs/shared")
    fs.pipe_file(f"{root}/one", b"1")
    assert len(fs.ls(root)) == 1
    boto3.client("s3").put_object(Bucket="runs", Key="shared/two", Body=b"2")
    assert len(fs.ls(root)) == 2


def test_a_local_folder_needs_no_s3(tmp_path):
    fs, root = open_filesystem(f"{tmp_path}/")
    fs.pipe_file(f"{root}/file", json.dumps({}).encode())
    assert root == str(tmp_path)
