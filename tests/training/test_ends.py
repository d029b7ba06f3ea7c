"""However a run ends, the first error is the one that is told, and MLflow knows how each of its runs ended."""

import errno
import json
import sqlite3

from toy_runs import alone

from spfem_dist.training import history
from spfem_dist.training.checkpoint import Saver
from spfem_dist.training.runfolder import RunFolder


def tracked(storage, *arguments, **more):
    return alone(
        storage, "--tracking.uri", f"sqlite:///{storage}/mlflow.db", "--tracking.wait-s", "5", *arguments, **more
    )


def ends(storage):
    """(status, reason) of each MLflow run by its name."""
    with sqlite3.connect(storage / "mlflow.db") as store:
        runs = store.execute("select name, status, run_uuid from runs").fetchall()
        reasons = dict(store.execute("select run_uuid, value from tags where key = 'end.reason'").fetchall())
    return {name: (status, reasons.get(key, "")) for name, status, key in runs}


def test_what_fails_without_ray_ends_every_run_in_mlflow(tmp_path):
    failed = tracked(tmp_path, "--faults", "nan in activations of rank 0 at sample 16")
    assert failed.code == 1
    for name in ("toy", "toy-first"):
        status, reason = ends(tmp_path)[name]
        assert status == "FAILED"
        assert "TrainingError: first: toy/error became nan" in reason


def disk_full():
    """From the first checkpoint on nothing can be written, neither the checkpoint nor how the run ended."""

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    write = RunFolder.write

    def state_too(folder, name, value):
        if value.get("status") == "failed":
            full()
        write(folder, name, value)

    Saver._write, RunFolder.write = full, state_too


def test_a_full_disk_is_told_by_what_it_kept_from_being_written_first(tmp_path):
    failed = tracked(tmp_path, before=disk_full)
    assert failed.code == 1
    assert "error: a checkpoint could not be written to the temporary folder" in failed.said
    assert "Traceback" not in failed.err
    assert {status for status, _ in ends(tmp_path).values()} == {"FAILED"}


def points(count):
    """So many points, each second one of held-out samples, as `history.add` keeps them."""
    rows = []
    for step in range(1, count + 1):
        history.add(rows, step, 8 * step, {"train/a": 1.0} if step % 2 else {"val/a": 1.0})
    return rows


def test_a_history_is_bounded_and_keeps_both_kinds_and_the_newest(monkeypatch):
    monkeypatch.setattr(history, "MOST", 100)
    rows = points(10_000)
    assert len(rows) <= 100
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    assert steps[-50:] == list(range(9951, 10_001))
    assert steps[0] == 1
    kinds = [next(iter(row["values"])) for row in rows[:50]]
    assert 20 <= kinds.count("train/a") <= 30


def test_a_resumed_history_is_the_uninterrupted_one(monkeypatch):
    monkeypatch.setattr(history, "MOST", 100)
    rows = json.loads(json.dumps(points(777)))
    for step in range(778, 1001):
        history.add(rows, step, 8 * step, {"train/a": 1.0} if step % 2 else {"val/a": 1.0})
    assert rows == points(1000)


def test_the_history_of_a_million_steps_is_a_few_megabytes():
    rows, names = (
        [],
        [f"train/ccrl/loss_{number}" for number in range(12)] + ["train/learning_rate", "train/gradient_norm"],
    )
    for step in range(10, 1_000_001, 10):
        history.add(rows, step, 12 * step, dict.fromkeys(names, 0.123456789012345))
    assert len("".join(json.dumps(row) + "\n" for row in rows)) < 8e6
