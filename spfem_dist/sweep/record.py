"""What a sweep is and what became of its trials: SWEEP/sweep.json, which the next start of the same name goes on from.

Trials are drawn from the space by the seed, so they are the same at every start; how far one got, its own folder says. Ray Tune's files of
an earlier start are never read: they are pickles.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from spfem_dist.config import Run
from spfem_dist.redact import without_credentials
from spfem_dist.storage import open_filesystem, read_json
from spfem_dist.sweep import FAILED, FINISHED
from spfem_dist.sweep.space import Dimension, draw, with_values
from spfem_dist.training.held_out import NAME
from spfem_dist.training.lock import RunConflict
from spfem_dist.training.runfolder import RunFolder, binding_changes


@dataclass
class TrialRecord:
    """One trial: its run's name, the values that it is tried with, how it ended ('' where it has not), its last figure and samples seen."""

    name: str
    values: dict[str, Any]
    ended: str = ""
    figure: float | None = None
    samples: int = 0
    run: str = ""
    reason: str = ""


@dataclass
class Plan:
    """What is searched. scheduler: asha, pbt or none. seed: of the draws. patience: validations before a trial may be stopped; in a
    population, between two exchanges. reduction: one of so many trials goes on."""

    name: str
    metric: str
    mode: str = "min"
    scheduler: str = "asha"
    trials: int = 8
    seed: int = 0
    patience: int = 1
    reduction: int = 3


@dataclass
class Sweep:
    """A plan, the run that its trials are variants of, and what became of them. base: with absolute paths."""

    plan: Plan
    base: Run
    dimensions: list[Dimension]
    trials: list[TrialRecord] = field(default_factory=list)
    mlflow_run: str = ""

    @property
    def location(self) -> str:
        """The sweep's folder."""
        return f"{self.base.checkpoint.storage.rstrip('/')}/{self.plan.name}"

    def open(self) -> bool:
        """Draw and check the trials, and take over what an earlier start of this name wrote; whether there was one.

        Raises RunConflict where that searched something else, pydantic's ValidationError where the run refuses a trial's values.
        """
        values = draw(self.dimensions, self.plan.trials, self.plan.seed)
        self.trials = [TrialRecord(self.trial_name(number), each) for number, each in enumerate(values)]
        for trial in self.trials:
            with_values(self.base, trial.values)
        fs, root = open_filesystem(self.location)
        if fs.exists(f"{root}/run.json"):
            raise RunConflict(f"{self.location} is a training run: give the sweep another --name")
        if not fs.exists(f"{root}/sweep.json"):
            return False
        self._take_over(read_json(fs, f"{root}/sweep.json"))
        return True

    def trial_name(self, number: int) -> str:
        """The name of a trial's run."""
        return f"{self.plan.name}-t{number:03d}"

    def _take_over(self, before: dict[str, Any]) -> None:
        mine = self._identity()
        changed = [f"{key}: was {before.get(key)!r}, now {mine[key]!r}" for key in mine if before.get(key) != mine[key]]
        old = type(self.base).model_validate(before["run"])
        changed += [
            f"--{name}: was {a!r}, now {b!r}" for name, a, b in binding_changes(old, self.base) if name != "name"
        ]
        if changed:
            listed = "\n".join(f"  {one}" for one in changed)
            raise RunConflict(
                f"sweep {self.plan.name!r} in {self.location} was started with other settings:\n{listed}\n"
                "Give the old ones to go on with it, or another --name to start anew; --trials may grow"
            )
        known = {one.name for one in fields(TrialRecord)}
        ended = {t["name"]: TrialRecord(**{k: v for k, v in t.items() if k in known}) for t in before["trials"]}
        self.trials = [ended.get(trial.name, trial) for trial in self.trials]
        for trial in self.trials:  # one more try: what a trial failed of may have been mended
            trial.ended = "" if trial.ended == FAILED else trial.ended
        self.mlflow_run = before.get("mlflow_run", "")

    def _identity(self) -> dict[str, Any]:
        plan = {key: value for key, value in asdict(self.plan).items() if key not in ("name", "trials")}
        return plan | {"recipe": self.base.recipe, "space": {one.field: one.text for one in self.dimensions}}

    def write(self) -> None:
        """Write sweep.json."""
        content = self._identity() | {
            "run": without_credentials(self.base.model_dump(mode="json")),
            "mlflow_run": self.mlflow_run,
            "trials": [asdict(trial) for trial in self.trials],
        }
        RunFolder(self.base.model_copy(update={"name": self.plan.name})).write("sweep.json", content)

    def pending(self) -> list[TrialRecord]:
        """The trials that have not ended."""
        return [trial for trial in self.trials if not trial.ended]

    def ranked(self) -> list[TrialRecord]:
        """The trials, the best first; those without a figure last."""
        sign = 1 if self.plan.mode == "min" else -1

        def place(trial: TrialRecord) -> tuple[bool, float]:
            lacks = trial.figure is None or trial.figure != trial.figure or trial.ended == FAILED
            return lacks, 0.0 if lacks else sign * float(trial.figure or 0.0)

        return sorted(self.trials, key=place)

    def best(self) -> TrialRecord | None:
        """The best of the trials that trained to their end, or, where none did, of all; None where no trial has a figure."""
        found = [t for t in self.ranked() if t.figure is not None and t.figure == t.figure and t.ended != FAILED]
        return next((t for t in found if t.ended == FINISHED), next(iter(found), None))

    def figures(self, trial: TrialRecord) -> list[tuple[int, float]]:
        """Samples seen and the metric at each validation of a trial so far, from its run's folder."""
        fs, root = open_filesystem(self.base.checkpoint.storage)
        found: list[tuple[int, float]] = []
        for job in self.base.jobs():
            try:
                rows = read_json(fs, f"{root}/{trial.run or trial.name}/{job}/{NAME}")["rows"]
            except FileNotFoundError:
                continue
            found += [
                (row["samples"], row["values"][self.plan.metric]) for row in rows if self.plan.metric in row["values"]
            ]
        return found
