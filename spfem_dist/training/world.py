"""Who and where a training process is: under Ray Train, torchrun, or alone.

The loop sees only `World`. Three ways of starting give the same loop, the same losses and the same checkpoint format.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist

from spfem_dist.training.screen import Screen, Status

T = TypeVar("T")


class World(Protocol):
    """One process of a training job. storage: where the job's checkpoints lie. node_rank: number of its host. holder: the number
    under which the run is held (see `lock`), 0 where it is not."""

    rank: int
    size: int
    local_rank: int
    node_rank: int
    launcher: str
    storage: str
    holder: int

    def report(self, facts: dict[str, Any]) -> None:
        """Tell whoever started this process where the run stands. Every rank calls it equally often."""
        ...

    def stop_requested(self) -> bool:
        """Whether somebody asked this job to stop (Ctrl-C, SIGTERM); it stops when any rank says so."""
        ...

    def preempted(self) -> bool:
        """Whether this process or its host is about to be taken away, and the job is to go on elsewhere."""
        ...

    def yield_for_restart(self) -> None:
        """Make room for the next attempt, which goes on from the checkpoint just committed. Does not return. Every rank calls it."""
        ...

    def say(self, line: str) -> None:
        """Show a line to the person who started the job."""
        ...

    def show(self, status: Status) -> None:
        """Show that person where the job stands; a later status takes the place of an earlier one."""
        ...


def device_of(world: World) -> torch.device:
    """The accelerator of this process, or the CPU."""
    if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu":
        # Ray narrows CUDA_VISIBLE_DEVICES to one device for each worker; torchrun does not.
        index = 0 if torch.cuda.device_count() == 1 else world.local_rank
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    return torch.device("cpu")


def highest(values: list[int], device: torch.device) -> list[int]:
    """The largest of each of these numbers over all ranks. A collective."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    votes = torch.tensor(values, device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return votes.tolist()


def from_rank_zero(world: World, call: Callable[[], T]) -> T:
    """What `call` gives on rank 0, on every rank; what it raises there is raised on every rank. A collective."""
    box: list[Any] = [None, None]
    if world.rank == 0:
        try:
            box[0] = call()
        except Exception as error:
            box[1] = error
    if world.size > 1:
        dist.broadcast_object_list(box)
    if box[1] is not None:
        raise box[1]
    return box[0]


def gathered(world: World, value: T) -> list[T]:
    """Every rank's value, by rank. A collective."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


class RayWorld:
    """A Ray Train worker."""

    launcher = "ray"

    def __init__(self, storage: str, mailbox: Any, holder: int = 0) -> None:
        import ray.train

        context = ray.train.get_context()
        self.rank, self.size = context.get_world_rank(), context.get_world_size()
        self.local_rank, self.node_rank = context.get_local_rank(), context.get_node_rank()
        self.storage, self._mailbox, self.holder = storage.rstrip("/"), mailbox, holder

    def report(self, facts: dict[str, Any]) -> None:
        """See `World.report`. Which checkpoints there are is not said: Ray Train's word on that lags behind by one poll, and its
        snapshot refuses a folder from which one was removed. The manifests say it."""
        import ray.train

        ray.train.report(facts)

    def stop_requested(self) -> bool:
        """See `World.stop_requested`; the driver leaves the request in the mailbox."""
        import ray

        return self.rank == 0 and bool(ray.get(self._mailbox.stopping.remote()))

    def preempted(self) -> bool:
        """See `World.preempted`: SIGTERM to this process, or Ray's notice that a node is being drained (on every worker)."""
        from spfem_dist.training import handover

        return handover.asked()

    def yield_for_restart(self) -> None:
        """See `World.yield_for_restart`."""
        from spfem_dist.training import handover

        handover.yield_for_restart()

    def say(self, line: str) -> None:
        """See `World.say`; the driver prints what it finds in the mailbox."""
        self._mailbox.say.remote(line)

    def show(self, status: Status) -> None:
        """See `World.show`; plain values, since the mailbox's process imports nothing."""
        self._mailbox.show.remote(status.as_dict())


class PlainWorld:
    """A process started alone, by torchrun or by `accelerate launch`."""

    def __init__(self, storage: str, screen: Screen | None = None, holder: int = 0) -> None:
        self._screen = screen or Screen()
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ or self.size > 1 else "local"
        self.node_rank = int(os.environ.get("GROUP_RANK", "0"))
        self.storage, self.holder = storage.rstrip("/"), holder
        self._stopping = threading.Event()

    def report(self, facts: dict[str, Any]) -> None:
        """See `World.report`; nobody else wants to know."""

    def stop_requested(self) -> bool:
        """See `World.stop_requested`; set by the signal handler of `stop_on_signals`."""
        return self._stopping.is_set()

    def preempted(self) -> bool:
        """See `World.preempted`: nobody would start this process elsewhere, so SIGTERM is a stop."""
        return False

    def yield_for_restart(self) -> None:
        """See `World.yield_for_restart`; never asked for."""
        raise AssertionError("a process that nobody starts again does not hand over")

    def say(self, line: str) -> None:
        """See `World.say`."""
        self._screen.say(line)

    def show(self, status: Status) -> None:
        """See `World.show`."""
        self._screen.show(status)

    @contextmanager
    def stop_on_signals(self) -> Iterator[None]:
        """While inside, the first Ctrl-C or SIGTERM asks for a clean stop and a second one interrupts at once."""

        def ask(number: int, _frame: object) -> None:
            if self._stopping.is_set():
                raise KeyboardInterrupt
            self._stopping.set()

        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
