"""One process at a time works on a run, and one that was taken for dead does no harm."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import moto.s3.responses
import pytest
from moto_s3 import moto_s3
from s3fs import S3FileSystem
from test_checkpoint import World, found, save

from spfem_dist.training import lock as module
from spfem_dist.training.lock import RunConflict, RunLock
from spfem_dist.training.manifest import checkpoint_name, committed

STARTS = 200


@pytest.fixture
def s3(monkeypatch, tmp_path):
    """A bucket. S3 decides on If-None-Match and writes at once; moto's server looks, and then writes, in as many threads as ask it."""
    put, one = moto.s3.responses.S3Response.put_object, threading.Lock()

    def at_once(*arguments):
        with one:
            return put(*arguments)

    monkeypatch.setattr(moto.s3.responses.S3Response, "put_object", at_once)
    with moto_s3() as address:
        for name, value in (("ENDPOINT_URL_S3", address), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(f"AWS_{name}", value)
        with suppress(FileExistsError):
            S3FileSystem(endpoint_url=address).mkdir("bucket")
        yield f"s3://bucket/{tmp_path.name}"


@pytest.fixture(params=["folder", "S3"])
def location(request, tmp_path):
    return str(tmp_path / "run") if request.param == "folder" else request.getfixturevalue("s3")


@pytest.fixture
def quick(monkeypatch):
    """Hearts that beat fast."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(module, "STALE_AFTER_S", 1.0)


def try_to_hold(location, meet, over, holders, refusals):
    meet.wait()
    try:
        with RunLock(location).held() as number:
            holders.append(number)
            over.wait()
    except RunConflict as error:
        refusals.append(str(error))
        over.wait()


def starts_at_once(location, threads=STARTS):
    """Numbers of those who hold the run, and what the others were told, when so many start at the same moment."""
    meet, over, holders, refusals = threading.Barrier(threads), threading.Barrier(threads), [], []
    crowd = [
        threading.Thread(target=try_to_hold, args=(location, meet, over, holders, refusals)) for _ in range(threads)
    ]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(120)
    return holders, refusals


def test_of_two_hundred_simultaneous_starts_exactly_one_holds_the_run_each_time(location):
    for round_ in range(1, 4 if "://" not in location else 2):
        holders, refusals = starts_at_once(location)
        assert holders == [round_], "numbers grow, also over a holder that let go"
        assert len(refusals) == STARTS - 1
    assert RunLock(location).holder() == {}


@pytest.mark.parametrize("location", ["folder", pytest.param("S3", marks=pytest.mark.nightly)], indirect=True)
def test_exactly_one_of_two_hundred_takes_the_place_of_a_dead_process(location):
    leave_dead(location)
    holders, refusals = starts_at_once(location)
    assert holders == [2]
    assert len(refusals) == STARTS - 1


#: Forks so many processes that all try for the run at once; prints the number of those that hold it, and of those that are refused.
FORKS = """
import os, sys, time
from spfem_dist.training.lock import RunConflict, RunLock
import spfem_dist.s3

location, starts = sys.argv[1], int(sys.argv[2])
began, (answers, answer) = time.monotonic() + 3, os.pipe()
for _ in range(starts):
    if os.fork() == 0:
        time.sleep(max(0, began - time.monotonic()))
        try:
            with RunLock(location).held():
                os.write(answer, b"h")
                time.sleep(600)  # ended by the parent
        except RunConflict:
            os.write(answer, b"r")
        except BaseException as error:
            os.write(answer, b"x")
            print(error, file=sys.stderr, flush=True)
        os._exit(0)
told = b""
while len(told) < starts:
    told += os.read(answers, starts)
print(told.count(b"h"), told.count(b"r"), flush=True)
os.killpg(0, 9)
"""


@pytest.mark.parametrize(
    ("location", "starts"),
    [("folder", STARTS), pytest.param("S3", 20, marks=pytest.mark.nightly)],
    indirect=["location"],
)
def test_of_as_many_processes_exactly_one_holds_the_run(location, starts):
    """On S3 each has a client of its own, of which 200 are more than two cores can start together."""
    line = [sys.executable, "-c", FORKS, location, str(starts)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, start_new_session=True)
    assert done.stdout == f"1 {starts - 1}\n", done.stderr[-2000:]


def leave_dead(location, **changes):
    """A lock as a process left it that was killed."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with RunLock(location).held() as number:
        lock = RunLock(location)
        kept = lock.holder()
    lock._write(number, kept | {"pid": gone.pid, "token": "of a process that was killed"} | changes)


def test_a_living_holder_is_named(tmp_path):
    with RunLock(str(tmp_path)).held(), pytest.raises(RunConflict, match=f"process {os.getpid()} on .* since"):
        RunLock(str(tmp_path)).held().__enter__()


def test_a_process_that_is_dead_and_not_yet_buried_holds_nothing(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{gone.pid}/stat").read_text().rsplit(")", 1)[-1].split()[0] != "Z":
        time.sleep(0.05)
    leave_dead(str(tmp_path), pid=gone.pid)
    with RunLock(str(tmp_path)).held() as number:
        assert number == 2
    gone.wait()


@pytest.mark.parametrize("clock", [0, 10**10])
def test_the_heart_of_another_host_is_watched_whatever_its_clock_says(clock, tmp_path, quick, monkeypatch):
    """It used to be compared with this host's own time."""
    monkeypatch.setattr(time, "time", lambda: clock)
    leave_dead(str(tmp_path), host="elsewhere")
    path = tmp_path / "lock" / "000001.json"
    held, stop = json.loads(path.read_text()), threading.Event()

    def beat():
        for beats in range(10**6):
            if stop.wait(0.1):
                return
            RunLock(str(tmp_path))._write(1, held | {"beats": beats})

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(RunConflict, match="on elsewhere"):
            RunLock(str(tmp_path)).held().__enter__()
    finally:
        stop.set()
        heart.join()
    began = time.monotonic()
    with RunLock(str(tmp_path)).held() as number:
        assert number == 2, "it stands still now"
    assert time.monotonic() - began >= module.STALE_AFTER_S


def test_another_container_of_the_same_hosts_name_is_watched_too(tmp_path, quick):
    """Its processes have numbers of their own, so that looking for one here says nothing."""
    leave_dead(str(tmp_path), namespace="pid:[1]")
    began = time.monotonic()
    with RunLock(str(tmp_path)).held():
        assert time.monotonic() - began >= module.STALE_AFTER_S


def test_an_empty_lock_is_one_whose_holder_died(tmp_path, quick):
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "000001.json").touch()
    with RunLock(str(tmp_path)).held() as number:
        assert number == 2


def test_a_heart_goes_on_beating_after_a_beat_that_failed(tmp_path, quick, monkeypatch):
    write, failures = RunLock._write, iter([OSError("the disk is full"), ValueError("and another")])

    def failing(lock, number, content):
        if content["beats"] >= 2 and (error := next(failures, None)):
            raise error
        write(lock, number, content)

    monkeypatch.setattr(RunLock, "_write", failing)
    with RunLock(str(tmp_path)).held():
        until = time.monotonic() + 30
        while RunLock(str(tmp_path)).holder().get("beats", 0) < 4 and time.monotonic() < until:
            time.sleep(0.05)
        assert RunLock(str(tmp_path)).holder()["beats"] >= 4
    assert next(failures, None) is None


def test_a_holder_that_lost_the_run_commits_and_removes_nothing(tmp_path):
    world = World(tmp_path / "run" / "job")
    with RunLock(str(tmp_path / "run")).held() as world.holder:
        save(world, 3, 6, keep=2)
        manifest = json.loads((tmp_path / "run" / "job" / checkpoint_name(6) / "manifest_rank_0.json").read_text())
        assert manifest["holder"] == 1
        (tmp_path / "run" / "lock" / "000002.json").write_text("{}")  # somebody took it for dead
        with pytest.raises(RunConflict, match="was taken over by another process"):
            save(world, 9, keep=1)
        assert committed(world.storage) == [checkpoint_name(3), checkpoint_name(6)]
        (tmp_path / "run" / "job" / checkpoint_name(6) / "manifest_rank_0.json").unlink()
        with pytest.raises(RunConflict, match="commits and removes nothing"):
            found(world)
        assert (tmp_path / "run" / "job" / checkpoint_name(6)).is_dir()
