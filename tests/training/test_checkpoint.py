"""Checkpoints are uploaded behind the steps, the newest sound one is gone on from, and the right ones are kept."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from moto_s3 import moto_s3
from s3fs import S3FileSystem

from spfem_dist.config import Checkpoint
from spfem_dist.errors import UnreachableStorage
from spfem_dist.s3 import PatientS3
from spfem_dist.training.checkpoint import CheckpointError, Progress, Saver, kept, newest
from spfem_dist.training.manifest import CheckpointStore, checkpoint_name, committed
from spfem_dist.training.scratch import scratch, sweep
from spfem_dist.training.world import PlainWorld


class Engine:
    """Stands in for DeepSpeed's: it writes one file."""

    def zero_optimization_stage(self):
        return 0

    def save_checkpoint(self, folder, tag, save_latest):
        os.makedirs(f"{folder}/{tag}")
        with open(f"{folder}/{tag}/mp_rank_00_model_states.pt", "w") as file:
            file.write(f"weights of {tag}")


class World(PlainWorld):
    """A process alone; keeps what it says."""

    def __init__(self, storage):
        super().__init__(str(storage))
        self.said = []

    def say(self, line):
        self.said.append(line)


def save(world, *steps, scores=(), **settings):
    """Checkpoints after these steps; scores: val/loss at each."""
    progress = Progress()
    with Saver(world, Checkpoint(**settings)) as saver:
        for number, step in enumerate(steps):
            progress.step = progress.samples = step
            if scores:
                progress.history.append({"step": step, "samples": step, "values": {"val/loss": scores[number]}})
            saver.save({"net": Engine()}, progress)
    return saver


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "job")


def found(world, anew=False):
    with newest(world, (), 0, anew) as checkpoint:
        return checkpoint and checkpoint.location.rsplit("_", 1)[-1].lstrip("0")


def test_the_newest_is_gone_on_from(world):
    assert found(world) is None
    save(world, 3, 6)
    assert found(world) == "6"
    assert world.said == []


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_is_used(world):
    save(world, 3, 6)
    with open(f"{world.storage}/{checkpoint_name(6)}/net/mp_rank_00_model_states.pt", "a") as file:
        file.write("x")
    assert found(world) == "3"
    assert "checkpoint_000000006 is damaged (worker 0: net/mp_rank_00_model_states.pt has" in world.said[0]
    assert committed(world.storage) == [checkpoint_name(3)], "what comes after the one in use is written again"
    assert aside(world) == [f"set-aside_{checkpoint_name(6)}"]


def test_what_a_killed_worker_left_is_removed(world):
    save(world, 3, 6)
    os.rename(f"{world.storage}/{checkpoint_name(6)}", f"{world.storage}/{checkpoint_name(9)}")
    os.remove(f"{world.storage}/{checkpoint_name(9)}/manifest_rank_0.json")
    assert found(world) == "3"
    assert CheckpointStore(world.storage).names() == [checkpoint_name(3)]
    assert "incomplete" in world.said[0]


def hurt(world, step, how):
    """Damage the first manifest of a checkpoint that was whole."""
    manifest = f"{world.storage}/{checkpoint_name(step)}/manifest_rank_0.json"
    if how == "gone":
        os.remove(manifest)
    else:
        os.truncate(manifest, 20)


def aside(world):
    return sorted(name for name in os.listdir(world.storage) if name.startswith("set-aside"))


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_one_whose_manifest_is_damaged_is_set_aside_and_never_removed(how, world):
    save(world, 3, 6)
    hurt(world, 6, how)
    assert found(world) == "3"
    assert aside(world) == [f"set-aside_{checkpoint_name(6)}"]
    assert os.path.exists(f"{world.storage}/{aside(world)[0]}/net/mp_rank_00_model_states.pt")
    assert "was set aside as set-aside_checkpoint_000000006" in " ".join(world.said)
    world.said.clear()
    assert found(world) == "3"
    assert world.said == [], "it is said once"


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_the_only_one_keeps_the_run_from_beginning_anew_unless_asked(how, world):
    save(world, 3)
    hurt(world, 3, how)
    with pytest.raises(CheckpointError, match=r"Nothing was removed.*--checkpoint.begin-anew True"):
        found(world)
    assert CheckpointStore(world.storage).names() == [checkpoint_name(3)]
    assert found(world, anew=True) is None
    assert aside(world) == [f"set-aside_{checkpoint_name(3)}"]
    assert found(world) is None, "the run has begun anew"


def test_checkpoints_that_vanished_are_missed(world):
    save(world, 3, 6)
    for step in (3, 6):
        shutil.rmtree(f"{world.storage}/{checkpoint_name(step)}")
    with pytest.raises(CheckpointError, match="had checkpoint_000000006, of step 6, and has no checkpoint any more"):
        found(world)
    assert found(world, anew=True) is None
    save(world, 4)
    assert found(world) == "4"


def test_where_the_last_one_vanished_the_one_before_it_is_used_and_that_is_said(world):
    save(world, 3, 6)
    shutil.rmtree(f"{world.storage}/{checkpoint_name(6)}")
    assert found(world) == "3"
    assert "checkpoint_000000006 was the last checkpoint, and is no longer whole" in world.said[0]


def test_where_every_checkpoint_is_damaged_nothing_is_removed_and_the_run_does_not_begin_anew(world):
    save(world, 3, 6)
    for step in (3, 6):
        os.remove(f"{world.storage}/{checkpoint_name(step)}/state.json")
    with pytest.raises(CheckpointError, match=r"state.json is missing.*Nothing was removed"):
        found(world)
    assert len(committed(world.storage)) == 2
    assert found(world, anew=True) is None
    assert len(aside(world)) == 2


def test_a_slow_upload_does_not_hold_the_steps_and_the_next_save_waits_for_it(world, monkeypatch):
    events, let_go = [], threading.Event()
    put = CheckpointStore.put

    def slow(store, folder, name, *rest):
        assert let_go.wait(60)
        put(store, folder, name, *rest)
        events.append(f"uploaded {name[-1]}")

    monkeypatch.setattr(CheckpointStore, "put", slow)
    with Saver(world, Checkpoint()) as saver:
        saver.save({"net": Engine()}, Progress(step=3))
        events.append("step 4")
        assert committed(world.storage) == []
        threading.Timer(0.2, let_go.set).start()
        saver.save({"net": Engine()}, Progress(step=6))
        events.append("step 7")
    assert events[:2] == ["step 4", "uploaded 3"]
    assert sorted(events[2:]) == ["step 7", "uploaded 6"]
    figures, _ = saver.take_figures()[0]
    assert figures["checkpoint_mb"] > 0
    assert figures["checkpoint_upload_s"] > 0


def test_an_upload_that_failed_is_told_by_the_next_save(world, monkeypatch):
    def refused(*_arguments):
        raise UnreachableStorage("writing s3://bucket/x is refused")

    monkeypatch.setattr(CheckpointStore, "put", refused)
    saver = Saver(world, Checkpoint())
    saver.save({"net": Engine()}, Progress(step=3))
    with pytest.raises(UnreachableStorage, match="is refused"):
        saver.save({"net": Engine()}, Progress(step=6))


def test_files_of_another_worker_that_never_come_are_named(world):
    world.size, alone = 2, Saver.__new__(Saver)
    alone.__dict__ |= {"world": world, "settings": Checkpoint(), "store": CheckpointStore(world.storage)}
    alone.__dict__ |= {"attempt": "a", "uploaded": [], "_alone": threading.Event(), "_failure": None}
    alone.store.patience_s = 0.1
    with scratch("test") as folder:
        (folder / "state.json").write_text("{}")
        alone.store.put(folder, checkpoint_name(3), 0, 2, {})
    with pytest.raises(UnreachableStorage, match="the files of workers 1 did not arrive"):
        alone._committed(checkpoint_name(3))


def test_on_s3_a_checkpoint_takes_few_requests_and_its_files_go_side_by_side(monkeypatch):
    """A far store answers after a tenth of a second, and a checkpoint must be there before the next one."""
    asked, under_way, most = [], 0, 0
    request = PatientS3._request

    async def counted(fs, method, *words, **more):
        nonlocal under_way, most
        asked.append(method)
        under_way += 1
        most = max(most, under_way)
        try:
            return await request(fs, method, *words, **more)
        finally:
            under_way -= 1

    monkeypatch.setattr(PatientS3, "_request", counted)
    with moto_s3() as address:
        for name, value in (("ENDPOINT_URL_S3", address), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(f"AWS_{name}", value)
        S3FileSystem(endpoint_url=address).mkdir("bucket")
        world = World("s3://bucket/job")
        save(world, 1, 2, keep=2, keep_best=0)
        asked.clear()
        save(world, 3, keep=2, keep_best=0)
        new, most_of_new = asked[:], most
        assert committed(world.storage) == [checkpoint_name(2), checkpoint_name(3)]
        assert found(world) == "3"
        world_fs = CheckpointStore(world.storage).fs
        world_fs.rm(f"bucket/job/{checkpoint_name(3)}/manifest_rank_0.json")
        assert found(world) == "2"
        assert world_fs.exists(f"bucket/job/set-aside_{checkpoint_name(3)}/net/mp_rank_00_model_states.pt")
        assert CheckpointStore(world.storage).names() == [checkpoint_name(2)]
    assert new[:3] == ["put_object"] * 3
    assert most_of_new == 3
    # Files, are they there, manifest, is it whole; then, once for each start, which older ones there are; then the oldest goes.
    assert new[3:6] == ["list_objects_v2", "put_object", "list_objects_v2"]
    assert new[6] == "put_object", "which one is the last"
    assert new[-3:] == ["list_objects_v2", "delete_objects", "delete_objects"]


def test_the_newest_and_the_best_are_kept(world):
    save(
        world,
        1,
        2,
        3,
        4,
        5,
        scores=[0.5, 0.1, 0.3, 0.9, 0.8],
        keep=2,
        keep_best=1,
        best_metric="val/loss",
        best_mode="min",
    )
    assert committed(world.storage) == [checkpoint_name(step) for step in (2, 4, 5)]


def test_a_checkpoint_without_a_score_is_not_among_the_best():
    scores = {"a": 3.0, "b": None, "c": float("nan"), "d": 3.0, "e": 1.0, "f": 0.0}
    settings = Checkpoint(keep=1, keep_best=2, best_metric="x", best_mode="max")
    assert kept(list(scores), scores.get, settings) == {"a", "d", "f"}


def test_best_needs_a_metric():
    with pytest.raises(ValueError, match=r"set checkpoint.best_metric"):
        Checkpoint(keep_best=1)


def test_a_killed_process_leaves_no_temporary_files_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("spfem_dist.training.scratch._YOUNG", 0.0)
    code = "from spfem_dist.training.scratch import scratch\nwith scratch('t') as f: print(f, flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        folder = process.stdout.readline().strip()
        assert sweep() == 0, "it is in use"
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
    assert os.path.isdir(folder)
    time.sleep(0.05)
    assert sweep() == 1
    assert list(tmp_path.iterdir()) == []
