"""A worker in which nothing moves any more says where it stands, and ends, so that training starts again from the last checkpoint.

Every worker has a watchdog, a thread that looks whether the heartbeat moved within `scaling.hang_seconds`. When it was not, the thread
writes all stacks to standard error and to RUN/<job>/hangs/, waits for the same from the other workers, says which of them holds the
others up, and ends the process with status 75. Who waits in which collective is known from torch's flight recorder.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any, TypeVar

from spfem_dist.config import Run
from spfem_dist.stage import Job
from spfem_dist.training import heartbeat
from spfem_dist.training.runfolder import RunFolder
from spfem_dist.training.world import World

#: Exit status of a worker that hung (sysexits' EX_TEMPFAIL: try again).
HUNG = 75
#: Until the first step is done nothing has to be quicker than this, s, or than three times the limit: kernels are built, shards fetched.
START_S = 300.0
Result = TypeVar("Result")
_DEBUGGERS = ("bdb.py", "pdb.py", "pydevd.py", "pydevd_bundle", "debugpy")
_LIBRARIES = ("site-packages", "threading.py", "concurrent")


@dataclass(frozen=True)
class Report:
    """Where one rank stood when its watchdog fired.

    pending: collectives that it has begun and that have not ended. begun: collectives begun so far, by process group.
    place: innermost line of the training thread, and of that the innermost outside libraries.
    """

    rank: int
    host: str
    step: int
    what: str
    idle: float
    place: str
    pending: list[str]
    begun: dict[str, int]
    time: float

    def line(self, job: str) -> str:
        """For a person."""
        state = f"waits for the other workers in {', '.join(self.pending)}" if self.pending else "is in no collective"
        return (
            f"{job}: rank {self.rank} on {self.host} has not moved for {self.idle:.0f} s after step {self.step}, "
            f"{self.what}; it {state}, at {self.place}"
        )


def watched(train: Callable[..., Result]) -> Callable[..., Result]:
    """`train(job, run, world, ...)` with a watchdog."""

    @wraps(train)
    def run_watched(job: Job, run: Run, world: World, *more: Any) -> Result:
        with watching(run, job.name, world):
            return train(job, run, world, *more)

    return run_watched


@contextmanager
def watching(run: Run, job: str, world: World) -> Iterator[None]:
    """Within, end this process when nothing has moved for `scaling.hang_seconds` (until the first step, see START_S)."""
    heartbeat.restart()
    if not run.scaling.hang_seconds:
        yield
        return
    done = threading.Event()
    watch = threading.Thread(
        target=_watch, args=(run, job, world, threading.get_ident(), done), name="spfem-watchdog", daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
        faulthandler.cancel_dump_traceback_later()


def _watch(run: Run, job: str, world: World, training: int, done: threading.Event) -> None:
    limit = run.scaling.hang_seconds
    at_start = max(START_S, 3 * limit)
    tick = min(2.0, limit / 10)
    seen, idle, before = -1, 0.0, time.monotonic()
    while not done.wait(tick):
        if world.size > 1 and sys.__stderr__ is not None:
            # This thread needs the interpreter's lock. Should code that holds it never give it back, faulthandler needs none.
            with suppress(ValueError, OSError):
                faulthandler.dump_traceback_later(at_start + 60, exit=True, file=sys.__stderr__)
        now = time.monotonic()
        # A process that was stopped itself (Ctrl-Z, a laptop's lid) has not hung: long gaps between ticks do not count.
        idle, before = idle + min(now - before, 5 * tick), now
        if heartbeat.activity.count != seen or _debugged():
            seen, idle = heartbeat.activity.count, 0.0
        if idle > (limit if heartbeat.activity.begun else at_start):
            _end(run, job, world, training, idle)


def _debugged() -> bool:
    """Whether somebody looks at this process in a debugger: then it may stand."""
    frames = sys._current_frames().values()
    return any(
        frame.f_code.co_filename.endswith(_DEBUGGERS) for top in frames for frame, _ in traceback.walk_stack(top)
    )


def _end(run: Run, job: str, world: World, training: int, idle: float) -> None:
    """Tell, wait for the other workers to tell, name the culprit, and leave."""
    report = _report(world, training, idle)
    stacks = f"{report.line(job)}\n\n{_stacks(training)}"
    print(stacks, file=sys.stderr, flush=True)
    world.say(report.line(job))
    patience = min(10.0, max(2.0, run.scaling.hang_seconds / 2))
    # In a thread of its own: it may be the storage that hangs.
    telling = threading.Thread(target=_tell, args=(run, job, world, report, stacks, patience), daemon=True)
    telling.start()
    telling.join(patience + 5)
    time.sleep(1)  # what was said is on its way, and nobody leaves while another still listens
    os._exit(HUNG)


def _tell(run: Run, job: str, world: World, report: Report, stacks: str, patience: float) -> None:
    folder, place = RunFolder(run), f"{job}/hangs"
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(report.time))
    folder.fs.makedirs(f"{folder.root}/{place}", exist_ok=True)
    folder.fs.pipe_file(f"{folder.root}/{place}/{stamp}-rank-{world.rank}.txt", stacks.encode())
    folder.write(f"{place}/rank-{world.rank}.json", asdict(report))
    deadline = time.monotonic() + patience
    recent = report.time - patience - run.scaling.hang_seconds / 2
    while True:
        read = (folder.read(f"{place}/rank-{rank}.json") for rank in range(world.size))
        reports = [Report(**found) for found in read if found and found["time"] > recent]
        if len(reports) == world.size or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    if world.rank == min(r.rank for r in reports):
        line = f"{job}: {verdict(reports, world.size)}; stacks are in {folder.location}/{place}"
        print(line, file=sys.stderr, flush=True)
        world.say(line)


def verdict(reports: list[Report], size: int) -> str:
    """Which rank holds the others up, as far as the reports of `size` workers tell."""
    silent = sorted(set(range(size)) - {r.rank for r in reports})
    if silent:
        return f"{_ranks(silent)} did not report: stopped, or on a host that is away"
    free, waiting = [r for r in reports if not r.pending], [r for r in reports if r.pending]
    if size == 1 or not waiting:
        return "; ".join(f"rank {r.rank} stands still, {r.what}, at {r.place}" for r in free)
    if not free:
        # All wait: the one that has begun the fewest collectives took another way than the rest.
        behind = min(reports, key=lambda r: sum(r.begun.values()))
        if sum(behind.begun.values()) < max(sum(r.begun.values()) for r in reports):
            free = [behind]
        else:
            return (
                "all ranks wait for each other in a collective: the network between them, or one that differs by rank"
            )
    culprits = "; ".join(f"rank {r.rank} on {r.host} ({r.what}, at {r.place})" for r in free)
    return f"{_ranks([r.rank for r in waiting if r not in free])} waited for {culprits}"


def _ranks(numbers: list[int]) -> str:
    return f"rank{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _report(world: World, training: int, idle: float) -> Report:
    pending, begun = _collectives()
    stack = traceback.extract_stack(sys._current_frames().get(training))
    own = next((f for f in reversed(stack) if not any(part in f.filename for part in _LIBRARIES)), None)
    place = _place(stack[-1]) if stack else "an unknown place"
    if own is not None and own is not stack[-1]:
        place += f", called by {_place(own)}"
    return Report(
        world.rank,
        socket.gethostname(),
        heartbeat.activity.step,
        heartbeat.activity.what,
        round(idle, 1),
        place,
        pending,
        begun,
        time.time(),
    )


def _place(frame: traceback.FrameSummary) -> str:
    return f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} in {frame.name}"


def _collectives() -> tuple[list[str], dict[str, int]]:
    """Collectives begun and not ended, by name and shape, and the number begun by process group; of torch's flight recorder."""
    try:
        from torch._C import _distributed_c10d as c10d

        recorded = json.loads(c10d._dump_fr_trace_json())  # type: ignore[attr-defined]
    except (ImportError, AttributeError, ValueError, RuntimeError):
        return [], {}
    entries: list[dict[str, Any]] = recorded.get("entries", [])
    pending = [f"{e['profiling_name']} {e['input_sizes']}" for e in entries if not e["retired"]]
    begun: dict[str, int] = {}
    for entry in entries:
        group = entry["process_group"][0]
        begun[group] = max(begun.get(group, 0), entry["collective_seq_id"])
    return pending[:3], begun


def _stacks(training: int) -> str:
    """The stacks of all threads, the training thread first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] != training)
    return "\n".join(
        f"thread {names.get(ident, 'of a library')}{' (trains)' if ident == training else ''}:\n"
        + "".join(traceback.format_stack(frame))
        for ident, frame in frames
        if ident != threading.get_ident()
    )
