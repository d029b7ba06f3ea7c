"""A Ray cluster of several nodes on this machine, whose nodes can be lost: real `ray start`, nothing of it shared with other clusters."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_worker_niceness": "0",  # Ray's own (15) starves the workers wherever anything else runs
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "SPFEM_HOME": "",
    "SPFEM_STATUS_SECONDS": "0",
}


class Cluster:
    """A Ray head with room for `on_head` workers, and nodes with room for one each. Ends with its `with`."""

    def __init__(self, on_head: int, nodes: int = 0) -> None:
        self.wanted = nodes
        self._on_head = on_head
        self._folder = tempfile.TemporaryDirectory(prefix="chaos-")
        self._started: list[subprocess.Popen] = []

    def __enter__(self) -> "Cluster":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.address = f"127.0.0.1:{port}"
        try:
            more = ("--temp-dir", self._folder.name, "--include-dashboard", "false")
            for tries in range(5):
                process = self._start("--head", "--port", port, "--num-cpus", str(self._on_head), *more)
                try:
                    self._until(1, process)
                    break
                except TimeoutError:  # Ray gives a node 30 s to come up, which a busy machine can need
                    if tries == 4:
                        raise
            self.fill()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            process.send_signal(signal.SIGTERM)  # to `ray start --block`, which ends what it started
        for process in self._started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        self._folder.cleanup()

    def fill(self) -> None:
        """Start as many nodes as were lost."""
        tries = 0
        while (alive := self._alive() - 1) < self.wanted:
            tries += 1
            process = self._start("--address", self.address, "--num-cpus", "1")
            try:
                self._until(alive + 2, process)
            except TimeoutError:
                if tries > 2 * self.wanted + 3:
                    raise

    def _start(self, *flags: str) -> subprocess.Popen:
        line = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", *flags]
        log = Path(self._folder.name) / f"start-{len(self._started)}.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                line, env=ENVIRONMENT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._started.append(process)
        return process

    def _alive(self) -> int:
        from ray._raylet import GcsClient

        try:
            nodes = GcsClient(address=self.address).get_all_node_info()
        except Exception:  # it is not there yet
            return 0
        return sum(node.state == 0 for node in nodes.values())

    def _until(self, nodes: int, process: subprocess.Popen | None = None) -> None:
        until = time.monotonic() + 240
        while self._alive() < nodes:
            if time.monotonic() > until or (process is not None and process.poll() is not None):
                said = Path(self._folder.name, f"start-{len(self._started) - 1}.txt").read_text()[-1500:]
                raise TimeoutError(f"{nodes} Ray nodes did not come up:\n{said}")
            time.sleep(0.5)
