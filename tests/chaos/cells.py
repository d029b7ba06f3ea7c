"""The cells of the kill matrix, and how one is run: the real recipe by its command, hit by a fault, held against one that was not."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from proof import Proof, prove
from toy_stage2 import Toy
from ways import Alone, OnRay

STEPS, BATCH, EVERY = 12, 4, 4

#: Fault -> how it is said, and the step of the checkpoint from which the run has to go on. Sample 26 is used in step 7, 38 in step 10.
FAULTS = {
    "worker": ("kill rank 1 at sample 26", 4),
    "during checkpoint": ("kill rank 0 during checkpoint 2", 4),
    "during upload": ("kill rank 0 during upload 2", 4),
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

    def reference(self, stage: str, zero: int, way: OnRay | Alone) -> Path:
        """The folder of the run that nothing disturbs, which is run where it is not there yet."""
        if (stage, zero) not in self._references:
            undisturbed = Cell((), stage, zero)
            folder, starts = self._run(undisturbed, way)
            if starts != 1:
                raise RuntimeError(f"{undisturbed} failed:\n{(folder / 'said.txt').read_text()[-5000:]}")
            self._references[stage, zero] = folder
        return self._references[stage, zero]

    def run(self, cell: Cell, way: OnRay | Alone) -> Result:
        """Run the cell, its reference first where that is not there yet."""
        reference = self.reference(cell.stage, cell.zero, way)
        folder, starts = self._run(cell, way)
        if starts != way.starts(cell.faults):
            said = (folder / "said.txt").read_text()[-3000:]
            return Result(cell, None, {}, [f"ended well after {starts} starts, not {way.starts(cell.faults)}:\n{said}"])
        return judged(cell, folder, reference)

    def _run(self, cell: Cell, way: OnRay | Alone) -> tuple[Path, int]:
        """The folder of the run, and how often the command was given until it ended well; 0 where it did not."""
        folder = self.folder / re.sub(r"\W+", "-", str(cell))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(self._empty, folder / "mlflow.db")
        for number in range(1, way.starts(cell.faults) + 2):
            self.say(f"{cell}: start {number}")
            if way.start(command(cell, folder, self.toy), folder / "said.txt"):
                return folder, number
        return folder, 0


def command(cell: Cell, folder: Path, toy: Toy) -> list[str]:
    """The recipe's command line for the run `r` of `cell`, small."""
    job = cell.job
    line = [f"recipes/cdrl_{cell.stage.replace(' ', '')}.py"]
    # One job a run: a pre-training of coefficients would take most of the time, and the faults count its samples too.
    alone = ["--priors", str(toy.stage1), "--pretraining.enabled", "False"]
    line += alone if job == "ned" else ["--cerl.enabled", "False"]
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


def judged(cell: Cell, folder: Path, reference: Path) -> Result:
    """What the cell showed."""
    proof = prove(folder, reference, cell.job, BATCH, STEPS)
    wrong, seconds = proof.faults(tolerance=0.0), {}
    marks = [json.loads(mark.read_text()) for mark in (folder / "runs" / "r" / "faults").glob("*.json")]
    for fault in cell.faults:
        words, step = FAULTS[fault]
        fired = next((mark["time"] for mark in marks if mark["fault"] == words), None)
        if fired is None:
            wrong.append(f"{words}: did not fire")
            continue
        goes_on_after, stepped = next_step(folder / "samples", cell.job, fired)
        if goes_on_after != step:
            wrong.append(f"{words}: the run went on after step {goes_on_after}, not {step}")
        if stepped is not None:
            seconds[fault] = stepped - fired
    return Result(cell, proof, seconds, wrong)


def next_step(samples: Path, job: str, fired: float) -> tuple[int | None, float | None]:
    """After which step the run went on that was hit at that time, and when the first step after that was done."""
    attempts = [[json.loads(line) for line in file.read_text().splitlines()] for file in samples.glob(f"{job}-*.jsonl")]
    later = [rows for rows in attempts if rows and rows[0]["time"] > fired]
    if not later:
        return None, None
    rows = min(later, key=lambda rows: rows[0]["time"])
    first = rows[0]["step"]
    return first - 1, next((row["time"] for row in rows if row["step"] == first + 1), None)
