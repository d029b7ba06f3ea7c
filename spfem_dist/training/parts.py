"""Many runs as the parts of one piece of work: which of them are done, how long the others will take."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from spfem_dist.config import Run
from spfem_dist.files import write_whole
from spfem_dist.stage import Stage
from spfem_dist.storage import open_filesystem, read_json
from spfem_dist.training.launch import finished


@dataclass(frozen=True)
class Part:
    """One piece of the work. kind and size (steps, or sentences): parts alike in both take about as long. done: whether an
    earlier call finished it.
    """

    kind: str
    size: int
    name: str
    done: Callable[[], bool]
    work: Callable[[], None]


def training(kind: str, run: Run, stage: Stage, local: bool) -> Part:
    """A run that is trained to its end."""

    def done() -> bool:
        fs, root = open_filesystem(run.folder())
        for name in stage.jobs(run):
            if not fs.exists(f"{root}/{name}/state.json"):
                return False
            state = read_json(fs, f"{root}/{name}/state.json")
            if state.get("status") != "finished" or state.get("step", 0) < getattr(run, name).steps:
                return False
        return True

    def work() -> None:
        finished(run, stage, local)

    return Part(kind, max(getattr(run, name).steps for name in stage.jobs(run)), run.name, done, work)


class Clock:
    """How long parts take, by their kind: measured where one was done here, else as `seconds` has it: a beginning, and each of its size."""

    def __init__(self, storage: str, seconds: Mapping[str, tuple[float, float]]):
        self.seconds = seconds
        self.file = Path(storage) / "board-seconds.json" if "://" not in storage else None
        self.measured = self._read()

    def _read(self) -> dict[str, list[float]]:
        return json.loads(self.file.read_text()) if self.file and self.file.exists() else {}

    def hours(self, parts: list[Part]) -> float:
        """An estimate for these parts."""
        total = 0.0
        for part in parts:
            found = self.measured.get(f"{part.kind}/{part.size}", [])
            begun, each = self.seconds[part.kind]
            total += sum(found) / len(found) if found else begun + each * part.size
        return total / 3600

    def time(self, part: Part) -> None:
        """Do a part and remember how long it took."""
        began = time.perf_counter()
        part.work()
        took = round(time.perf_counter() - began, 1)
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.measured = self._read() or self.measured  # another seed may be at work beside
        self.measured.setdefault(f"{part.kind}/{part.size}", []).append(took)
        if self.file:
            write_whole(self.file, json.dumps(self.measured))

    def spent(self) -> float:
        """Seconds of all parts that were done here."""
        return sum(sum(found) for found in self.measured.values())
