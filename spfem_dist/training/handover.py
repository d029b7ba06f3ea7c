"""Preemption under Ray Train: a worker that is told to go has a checkpoint made, and Ray starts the job again elsewhere.

Two notices count: SIGTERM to a worker process, and a node that is drained (a spot instance is reclaimed, `ray drain-node`, KubeRay's
shutdown), of which Ray Train's watcher tells every worker.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from spfem_dist.training import heartbeat

#: How long Ray Train may take to end the workers after a hand-over, seconds.
_PATIENCE_S = 120.0

_told = threading.Event()


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        super().on_start(worker_group, backend_config)
        worker_group.execute(_hear)


class HandoverConfig(TorchConfig):
    """TorchConfig whose workers hear SIGTERM: signals are handled in a process's main thread, and training runs in another."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """The backend that sets the workers up."""
        return _Backend


def _hear() -> None:
    _told.clear()
    before = signal.getsignal(signal.SIGTERM)

    def heard(number: int, frame: Any) -> None:
        if _told.is_set() and callable(before):  # who insists is obeyed
            before(number, frame)
        _told.set()

    signal.signal(signal.SIGTERM, heard)


def asked() -> bool:
    """Whether this worker was told that it has to go, or that some worker has."""
    return _told.is_set() or _context().preemption_info is not None


def yield_for_restart() -> None:
    """Have Ray Train end all workers at once and start the job again where there is room; does not return.

    Left alone it would wait until the drained node is gone. A worker that says that its time is up is a preemption, which does not count
    as a failure. Raises RuntimeError where nothing happens.
    """
    import ray
    from ray.train import PreemptionInfo

    rank, node = ray.train.get_context().get_world_rank(), ray.get_runtime_context().get_node_id()
    _context().preemption_info = PreemptionInfo(
        deadline_ms=int(time.time() * 1000), preempted_node_to_ranks={node: [rank]}
    )
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        heartbeat.beat("waiting for Ray Train to start again elsewhere")
        time.sleep(1.0)
    raise RuntimeError(
        f"process {os.getpid()} made room for another attempt, and Ray Train did not end it within {_PATIENCE_S:g} s"
    )


def _context() -> Any:
    # Not ray.train.get_preemption_info(): that is a barrier through an actor, and here every rank asks every few steps.
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context
