"""CPU, memory, disk, network and GPUs of every node of a run, watched by MLflow's own monitor.

One process of each node (local rank 0) watches its node and writes `system/node_K/...` to the run of the job, K being the number that the
launcher gave the node. The step of these points is the count of readings, as everywhere in MLflow; their time is what lines them up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from spfem_dist.config import Run
from spfem_dist.redact import redact
from spfem_dist.tracking.store import open_client

log = logging.getLogger(__name__)


class NodeMonitor(SystemMetricsMonitor):
    """MLflow's monitor, which otherwise ends for good when the store once does not answer."""

    def monitor(self) -> None:
        """Watch until `finish`."""
        while not self._shutdown_event.is_set():
            super().monitor()
            self._shutdown_event.wait(self.sampling_interval)


class _Redacted(logging.Filter):
    """MLflow's monitor prints what a request failed with, and that names the URI."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        return record.levelno >= logging.WARNING


_redacted = _Redacted()


@contextmanager
def watched(run: Run, run_id: str, node: int) -> Iterator[None]:
    """Record this node under number `node` in the MLflow run `run_id` for as long as the block runs."""
    uri = run.tracking.uri
    if uri.startswith("sqlite:") and node > 0:
        log.warning(
            "no system metrics of node %d: an SQLite file is the first node's own; give --tracking.uri http://server:5000",
            node,
        )
        yield
        return
    logging.getLogger("mlflow.system_metrics.system_metrics_monitor").addFilter(_redacted)
    open_client(uri)  # for its settings of time limits
    monitor = NodeMonitor(run_id, resume_logging=True, node_id=f"node_{node}", tracking_uri=uri)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
