"""What one node says of itself. Runs on the node, in a small Ray actor, with nothing that needs a GPU."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import psutil

import spfem_dist
from spfem_dist.files import cache_folder

#: Distributions whose versions must agree between nodes.
WATCHED = ("torch", "deepspeed", "ray", "spfem-dist")


def current_cluster() -> Path:
    """Where `ray start` leaves the address of the cluster it made. A crash leaves the file behind."""
    from ray._common.utils import get_ray_address_file

    return Path(get_ray_address_file(None))


@dataclass(frozen=True)
class Interface:
    """The network interface that a communication library would use, as far as can be told beforehand.

    how: the variable that chose it, or how it was found.
    """

    name: str
    address: str
    how: str

    @property
    def loopback(self) -> bool:
        """Whether other nodes cannot reach it."""
        return self.name == "lo" or self.address.startswith("127.")


@dataclass(frozen=True)
class NodeFacts:
    """One node. Sizes in GB (1e9 bytes)."""

    host: str
    address: str
    versions: dict[str, str]
    cpus: int
    memory_gb: float
    shm_gb: float
    open_files: int
    temporary: tuple[str, float]
    cache: tuple[str, float]
    authentication: str
    gloo: Interface
    nccl: str
    stale_cluster: str
    gpus: tuple[str, ...] = ()
    driver: str = ""
    cuda: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How a row names this node."""
        return f"{self.host} ({self.address})"


def gather(address: str, cache: str = "", gpu: bool = False) -> NodeFacts:
    """The facts of this machine.

    address: its address in the cluster. cache: data.cache. gpu: also ask the NVIDIA driver and torch's CUDA.
    """
    temporary, folder = Path(tempfile.gettempdir()), Path(cache).expanduser() if cache else cache_folder("shards")
    gpus, driver, cuda = _gpus() if gpu else ((), "", "")
    return NodeFacts(
        host=socket.gethostname(),
        address=address,
        versions=versions(),
        cpus=os.cpu_count() or 1,
        memory_gb=psutil.virtual_memory().total / 1e9,
        shm_gb=shutil.disk_usage("/dev/shm").total / 1e9 if Path("/dev/shm").is_dir() else 0.0,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        temporary=(str(temporary), free_gb(temporary)),
        cache=(str(folder), free_gb(folder)),
        authentication=os.environ.get("RAY_AUTH_MODE", ""),
        gloo=gloo_interface(),
        nccl=os.environ.get("NCCL_SOCKET_IFNAME", ""),
        stale_cluster=stale_cluster(),
        gpus=gpus,
        driver=driver,
        cuda=cuda,
    )


def versions() -> dict[str, str]:
    """Versions of what must agree; `code` is a digest of this package's own files, for copies that say the same version."""
    found = {"python": platform.python_version()}
    for name in WATCHED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a copied folder: the digest tells
            found[name] = "not installed"
    return found | {"code": code_digest()}


def code_digest() -> str:
    """The first digits of a hash over the names and contents of this package's Python files."""
    root, digest = Path(spfem_dist.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:10]


def free_gb(folder: Path) -> float:
    """Free space where `folder` lies or would be made, GB."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9


def gloo_interface(environment: Mapping[str, str] | None = None) -> Interface:
    """The interface of GLOO_SOCKET_IFNAME, or else that of the address to which this host's own name resolves."""
    known = {
        entry.address: name
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET
    }
    if wanted := (os.environ if environment is None else environment).get("GLOO_SOCKET_IFNAME"):
        first = wanted.split(",")[0]
        address = next((address for address, name in known.items() if name == first), "")
        return Interface(first, address, "GLOO_SOCKET_IFNAME")
    with suppress(OSError):
        address = socket.gethostbyname(socket.gethostname())
        return Interface(known.get(address, "lo" if address.startswith("127.") else ""), address, "the host's name")
    return Interface("", "", "the host's name, which resolves to no address")


def interface_of(address: str) -> str:
    """Name of the interface that bears `address`, or ''."""
    return next(
        (name for name, entries in psutil.net_if_addrs().items() if any(e.address == address for e in entries)), ""
    )


def stale_cluster(file: Path | None = None, patience: float = 2.0) -> str:
    """The address that Ray's file names although nobody answers there, or ''."""
    file = file or current_cluster()
    try:
        address = file.read_text().strip()
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=patience):
            return ""
    except (FileNotFoundError, PermissionError):
        return ""
    except (OSError, ValueError):
        return address


def running_cluster(file: Path | None = None) -> str:
    """The address of a Ray cluster that this machine is part of, or ''."""
    file = file or current_cluster()
    return file.read_text().strip() if file.exists() and not stale_cluster(file) else ""


def _gpus() -> tuple[tuple[str, ...], str, str]:
    """(name and memory of each GPU, driver, CUDA and NCCL of torch). Without a GPU handle: Ray hides GPUs from this actor."""
    import torch

    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        return (), f"nvidia-smi: {error}", str(torch.version.cuda)
    rows = [[part.strip() for part in line.split(",")] for line in listed if line.count(",") == 2]
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.version.cuda else "none"
    return (
        tuple(f"{row[0]}, {row[1]}" for row in rows),
        rows[0][2] if rows else "",
        f"{torch.version.cuda}, NCCL {nccl}",
    )


def now() -> float:
    """This node's clock, seconds."""
    return time.time()
