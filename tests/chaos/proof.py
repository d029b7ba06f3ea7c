"""What a run that was hit has to show: the losses, the samples, the checkpoints and the MLflow points of one that was not."""

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Proof:
    """What was found. difference: largest, of all losses logged. lost, twice: samples. orphans: files of no use to anybody.
    points_twice, points_missing: in MLflow."""

    difference: float
    lost: int
    twice: int
    orphans: list[str]
    points_twice: int
    points_missing: int
    mlflow_runs: int

    def faults(self, tolerance: float) -> list[str]:
        """What is not as it should be."""
        found = []
        if not self.difference <= tolerance:
            found.append(f"losses differ by {self.difference:g}")
        found += [f"{n} samples {what}" for n, what in ((self.lost, "lost"), (self.twice, "seen twice")) if n]
        found += [f"left behind: {', '.join(self.orphans)}"] if self.orphans else []
        found += [
            f"{n} MLflow points {w}" for n, w in ((self.points_twice, "twice"), (self.points_missing, "missing")) if n
        ]
        found += [f"{self.mlflow_runs} MLflow runs, not a parent and a child"] if self.mlflow_runs != 2 else []
        return found


def prove(folder: Path, reference: Path, job: str, global_batch: int, steps: int) -> Proof:
    """Hold the run in `folder` (with runs/, samples/ and mlflow.db) against that in `reference`."""
    lost, twice = samples(folder / "samples", job, global_batch, steps)
    points_twice, points_missing, runs = tracked(folder, job)
    return Proof(
        difference(losses(folder, job), losses(reference, job)),
        lost,
        twice,
        orphans(folder / "runs" / "r", job),
        points_twice,
        points_missing,
        runs,
    )


def history(folder: Path, job: str) -> list[dict]:
    """Every point that the run logged."""
    return json.loads((folder / "runs" / "r" / job / "history.json").read_text())


def losses(folder: Path, job: str) -> dict[tuple[int, str], float]:
    """Every logged value by step and name, what the optimisers say of themselves among them."""
    return {(row["step"], key): value for row in history(folder, job) for key, value in row["values"].items()}


def difference(found: dict, expected: dict) -> float:
    """The largest difference of two such tables; infinite where a value is missing from one."""
    if found.keys() != expected.keys():
        return float("inf")
    return max(abs(found[key] - expected[key]) for key in expected)


def samples(folder: Path, job: str, global_batch: int, steps: int) -> tuple[int, int]:
    """Samples that no step of the final course used, and those that were used twice.

    A step that was interrupted or rolled back is made again; what counts is the last time that each step was made.
    """
    rows = [json.loads(line) for file in folder.glob(f"{job}-*.jsonl") for line in file.read_text().splitlines()]
    last: dict[int, dict[int, dict]] = {}
    for row in sorted(rows, key=lambda row: row["time"]):
        ranks = last.setdefault(row["step"], {})
        if any(other["world"] != row["world"] for other in ranks.values()):
            ranks.clear()  # made again by another number of workers
        ranks[row["rank"]] = row
    seen = Counter(
        sample for step in range(1, steps + 1) for row in last.get(step, {}).values() for sample in row["samples"]
    )
    wanted = set(range(global_batch * steps))
    return len(wanted - seen.keys()), sum(count - 1 for count in seen.values()) + len(seen.keys() - wanted)


def orphans(run: Path, job: str) -> list[str]:
    """Checkpoints that were never committed, half-written files, a lock that nobody holds."""
    from spfem_dist.training.lock import RunLock
    from spfem_dist.training.manifest import committed

    whole = committed(str(run / job))
    left = [path.name for path in (run / job).glob("checkpoint_*") if path.name not in whole]
    left += [str(path.relative_to(run)) for path in run.rglob("*.partial*")]
    return left + (["a lock that was not let go"] if RunLock(str(run)).holder() else [])


def tracked(folder: Path, job: str) -> tuple[int, int, int]:
    """MLflow points that are there twice, those of the history that are not there, and the number of MLflow runs."""
    with sqlite3.connect(folder / "mlflow.db") as store:
        points = (
            "select run_uuid, key, step from metrics where key not like 'system/%'"  # those are of an attempt's hosts
        )
        rows = Counter(store.execute(points).fetchall())
        (runs,) = store.execute("select count(*) from runs").fetchone()
        (child,) = store.execute("select run_uuid from tags where key = 'job' and value = ?", (job,)).fetchone()
    wanted = {(child, key, row["samples"]) for row in history(folder, job) for key in row["values"]}
    return sum(count - 1 for count in rows.values()), len(wanted - rows.keys()), runs
