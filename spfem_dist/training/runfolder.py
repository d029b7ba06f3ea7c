"""The folder of one run: its resolved configuration, who works on it now, and what it has finished.

RUN/run.json            the resolved configuration
RUN/state.json          MLflow run ids, and for each prior `running`, `stopped` or `finished`
RUN/lock/               the process that works on it (see `lock`)
RUN/<prior>/            checkpoints
RUN/<prior>/model/      the exported prior: safetensors and its configuration
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from spfem_dist.config import Run
from spfem_dist.corpora.splits import Split
from spfem_dist.files import write_whole
from spfem_dist.job_settings import is_operational
from spfem_dist.redact import without_credentials
from spfem_dist.stage import Stage
from spfem_dist.storage import is_local, open_filesystem, read_json
from spfem_dist.tracking.store import flatten
from spfem_dist.training.lock import RunConflict, RunLock
from spfem_dist.training.manifest import LAST
from spfem_dist.training.screen import Screen

AnyRun = TypeVar("AnyRun", bound=Run)


class LaunchError(RuntimeError):
    """The run cannot start or could not end; the message says why and what to do."""


class RunFolder:
    """The folder of `run`, on disk or on S3."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.location = run.folder()
        self.fs, self.root = open_filesystem(self.location)

    def exists(self) -> bool:
        """Whether a run of this name was started before."""
        return self.fs.exists(f"{self.root}/run.json")

    def open(self) -> bool:
        """Check the stored configuration against this one and store it; returns whether an earlier start is resumed.

        Raises RunConflict when a job has begun and the stored configuration would give other losses, unless `checkpoint.allow_other`
        is set.
        """
        resumed = self.exists()
        if resumed:
            differences = binding_changes(self.stored(), self.run)
            if differences and self.has_begun() and not self.run.checkpoint.allow_other:
                listed = "\n".join(f"  --{field}: was {old!r}, now {new!r}" for field, old, new in differences)
                raise RunConflict(
                    f"run {self.run.name!r} in {self.location} was started with other settings:\n{listed}\n"
                    f"Give the old values to resume it, another --name to start anew, or --checkpoint.allow-other True to go on with the new ones."
                )
        self.write("run.json", without_credentials(self.run.model_dump(mode="json")))
        return resumed

    def bind_data(self, digest: str) -> dict[str, str]:
        """Keep the digest of the shards that the run learns from; returns tags that say so where it has become another.

        Raises RunConflict when a job has begun on shards of another digest, unless `data.allow_other` is set. Where they lie does
        not matter: a copy has the same digest.
        """
        before = self.read("state.json", {}).get("data_digest", digest)
        other = before != digest and self.has_begun()
        if other and not self.run.data.allow_other:
            raise RunConflict(
                f"run {self.run.name!r} in {self.location} has learned from data set {before[:12]}, and the shards in "
                f"{self.run.data.shards} are data set {digest[:12]}: give --data.shards that hold the first to resume it, another "
                "--name to start anew, or --data.allow-other True to go on with the other data"
            )
        if digest:
            self.update_state(data_digest=digest)
        return {"changed.data.digest": f"{before[:12]} -> {digest[:12]}"} if other else {}

    def stored(self) -> Run:
        """The configuration under which the run was started. Raises RunConflict where that was another kind of run."""
        try:
            return type(self.run).model_validate(self.read("run.json"))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise RunConflict(
                f"run {self.run.name!r} in {self.location} is of another recipe or version ({field}: {first['msg']}): "
                "give another --name"
            ) from None

    def has_begun(self) -> bool:
        """Whether any job of the run got as far as training; a start that failed before binds the name to nothing."""
        return bool(self.fs.glob(f"{self.root}/*/state.json"))

    def has_checkpoint(self) -> bool:
        """Whether any job of the run committed a checkpoint."""
        return bool(self.fs.glob(f"{self.root}/*/{LAST}"))

    def read(self, name: str, default: Any = None) -> Any:
        """The JSON object in the file `name` of this folder, or `default` where it is missing. Raises ValueError where it is damaged."""
        try:
            return read_json(self.fs, f"{self.root}/{name}")
        except FileNotFoundError:
            return default

    def write(self, name: str, value: Any) -> None:
        """Write `value` as the JSON file `name`, whole or not at all."""
        path = f"{self.root}/{name}"
        self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        text = json.dumps(value, indent=2)
        if is_local(self.fs):
            write_whole(Path(path), text)
        else:
            with self.fs.open(path, "w") as f:
                f.write(text)

    def update_state(self, **values: Any) -> dict[str, Any]:
        """Merge `values` into state.json and return the whole."""
        state = self.read("state.json", {}) | values
        self.write("state.json", state)
        return state

    def locked(self) -> AbstractContextManager[int]:
        """Hold the run while inside; gives the holder's number. Raises RunConflict when another living process holds it."""
        return RunLock(self.location, self.run.name).held()


def set_aside(runs: Path, name: str, seed: int) -> None:
    """Make room in the folder `runs` for the run `name` of `seed`: one of another seed moves to `name-seed<n>`, an earlier one
    of this seed comes back."""
    current, mine = runs / name, runs / f"{name}-seed{seed}"
    if (current / "run.json").exists() and (other := json.loads((current / "run.json").read_text())["seed"]) != seed:
        current.rename(runs / f"{name}-seed{other}")
    if mine.exists() and not current.exists():
        mine.rename(current)


def changed_fields(old: Run, new: Run) -> list[tuple[str, Any, Any]]:
    """Dotted names, old and new values of the fields in which two configurations differ."""
    before, after = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    return [(k, before.get(k), after.get(k)) for k in sorted(before | after) if before.get(k) != after.get(k)]


def binding_changes(old: Run, new: Run) -> list[tuple[str, Any, Any]]:
    """The changed fields with which a run under the old name would have other losses."""
    return [change for change in changed_fields(old, new) if not is_operational(new, change[0])]


def pending_jobs(run: Run, stage: Stage, folder: RunFolder, screen: Screen) -> list[str]:
    """The jobs of this run that have not finished their step budget, with a line about each that has."""
    pending = []
    for name in stage.jobs(run):
        state = folder.read(f"{name}/state.json", {})
        if state.get("status") == "finished" and state.get("step", 0) >= getattr(run, name).steps:
            screen.say(f"{name}: already finished at step {state['step']}; nothing to do")
        else:
            pending.append(name)
    return pending


def announce(run: Run, screen: Screen, resumed: bool, how: str) -> None:
    """Say which of the things that a name can mean is happening. resumed: the run was started before."""
    verb = "resuming" if resumed and RunFolder(run).has_checkpoint() else "starting"
    how += ", which was begun before and has no checkpoint yet" if resumed and verb == "starting" else ""
    screen.say(f"{verb} run {run.name!r} in {run.folder()} ({how})")
    if run.data.speakers:
        named = sorted(Split.of(run.data).part("train").speakers or ())
        screen.say(f"learning from {len(named)} speakers ({' '.join(run.data.speakers)}): {', '.join(named)}")
    for fault in run.faults:
        screen.say(f"fault that will be injected: {fault}")
