"""Faults on request: what a run's `faults` say, done to this very process, worker, node or checkpoint.

The training loop calls `at_step`, `during` and `stream` at the places where a fault may fire; without faults they do nothing.
A fault fires once in a run, however often the run is started again: RUN/faults/ holds a mark for each that has, written first.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil

from spfem_dist.config import Run
from spfem_dist.faults import nans
from spfem_dist.faults.grammar import Fault, parse_fault
from spfem_dist.faults.storage import disturbed_s3
from spfem_dist.training.lock import RunLock
from spfem_dist.training.runfolder import RunFolder

if TYPE_CHECKING:  # the world itself asks for faults while it hands a checkpoint over
    from spfem_dist.training.world import World


Where = dict[str, Any]
Action = Callable[[], None]


class FaultError(RuntimeError):
    """A fault that cannot fire where the run is; the message says why."""


@dataclass
class _Armed:
    """What this process has to know to fire."""

    run: Run
    job: str
    world: World
    folder: RunFolder
    faults: list[tuple[str, Fault]]


_armed: _Armed | None = None


@contextmanager
def armed(run: Run, job: str, world: World) -> Iterator[None]:
    """Within, this process suffers the faults that `run` has for it."""
    global _armed
    if not run.faults:
        yield
        return
    folder = RunFolder(run)
    mine = [
        (mark, fault)
        for mark, fault in marked(run.faults)
        if fault.job in ("", job) and (fault.moment == "s3" or world.rank == (fault.rank or 0))
    ]
    storage = [fault for _, fault in mine if fault.moment == "s3"]
    _armed = _Armed(run, job, world, folder, [(m, f) for m, f in mine if f.lasting or not _fired(folder, m)])
    try:
        with disturbed_s3(storage, run.seed * 1000 + world.rank):
            _corrupt()
            yield
    finally:
        _armed = None


def marked(faults: tuple[str, ...]) -> list[tuple[str, Fault]]:
    """Every fault with the name of its mark; one that is given twice fires twice, so the second has another name."""
    found: list[tuple[str, Fault]] = []
    for fault in map(parse_fault, faults):
        mark, count = re.sub(r"\W+", "-", fault.text), sum(fault == other for _, other in found)
        found.append((f"{mark}-again-{count}" if count else mark, fault))
    return found


def not_fired(run: Run) -> list[str]:
    """The faults of `run` that should have fired and have not."""
    folder = RunFolder(run)
    return [fault.text for mark, fault in marked(run.faults) if not fault.lasting and not _fired(folder, mark)]


def at_step(samples: int, global_batch: int) -> None:
    """A step begins that uses the samples from `samples` on: fire what is due in it."""
    if _armed is None:
        return
    _corrupt()
    for mark, fault in _due("step"):
        if fault.sample is not None and samples <= fault.sample < samples + global_batch:
            _trigger(mark, fault, samples=samples)


@contextmanager
def planted(trained: Mapping[str, Any], samples: int, global_batch: int) -> Iterator[None]:
    """Within, the optimiser step that uses the samples from `samples` on, with the NaNs that are due in it.

    trained: the engines; the first one's network gets them.
    """
    if _armed is None:
        yield
        return
    engine = next(iter(trained.values()))
    due = [(m, f) for m, f in _due("update") if samples <= (f.sample or 0) < samples + global_batch]
    with ExitStack() as held:
        for mark, fault in due:
            plant = nans.PLANTS[fault.action.removeprefix("nan in ")]
            if plant is not nans.weights:
                _trigger(mark, fault, partial(plant, engine, held), samples=samples)
        yield
    for mark, fault in due:
        if fault.action == "nan in weights":
            _trigger(mark, fault, partial(nans.weights, engine), samples=samples)


def during(moment: str, step: int) -> None:
    """The checkpoint after optimiser step `step` is at `moment`: `checkpoint` (written, not handed over) or `upload`
    (a file has arrived, the manifest has not)."""
    if _armed is None:
        return
    every = _armed.run.checkpoint.every_steps
    for mark, fault in _due(moment):
        if fault.checkpoint == _number(step, every):
            _trigger(mark, fault, step=step)


def stream(batches: Iterator[Any], start: int, global_batch: int, accumulation: int) -> Iterator[Any]:
    """This rank's batches from sample `start` on, with the faults of its loader."""
    if _armed is None or not _due("loader"):
        return batches
    return _disturbed(batches, start, global_batch, accumulation)


def _disturbed(batches: Iterator[Any], start: int, global_batch: int, accumulation: int) -> Iterator[Any]:
    for number, (batch, waited) in enumerate(batches):
        samples = start + number // accumulation * global_batch
        began = time.perf_counter()
        for mark, fault in _due("loader"):
            if fault.action == "slow" and samples + global_batch > (fault.sample or 0):
                time.sleep(fault.seconds or 0)
            elif fault.action == "hang" and samples <= (fault.sample or 0) < samples + global_batch:
                _trigger(mark, fault, samples=samples)
        yield batch, waited + time.perf_counter() - began


def _due(moment: str) -> list[tuple[str, Fault]]:
    """The faults of this moment that are this rank's to execute and have not fired."""
    assert _armed is not None
    return [(mark, fault) for mark, fault in _armed.faults if fault.moment == moment]


def _fired(folder: RunFolder, mark: str) -> bool:
    return folder.read(f"faults/{mark}.json") is not None


def _trigger(mark: str, fault: Fault, act: Action | None = None, **where: Any) -> None:
    """Fire the fault: call `act`, or what its action is."""
    assert _armed is not None
    _armed.faults.remove((mark, fault))
    if _fired(_armed.folder, mark):  # another job was there first
        return
    act = act or _ACTIONS[fault.action](fault, where)
    place = {"job": _armed.job, "rank": _armed.world.rank, "host": socket.gethostname(), "pid": os.getpid()}
    _armed.folder.write(f"faults/{mark}.json", {"fault": fault.text, "time": time.time(), **place, **where})
    print(f"fault: {fault.text!r} fires in rank {_armed.world.rank} of {_armed.job}", file=sys.stderr, flush=True)
    act()


# --- what fires: each looks first whether it can, and returns what to call -------------------------------------------


def _kill(_fault: Fault, _where: Where) -> Action:
    return lambda: os.kill(os.getpid(), signal.SIGKILL)


def _kill_driver(fault: Fault, _where: Where) -> Action:
    assert _armed is not None
    holder = RunLock(_armed.folder.location).holder()
    if not holder:
        raise FaultError(f"{fault.text}: no process holds {_armed.folder.location}, so there is no driver to kill")
    pid, created = holder["pid"], holder["created"]
    here = holder["host"] == socket.gethostname()

    def end() -> None:
        if here:
            _kill_process(pid, created)
        else:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            node = next(n for n in ray.nodes() if n["Alive"] and n["NodeManagerHostname"] == holder["host"])
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ray.get(
                ray.remote(num_cpus=0)(_kill_process)
                .options(scheduling_strategy=there, max_retries=0)
                .remote(pid, created)
            )
        time.sleep(600)  # workers end with their driver; this step is not to be finished before that

    return end


def _kill_process(pid: int, created: float) -> None:
    """SIGKILL to the process `pid` that was born at `created`, and to no later one of that number."""
    process = psutil.Process(pid)
    if process.create_time() == created:
        process.kill()


def _drop_node(fault: Fault, _where: Where) -> Action:
    """Kill the raylet that started this worker, then all that it started: for the cluster the node is gone."""
    raylet = next((p for p in psutil.Process().parents() if p.name() == "raylet"), None)
    if raylet is None:
        raise FaultError(f"{fault.text}: this process was not started by Ray, so it has no node to drop")
    import ray

    here = ray.get_runtime_context().get_node_id()
    if any("node:__internal_head__" in node["Resources"] for node in ray.nodes() if node["NodeID"] == here):
        raise FaultError(
            f"{fault.text}: that worker is on the head node, whose loss ends the cluster; give the head no room "
            "for workers (ray start --head --num-cpus 0)"
        )

    def end() -> None:
        children = raylet.children(recursive=True)
        raylet.kill()
        for child in (c for c in children if c.pid != os.getpid()):
            child.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    return end


def _hang(fault: Fault, _where: Where) -> Action:
    return lambda: time.sleep(fault.seconds if fault.seconds is not None else 10**9)


def _change(_fault: Fault, where: Where) -> Action:
    """Change bytes in the middle of a file."""
    assert _armed is not None
    fs = _armed.folder.fs

    def change() -> None:
        content = bytearray(fs.cat_file(where["file"]))
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(255 - byte for byte in content[middle : middle + 64])
        fs.pipe_file(where["file"], bytes(content))

    return change


_ACTIONS: dict[str, Callable[[Fault, Where], Action]] = {
    "kill": _kill,
    "kill driver": _kill_driver,
    "drop node": _drop_node,
    "hang": _hang,
    "corrupt": _change,
}


def _corrupt() -> None:
    """Damage each committed checkpoint that a fault names, in its largest file."""
    from spfem_dist.training.manifest import committed

    assert _armed is not None
    for mark, fault in _due("committed"):
        storage, every = f"{_armed.folder.root}/{_armed.job}", _armed.run.checkpoint.every_steps
        for name in committed(f"{_armed.folder.location}/{_armed.job}"):
            if _number(int(name.rsplit("_", 1)[-1]), every) == fault.checkpoint:
                path = max(_armed.folder.fs.find(f"{storage}/{name}"), key=_armed.folder.fs.size)
                _trigger(mark, fault, file=path)


def _number(step: int, every: int) -> int:
    """The how-manieth checkpoint that of optimiser step `step` is, from 1."""
    return -(-step // every)
