"""The cells of the kill matrix, and how one is run: the real recipe by its command, struck by a fault, held against one that was not."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from doors import ROOT
from hosts import ENVIRONMENT, Cluster
from mlflow import MlflowClient
from proof import Proof, prove
from toy_stage2 import Toy

STEPS, BATCH, EVERY = 12, 4, 4

#: Fault -> how it is said, and the step of the checkpoint from which the run has to go on. Sample 26 is used in step 7, 38 in step 10.
FAULTS = {
    "worker": ("kill rank 1 at sample 26", 4),
    "during checkpoint": ("kill rank 0 during checkpoint 2", 4),
    "during upload": ("kill rank 1 during upload 2", 4),
    "driver": ("kill driver at sample 38", 8),
    "node": ("drop node of rank 1 at sample 26", 4),
}
#: What one run can suffer in turn, on one cluster.
IN_TURN = ("worker", "during checkpoint", "during upload", "driver")
STAGES = {"stage 1": "ccrl", "stage 2": "ned"}
ZERO = (1, 2, 3)


@dataclass(frozen=True)
class Cell:
    """One run of the matrix, with one fault or several in turn; none is the run that nothing disturbs."""

    faults: tuple[str, ...]
    stage: str
    zero: int

    def __str__(self) -> str:
        return f"{' + '.join(self.faults) or 'undisturbed'}, {self.stage}, ZeRO-{self.zero}"

    @property
    def job(self) -> str:
        """What is trained."""
        return STAGES[self.stage]


@dataclass
class Course:
    """How a run went: exit status of each start, what was printed and when (seconds since 1970)."""

    codes: list[int] = field(default_factory=list)
    lines: list[tuple[float, str]] = field(default_factory=list)

    def first(self, pattern: str, after: float) -> float | None:
        """When the first line like `pattern` came after `after`."""
        return next((when for when, line in self.lines if when >= after and re.search(pattern, line)), None)


@dataclass(frozen=True)
class Result:
    """What a cell showed. seconds: from each fault to the end of the next step; wrong: what is not as it should be."""

    cell: Cell
    proof: Proof | None
    seconds: dict[str, float]
    wrong: list[str]


class Ground:
    """The place where cells are run: a corpus, an empty tracking store to copy, and the undisturbed runs."""

    def __init__(self, folder: Path, toy: Toy, say: Callable[[str], None]) -> None:
        self.folder, self.toy, self.say = folder, toy, say
        self._empty = folder / "empty.db"  # making the tables takes SQLite longer than a small run
        MlflowClient(f"sqlite:///{self._empty}").search_experiments()
        self._references: dict[tuple[str, int], Path] = {}

    def run(self, cell: Cell, cluster: Cluster) -> Result:
        """Run the cell, its reference first where that is not there yet."""
        reference = self.reference(cell.stage, cell.zero, cluster)
        folder = self.folder / re.sub(r"\W+", "-", str(cell))
        return judged(cell, self._course(cell, folder, cluster), folder, reference)

    def reference(self, stage: str, zero: int, cluster: Cluster) -> Path:
        """The folder of the undisturbed run."""
        if (stage, zero) not in self._references:
            cell = Cell((), stage, zero)
            folder = self.folder / re.sub(r"\W+", "-", str(cell))
            course = self._course(cell, folder, cluster)
            if course.codes != [0]:
                raise RuntimeError(f"{cell} ended with {course.codes}:\n" + "\n".join(t for _, t in course.lines[-40:]))
            self._references[stage, zero] = folder
        return self._references[stage, zero]

    def _course(self, cell: Cell, folder: Path, cluster: Cluster) -> Course:
        """Start the recipe, and again while it is killed."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(self._empty, folder / "mlflow.db")
        cluster.fill()
        course = Course()
        while len(course.codes) < 3:
            self.say(f"{cell}: start {len(course.codes) + 1}")
            course.codes.append(self._start(cell, folder, course, cluster))
            if course.codes[-1] != -9:
                break
        return course

    def _start(self, cell: Cell, folder: Path, course: Course, cluster: Cluster) -> int:
        process = subprocess.Popen(
            command(cell, folder, self.toy),
            cwd=ROOT,
            env=ENVIRONMENT | {"RAY_ADDRESS": cluster.address, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        with (folder / "said.txt").open("a") as said:
            for line in process.stdout:
                course.lines.append((time.time(), line.rstrip()))
                said.write(f"{time.time():.2f} {line}")
        return process.wait()


def command(cell: Cell, folder: Path, toy: Toy) -> list[str]:
    """The recipe's command line for the run `r` of `cell`, small."""
    job = cell.job
    line = [sys.executable, f"recipes/cdrl_{cell.stage.replace(' ', '')}.py"]
    line += ["--priors", str(toy.stage1)] if job == "ned" else ["--cerl.enabled", "False"]
    line += [
        "--name",
        "r",
        "--checkpoint.storage",
        str(folder / "runs"),
        "--tracking.uri",
        f"sqlite:///{folder}/mlflow.db",
    ]
    line += [
        "--data.shards",
        str(toy.shards),
        "--data.split",
        str(toy.split),
        "--data.size",
        "32",
        "--data.threads",
        "1",
    ]
    line += [f"--{job}.steps", str(STEPS), f"--{job}.global-batch", str(BATCH), "--scaling.workers", "2"]
    line += ["--zero.stage", str(cell.zero), "--checkpoint.every-steps", str(EVERY), "--tracking.log-every-steps", "1"]
    line += ["--validation.every-steps", "6", "--validation.samples", "2", "--tracking.pictures-every-steps", "0"]
    line += ["--tracking.register-models", "False", "--tracking.samples", str(folder / "samples")]
    line += ["--scaling.max-failures", "9"]
    return line + (["--faults", *(FAULTS[fault][0] for fault in cell.faults)] if cell.faults else [])


def judged(cell: Cell, course: Course, folder: Path, reference: Path) -> Result:
    """What the cell showed."""
    expected = [-9, 0] if "driver" in cell.faults else [0]
    if course.codes != expected:
        said = "\n".join(line for _, line in course.lines[-12:])
        return Result(cell, None, {}, [f"ended with {course.codes}, expected {expected}:\n{said}"])
    proof = prove(folder, reference, cell.job, BATCH, STEPS)
    wrong, seconds = proof.faults(tolerance=0.0), {}
    marks = [json.loads(mark.read_text()) for mark in (folder / "runs" / "r" / "faults").glob("*.json")]
    for fault in cell.faults:
        words, step = FAULTS[fault]
        struck = next((mark["time"] for mark in marks if mark["fault"] == words), None)
        if struck is None:
            wrong.append(f"{words}: did not strike")
            continue
        resumed = course.first(rf"resumed from .* at step {step} ", after=struck)
        stepped = resumed and course.first(rf"^{cell.job} \d+/{STEPS} ", after=resumed)
        if not stepped:
            wrong.append(f"{words}: the run did not go on from the checkpoint of step {step}")
        else:
            seconds[fault] = stepped - struck
    return Result(cell, proof, seconds, wrong)
