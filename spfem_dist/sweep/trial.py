"""A trial as Ray Tune sees it: an actor that starts an ordinary run in a process of its own and reports what each validation gave.

The run knows nothing of Tune. It lies under the sweep's storage by its own name (`SWEEP-t003`), is locked, saved and tracked as any other,
and goes on from its last checkpoint when Tune starts the trial again. The actor reads RUN/JOB/validation.json, so nothing is reported
between validations. Where a population is trained, another trial's checkpoint is gone on from under a further name (`SWEEP-t003-g01`):
the values have changed, so it is another run; what it came from stands in its origin.json.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ray import tune

from spfem_dist.backoff import pauses
from spfem_dist.config import Storage
from spfem_dist.errors import readable
from spfem_dist.storage import is_local, open_filesystem, read_json, set_retry_policy
from spfem_dist.sweep import FAILED, FINISHED, NO_FIGURE
from spfem_dist.training.held_out import NAME
from spfem_dist.training.manifest import CheckpointStore, DamagedCheckpoint, fetched, manifest_name

#: Seconds between two looks at a run: in a folder, on S3.
LOOK_S = 0.2, 2.0
#: How long a run that is told to stop may take for its last checkpoint, seconds; how long another trial's checkpoint is waited for.
STOPPING_S, WAITING_S = 300.0, 120.0
#: What a population writes into a run that goes on from another, and into Tune's checkpoint of a trial.
ORIGIN, POINTER = "origin.json", "run.json"
_GENERATION = re.compile(r"-g(\d+)$")


class TrialEnded(RuntimeError):
    """The process of a trial ended before its time; Tune starts the trial again, and the run goes on from its last checkpoint."""


class Trial(tune.Trainable):
    """One trial. Its configuration is `{"trial": {"values": {...}}}`, its name that of the run.

    facts: the same for all trials: `script`, `run` (settings in JSON), `storage`, `jobs`, `metric`, `local`, `address` of Ray.
    """

    def setup(self, config: dict[str, Any], facts: dict[str, Any] | None = None) -> None:
        """Nothing is started before it is known whether another run's checkpoint is gone on from."""
        assert facts is not None
        self.facts, self.values = facts, config["trial"]["values"]
        set_retry_policy(Storage.model_validate(facts["run"]["storage"]))
        self.fs, self.root = open_filesystem(facts["storage"])
        self.run = newest_generation(self.fs, self.root, self.trial_name)
        self.process: subprocess.Popen[str] | None = None
        self.last: dict[str, Any] = {}
        self.seen: dict[str, int] = {}

    def step(self) -> dict[str, Any]:
        """Wait for the next validation, or the end, and report it."""
        if self.process is None:
            self.process = self._start()
        while True:
            ended = self.process.poll()
            if found := self._next():
                return found
            if ended is not None:
                return self._ended(ended)
            time.sleep(LOOK_S[not is_local(self.fs)])

    def cleanup(self) -> None:
        """Stop the run, whose last checkpoint is then there for whoever goes on from it."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOPPING_S)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Which run holds what the trial has learnt, and at which validation; its checkpoints are that run's own."""
        Path(checkpoint_dir, POINTER).write_text(json.dumps({"run": self.run, "samples": self.last.get("samples", 0)}))

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]
        """Go on with this trial's own run, or, where the checkpoint is another trial's, with a new run from there."""
        pointed = json.loads(Path(checkpoint_dir, POINTER).read_text())
        run = pointed["run"]
        if _GENERATION.sub("", run) == self.trial_name:
            self.run, self.seen = run, dict.fromkeys(self.facts["jobs"], pointed["samples"])
            return
        origin = {"run": run, "values": self.values}
        if self._origin(self.run) != origin:  # else an attempt before this one made it
            before = _GENERATION.search(self.run)
            self.run = f"{self.trial_name}-g{int(before[1]) + 1 if before else 1:02d}"
            self._branch(run, origin, pointed["samples"])
        self.seen = {job: self._step_of(job) for job in self.facts["jobs"]}

    # --- the process ------------------------------------------------------------------------------------------------

    def _start(self) -> subprocess.Popen[str]:
        facts = self.facts
        gpu = bool(os.environ.get("CUDA_VISIBLE_DEVICES"))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_JOB")}
        if facts["local"]:
            environment |= {} if gpu else {"DS_ACCELERATOR": "cpu"}
        else:
            environment |= {"RAY_ADDRESS": facts["address"]} | self._uploaded()
            environment.pop(
                "CUDA_VISIBLE_DEVICES", None
            )  # of this actor, which has none; Ray gives them to its workers
        settings = json.loads(json.dumps(facts["run"]))
        settings["name"] = self.run
        log = Path(facts["logs"] or self.logdir, f"{self.run}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("a") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "spfem_dist.sweep.child"],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
            )
        assert process.stdin is not None
        asked = {"script": facts["script"], "run": settings, "values": self.values, "local": facts["local"]}
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()  # and left open: its end tells the process that this actor is gone
        return process

    @staticmethod
    def _uploaded() -> dict[str, str]:
        """What gives the trial's own Ray driver the code that the sweep's job was submitted with."""
        import ray

        there = {
            key: value for key, value in ray.get_runtime_context().runtime_env.items() if key in ("working_dir", "pip")
        }
        return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": there})} if there else {}

    def _ended(self, code: int) -> dict[str, Any]:
        """The last result of a run that finished, or failed in a way that would repeat. Raises TrialEnded where it may go on."""
        if code == 0:
            self.seen = {}  # of a run that had finished before, the last validation is news
            while self._next():
                pass
            if self.facts["metric"] not in self.last:
                return self._failed(self._no_metric(), NO_FIGURE)
            return self.last | {"ended": FINISHED, "done": True}
        states = [self._read(f"{job}/state.json") for job in self.facts["jobs"]]
        if code > 0 and (reason := next((s["reason"] for s in states if s.get("status") == "failed"), "")):
            return self._failed(reason)
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with {code}"
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
        raise TrialEnded(f"{self.run} ended {how}; {self.log} ends with:\n{readable(tail)}")

    def _failed(self, reason: str, ended: str = FAILED) -> dict[str, Any]:
        return self.last | {"run": self.run, "ended": ended, "reason": reason, "done": True}

    # --- what the run says ------------------------------------------------------------------------------------------

    def _next(self) -> dict[str, Any]:
        """The next validation that has the metric, if there is one."""
        without = set()
        for job in self.facts["jobs"]:
            rows = self._read(f"{job}/{NAME}").get("rows", [])
            for row in rows:
                if row["samples"] > self.seen.get(job, 0) and self.facts["metric"] in row["values"]:
                    self.seen[job] = row["samples"]
                    figure = row["values"][self.facts["metric"]]
                    self.last = {"samples": row["samples"], self.facts["metric"]: figure, "run": self.run, "ended": ""}
                    return self.last
            without |= {job} if rows and self.facts["metric"] not in rows[-1]["values"] else set()
        if without == set(self.facts["jobs"]) and self.process and self.process.poll() is None:
            return self._failed(self._no_metric(), NO_FIGURE)
        return {}

    def _no_metric(self) -> str:
        """That there is no such figure, and which there are."""
        rows = [row for job in self.facts["jobs"] for row in self._read(f"{job}/{NAME}").get("rows", [])[-1:]]
        there = sorted({name for row in rows for name in row["values"]})
        return f"no validation gave {self.facts['metric']}; there are {', '.join(there) or 'none'}"

    def _read(self, name: str, run: str = "") -> dict[str, Any]:
        try:
            return read_json(self.fs, f"{self.root}/{run or self.run}/{name}")
        except FileNotFoundError:
            return {}

    # --- populations ------------------------------------------------------------------------------------------------

    def _origin(self, run: str) -> dict[str, Any]:
        found = self._read(ORIGIN, run)
        return {key: found.get(key) for key in ("run", "values")}

    def _step_of(self, job: str) -> int:
        """Samples seen at the checkpoint that the job began from; what was validated before is another's."""
        return self._read(ORIGIN).get("samples", {}).get(job, 0)

    def _branch(self, source: str, origin: dict[str, Any], at: int) -> None:
        """Make the run's folder out of a checkpoint of the run `source`, and write last what it came from."""
        storage = self.facts["storage"]
        samples = {
            job: copy_checkpoint(f"{storage}/{source}/{job}", f"{storage}/{self.run}/{job}", at)
            for job in self.facts["jobs"]
        }
        with self.fs.open(f"{self.root}/{self.run}/{ORIGIN}", "w") as file:
            json.dump(origin | {"samples": samples}, file)


def newest_generation(fs: Any, root: str, trial: str) -> str:
    """The name of the run that a trial is at: its own, or of those that began from another trial's checkpoint the last."""
    made = [path.rsplit("/", 2)[1] for path in fs.glob(f"{root}/{trial}-g*/{ORIGIN}")]
    return max((name for name in made if _GENERATION.sub("", name) == trial), default=trial)


def copy_checkpoint(source: str, target: str, at: int) -> int:
    """Copy a committed checkpoint of the job folder `source`, verified, into `target`; the samples seen at it.

    at: samples seen at the wanted one. It may be on its way still and is waited for; where it is gone the last before it is taken, or the
    first after it.
    """
    until, there, here = time.monotonic() + WAITING_S, CheckpointStore(source), CheckpointStore(target)
    for pause in pauses():
        late = time.monotonic() > until
        try:
            seen = {name: int(there.manifest(name, 0)["samples"]) for name in there.committed()}
            if seen and (late or max(seen.values()) >= at):
                name = max((n for n in seen if seen[n] <= at), default=min(seen))
                with fetched(f"{source}/{name}") as folder:
                    for file in there.files(name):
                        if not Path(file).name.startswith("manifest_rank_"):
                            _copy(here.fs, folder / file, f"{here.root}/{name}/{file}")
                first = there.manifest(name, 0)
                for rank in range(first["world"]):  # last: they commit it
                    text = json.dumps(there.manifest(name, rank)).encode()
                    here.fs.pipe_file(f"{here.root}/{name}/{manifest_name(rank)}", text)
                here.note_last(name, first["step"])
                return seen[name]
        except (DamagedCheckpoint, FileNotFoundError):  # the source is trained on, and removed it meanwhile
            if late:
                raise
        if late:
            raise FileNotFoundError(f"{source} has no checkpoint to go on from")
        time.sleep(pause)
    raise AssertionError("pauses have no end")


def _copy(fs: Any, file: Path, target: str) -> None:
    fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
    fs.put_file(str(file), target)
