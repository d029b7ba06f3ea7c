"""What a checkpoint holds, how it is saved behind the training steps, and which one a start goes on from.

A checkpoint holds a folder for each network (DeepSpeed's shards, one file for each rank), `state.json` (where the run stands) and
`history.jsonl` (the logged points so far, see `history`, so that an interrupted run ends with those of an uninterrupted one). How it is
committed and verified says `manifest.py`.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from spfem_dist import config
from spfem_dist.backoff import pauses
from spfem_dist.errors import UnreachableStorage
from spfem_dist.faults import inject
from spfem_dist.storage import is_full, wait_for_room
from spfem_dist.training import averaging, heartbeat, universal
from spfem_dist.training.averaging import Averages
from spfem_dist.training.lock import RunLock
from spfem_dist.training.manifest import CheckpointStore, DamagedCheckpoint, absent, checkpoint_name, fetched
from spfem_dist.training.scratch import scratch, sweep
from spfem_dist.training.world import World, from_rank_zero, gathered

#: First and largest pause between two looks for the other workers' manifests, seconds.
LOOKS = 0.05, 2.0
#: How long a worker that fails still gives its upload, seconds: with luck it completes the checkpoint.
_PARTING_S = 20.0


class CheckpointError(RuntimeError):
    """A checkpoint that cannot continue this run; the message says why and what to do."""


@dataclass
class Progress:
    """Where a run stands: optimiser steps done, samples seen, what was logged (on rank 0), and the arithmetic counted at its first step."""

    step: int = 0
    samples: int = 0
    flops_per_sample: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def latest(self) -> dict[str, float]:
        """The newest value of every logged name."""
        return {key: value for row in self.history for key, value in row["values"].items()}


@dataclass
class Found:
    """The checkpoint that a run goes on from: verified, and the same one on every worker.

    folder: this worker's part of it. reshard: it was written by other workers, or at another ZeRO stage; converted: then the
    folder with its universal form.
    """

    location: str
    folder: Path
    zero_stage: int
    reshard: bool
    converted: Path | None = None


@contextmanager
def newest(world: World, networks: Iterable[str], zero_stage: int, anew: bool = False) -> Iterator[Found | None]:
    """The newest committed checkpoint whose bytes are right on every worker, or None at the first start. A collective.

    networks: those whose shards may have to be resharded, for this number of workers and this ZeRO stage.
    One that is damaged is named in a line, and the one before it is tried. What was never complete is removed, since nobody writes it
    any more; what is newer than the result and damaged is set aside. Raises CheckpointError where there were committed ones and none
    is whole, unless the job may begin `anew`: then all are set aside.
    """
    store = CheckpointStore(world.storage)
    names = from_rank_zero(world, partial(_candidates, store))
    damaged = ""
    for name in reversed(names):
        with ExitStack() as held:
            part: Found | None = None
            problem = ("", "")
            try:
                part = _own_part(held, store, name, world, zero_stage)
            except (CheckpointError, UnreachableStorage) as error:
                problem = (type(error).__name__, f"worker {world.rank}: {error}")
            except DamagedCheckpoint as error:
                problem = ("", f"worker {world.rank}: {error}")
            problems = sorted(problem for problem in gathered(world, problem) if problem[1])
            kind, damaged = problems[-1] if problems else ("", "")
            if kind:  # nothing that the checkpoint before it could help with
                raise (CheckpointError if kind == "CheckpointError" else UnreachableStorage)(damaged)
            if part is not None and not problems:
                from_rank_zero(world, partial(_tidy, world, store, name))
                if part.reshard:
                    part = held.enter_context(_resharded(part, networks, world, zero_stage))
                yield part
                return
            if world.rank == 0:
                world.say(f"{store.location}/{name} is damaged ({damaged}): the checkpoint before it is tried")
    from_rank_zero(world, partial(_begin, world, store, names, damaged, anew))
    yield None


def _begin(world: World, store: CheckpointStore, names: list[str], damaged: str, anew: bool) -> None:
    """Make way for a job that begins at step 0: at its first start, or where it may begin `anew`. Raises CheckpointError elsewhere."""
    still_held(world)
    last = store.last()
    if names or last:
        problem = f"every checkpoint in {store.location} is damaged (the oldest: {damaged})"
        if not names:
            problem = (
                f"{store.location} had {last['checkpoint']}, of step {last['step']}, and has no checkpoint any more"
            )
        if not anew:
            raise CheckpointError(
                f"{problem}. Nothing was removed: bring one of {', '.join(names) or 'them'} back, or give --checkpoint.begin-anew True "
                "to train from the beginning; what is left is set aside then"
            )
        world.say(f"{problem}: the training begins anew")
        store.forget_last()
    _tidy(world, store, "")


def _candidates(store: CheckpointStore) -> list[str]:
    names = [name for name in store.names() if store.standing(name) != "incomplete"]
    traces = [f"{name}/committed.json" for name in store.names()] + ["checkpoint_manager_snapshot.json"]
    if not names and any(store.fs.exists(f"{store.root}/{trace}") for trace in traces):
        raise CheckpointError(
            f"{store.location} holds checkpoints of an earlier version, without manifests: finish that run with that version, "
            "or start under another --name"
        )
    return names


def _own_part(held: ExitStack, store: CheckpointStore, name: str, world: World, zero_stage: int) -> Found:
    """Fetch and verify what this worker reads of the checkpoint `name`.

    Of one that was written by another number of workers, or at another ZeRO stage, the first worker of each host takes everything.
    """
    first = store.manifest(name, 0)
    location, stages = f"{store.location}/{name}", (first["zero_stage"], zero_stage)
    if stages[0] != stages[1] and 0 in stages:
        raise CheckpointError(
            f"{location} was written with zero.stage {stages[0]}, this run has {stages[1]}: ZeRO 1, 2 and 3 can be exchanged, "
            f"0 cannot. Continue with --zero.stage {stages[0]}, or start under another --name"
        )
    reshard = stages[0] != stages[1] or (zero_stage > 0 and first["world"] != world.size)
    patterns, ranks = ["state.json", "history.jsonl"], {0}
    if reshard and world.local_rank == 0:
        patterns, ranks = ["*"], set(range(first["world"]))
    elif not reshard:
        patterns += ["*/mp_rank_00_model_states.pt", f"*/*zero_pp_rank_{world.rank}_mp_rank_*"]
        ranks |= {world.rank} & set(range(first["world"]))
    folder = held.enter_context(fetched(location, patterns, ranks))
    return Found(location, folder, first["zero_stage"], reshard)


@contextmanager
def _resharded(found: Found, names: Iterable[str], world: World, zero_stage: int) -> Iterator[Found]:
    """The checkpoint in a form that any number of workers can load: made once on each host. A collective."""
    with ExitStack() as held:
        mine, problem = "", ""
        if world.local_rank == 0:
            heartbeat.beat("resharding a checkpoint")
            out = held.enter_context(scratch("universal"))
            try:
                universal.convert(found.folder, names, out, found.zero_stage, zero_stage)
                mine = str(out)
            except universal.CannotReshard as error:
                problem = str(error)
            except OSError as error:
                problem = f"{error}; the temporary folder (TMPDIR) needs room for twice the checkpoint"
        hosts = gathered(world, (world.node_rank, mine, problem))
        if problems := [problem for _, _, problem in hosts if problem]:
            raise CheckpointError(
                f"{found.location} cannot be cut for {world.size} workers: {problems[0]}. Continue with the workers and the "
                "zero.stage that wrote it, or start under another --name"
            )
        here = next(folder for host, folder, _ in hosts if host == world.node_rank and folder)
        yield replace(found, converted=Path(here))
        gathered(world, None)  # until everybody has read it


def _tidy(world: World, store: CheckpointStore, chosen: str) -> None:
    """Remove what killed processes left where another checkpoint is `chosen`: those that were never complete. Set aside what is newer
    than the chosen one and is damaged, and whatever there is where none is chosen: it may be all that somebody has.
    """
    still_held(world)
    sweep()
    last = store.last().get("checkpoint", "")
    for name in store.names():
        standing = store.standing(name)
        if standing == "committed" and name <= chosen:
            continue
        if standing == "incomplete" and chosen and name != last:
            store.remove(name)
            world.say(f"{store.location}/{name} was removed: incomplete")
        else:
            why = "incomplete" if standing == "incomplete" else "damaged"
            world.say(
                f"{store.location}/{name} is {why} and was set aside as {store.set_aside(name)}; remove it when it is of no use"
            )
    if chosen and last > chosen:
        world.say(
            f"{store.location}/{last} was the last checkpoint, and is no longer whole: the training goes on from {chosen}"
        )
        store.note_last(chosen, int(chosen.rsplit("_", 1)[-1]))


def still_held(world: World) -> None:
    """Raise RunConflict where rank 0 works for a holder that has lost the run: it commits and removes nothing any more."""
    if world.rank == 0 and world.holder:
        RunLock(world.storage.rsplit("/", 1)[0]).check(world.holder)


def restore(trained: Mapping[str, Any], averages: Averages, found: Found, rank: int) -> Progress:
    """Load this rank's part of the checkpoint into the engines, by name, and their averages; rank 0 alone has a history. A collective."""
    for name, engine in trained.items():
        average = None
        if found.converted and (found.converted / universal.AVERAGES / name).exists():
            with universal.no_code():
                engine.load_checkpoint(str(found.converted / universal.AVERAGES), tag=name)
            average = averaging.masters(engine)
        with universal.no_code():
            loaded, _ = engine.load_checkpoint(str(found.converted or found.folder), tag=name)
        if loaded is None:
            raise CheckpointError(
                f"DeepSpeed found no checkpoint files under {found.location}/{name}; start under another --name"
            )
        if found.converted:
            universal.restore_buffers(engine.module, found.converted / name)
            averaging.set_average(engine, average)
        if name not in averages.of:
            averaging.set_average(engine, None)
    state = json.loads((found.folder / "state.json").read_text())
    lines = (found.folder / "history.jsonl").read_text().splitlines() if rank == 0 else []
    return Progress(**state, history=[json.loads(line) for line in lines])


class Saver:
    """Saves the checkpoints of one job, within a `with`. The step loop waits for the local write only; a thread uploads it.

    One upload is in flight at most: the next save, and `wait`, wait for it and raise what went wrong with it. On rank 0 an upload
    ends when the checkpoint is committed, with every worker's files; then older ones go, as `settings` says.
    """

    def __init__(self, world: World, settings: config.Checkpoint) -> None:
        self.world, self.settings = world, settings
        self.store = CheckpointStore(world.storage)
        self.attempt = from_rank_zero(world, lambda: uuid.uuid4().hex)
        self.uploaded: list[tuple[dict[str, float], int]] = []
        self._upload: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._alone = threading.Event()
        self._bytes = 0  # of this worker's part of the last checkpoint
        self._scores: dict[str, float | None] | None = None  # of the committed checkpoints, where they have one

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        elif self._upload is not None and issubclass(kind, Exception):
            self._alone.set()
            self._upload.join(_PARTING_S)

    def save(self, trained: Mapping[str, Any], progress: Progress) -> float:
        """Write every rank's part of a checkpoint and start its upload; returns the seconds that the loop waited. A collective."""
        started = time.perf_counter()
        self.wait()
        heartbeat.beat("writing a checkpoint")
        held = ExitStack()
        try:
            folder = held.enter_context(scratch("checkpoint"))
            wait_for_room(folder, self._bytes, "a checkpoint")  # before the collectives, in which nobody can wait
            self._write(folder, trained, progress)
            self._bytes = sum(file.stat().st_size for file in folder.rglob("*"))
        except (OSError, RuntimeError) as error:
            held.close()
            if isinstance(error, UnreachableStorage) or not (isinstance(error, OSError) or is_full(error)):
                raise
            raise UnreachableStorage(
                f"a checkpoint could not be written to the temporary folder {folder.parent.parent} ({error}): "
                "free some space there, or let TMPDIR name another folder"
            ) from error
        except BaseException:
            held.close()
            raise
        stage = next(iter(trained.values())).zero_optimization_stage()
        facts = {
            "attempt": self.attempt,
            "holder": self.world.holder,
            "zero_stage": stage,
            "step": progress.step,
            "samples": progress.samples,
        }
        if self.world.rank == 0:
            facts["metrics"] = progress.latest()
        self._upload = threading.Thread(
            target=self._deliver, args=(folder, held, facts), name="spfem-checkpoint", daemon=True
        )
        self._upload.start()
        if not self.settings.background:
            self.wait()
        self.world.report({"step": progress.step, "samples": progress.samples})
        return time.perf_counter() - started

    def wait(self) -> None:
        """Wait for the upload in flight, if any. Raises what went wrong with it."""
        if self._upload is not None:
            while self._upload.is_alive():
                heartbeat.beat("waiting for the upload of a checkpoint")  # storage that hangs has limits of its own
                self._upload.join(1.0)
            self._upload = None
        if self._failure is not None:
            raise self._failure

    def location(self, step: int) -> str:
        """Where the checkpoint after optimiser step `step` lies."""
        return f"{self.store.location}/{checkpoint_name(step)}"

    def take_figures(self) -> list[tuple[dict[str, float], int]]:
        """Sizes and times of the uploads that ended since the last call, each with the samples seen at its checkpoint."""
        figures, self.uploaded = self.uploaded, []
        return figures

    def _write(self, folder: Path, trained: Mapping[str, Any], progress: Progress) -> None:
        for name, engine in trained.items():
            engine.save_checkpoint(str(folder), tag=name, save_latest=False)
        if self.world.rank == 0:
            state = asdict(progress)
            history = state.pop("history")
            (folder / "state.json").write_text(json.dumps(state))
            (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
        for stray in folder.glob("*.py"):  # DeepSpeed's recovery script: the export does that job
            stray.unlink()
        inject.during("checkpoint", progress.step)

    def _deliver(self, folder: Path, held: ExitStack, facts: dict[str, Any]) -> None:
        """The upload: in a thread, so without collectives."""
        name, started = checkpoint_name(facts["step"]), time.perf_counter()
        try:
            with held:
                self.store.put(
                    folder,
                    name,
                    self.world.rank,
                    self.world.size,
                    facts,
                    partial(inject.during, "upload", facts["step"]),
                    partial(still_held, self.world),
                )
            if self.world.rank == 0 and (there := self._committed(name)):
                seconds = time.perf_counter() - started
                figures = {"checkpoint_upload_s": seconds, "checkpoint_mb": sum(there.values()) / 1e6}
                self.uploaded.append((figures, facts["samples"]))
                self.store.note_last(name, facts["step"])
                self._retire(name, facts["metrics"])
        except BaseException as error:  # told to the loop, which knows how to end
            self._failure = error

    def _committed(self, name: str) -> dict[str, int] | None:
        """The checkpoint's files and their bytes once all workers' manifests are there; None where this worker fails meanwhile."""
        until = time.monotonic() + self.store.patience_s
        for pause in pauses(*LOOKS):
            there = self.store.files(name)
            missing = absent(there, self.world.size)
            if not missing:
                return there
            if self._alone.wait(pause):
                return None
            if time.monotonic() > until:
                raise UnreachableStorage(
                    f"{name}: the files of workers {', '.join(map(str, missing))} did not arrive in {self.store.location} within "
                    f"{self.store.patience_s:g} s: their logs say why; wait longer with --storage.patience-s"
                )
        raise AssertionError("pauses have no end")

    def _retire(self, name: str, metrics: dict[str, float]) -> None:
        """Remove what is neither among the newest nor among the best, now that `name` is committed."""
        if self._scores is None:  # what earlier attempts left; from then on nobody else adds to them
            self._scores = {
                n: self._score(self.store.manifest(n, 0).get("metrics", {})) for n in self.store.committed()
            }
        self._scores[name] = self._score(metrics)
        still_held(self.world)
        for old in set(self._scores) - kept(sorted(self._scores), self._scores.__getitem__, self.settings):
            self.store.remove(old)
            del self._scores[old]

    def _score(self, metrics: dict[str, float]) -> float | None:
        return metrics.get(self.settings.best_metric)


def kept(names: list[str], score: Callable[[str], float | None], settings: config.Checkpoint) -> set[str]:
    """Which of the committed checkpoints `names` (oldest first) stay: the newest `keep`, and the `keep_best` with the best score.

    score(name): its best_metric, or None where it was not logged yet. Of equal ones the newer counts as better.
    """
    stay = set(names[-settings.keep :])
    if settings.keep_best:
        sign = 1 if settings.best_mode == "max" else -1
        scored = [(sign * value, name) for name in names if (value := score(name)) is not None and value == value]
        stay |= {name for _, name in sorted(scored)[-settings.keep_best :]}
    return stay
