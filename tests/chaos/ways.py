"""Two ways to start the recipe of a cell: as a user does, on Ray; or its processes alone, forked from one that has imported everything."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import doors
from doors import ROOT
from hosts import ENVIRONMENT, Cluster

# What the processes of a run with tracking import as well: seconds for each start.
doors.PRELOADED += [
    "mlflow.tracking",
    "spfem_dist.tracking.tracker",
    "spfem_dist.generators.ned.stage",
    "accelerate.utils",
]


class OnRay:
    """`python recipes/R.py`, which joins a cluster of this machine; Ray Train replaces workers."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def starts(self, faults: tuple[str, ...]) -> int:
        """How often the command has to be given."""
        return 2 if "driver" in faults else 1

    def start(self, words: list[str], said: Path) -> bool:
        """Run the command to its end; whether it ended well."""
        self.cluster.fill()
        environment = ENVIRONMENT | {"RAY_ADDRESS": self.cluster.address}
        with said.open("a") as file:
            line = [sys.executable, *words]
            return not subprocess.run(line, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode


class Alone:
    """Two processes of plain torch.distributed. Whoever dies takes the other along, and the same command is given again."""

    def starts(self, faults: tuple[str, ...]) -> int:
        """See `OnRay.starts`."""
        return 1 + len(faults)

    def start(self, words: list[str], said: Path) -> bool:
        """See `OnRay.start`."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        with ThreadPoolExecutor(2) as pool:
            ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), **group} for rank in range(2)]
            ended = list(pool.map(lambda rank: doors.command("python", *words, **rank), ranks))
        with said.open("a") as file:
            file.writelines(f"--- rank {n}: {e.code}{os.linesep}{e.out}{e.err}" for n, e in enumerate(ended))
        return all(e.code == 0 for e in ended)
