"""The shards that recipes name when nobody says otherwise: the synthetic corpus, made where it is absent.

One folder for each seed, the same for recipes, demo and benchmarks: `shards/synthetic`, and `shards/synthetic-<seed>` for others than 0.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from spfem_dist.files import home
from spfem_dist.shard_format import INDEX_NAME
from spfem_dist.storage import open_filesystem

#: How long a process waits for another one of its node that makes the shards, seconds.
PATIENCE_S = 3600.0
_PLACE = re.compile(r"(?:^|/)shards/synthetic(?:-([1-9]\d*))?/?$")


class NoCommonFolder(RuntimeError):
    """A cluster whose nodes do not all see the folder for the shards; the message says which node and what to do."""


def folder_of(seed: int) -> str:
    """The folder of the synthetic corpus of `seed`, relative to SPFEM_HOME or the current folder."""
    return "shards/synthetic" if seed == 0 else f"shards/synthetic-{seed}"


def seed_of(shards: str) -> int | None:
    """The seed of the corpus that belongs at `shards` (absolute, or in a bucket); None where that is no place of ours."""
    found = _PLACE.search(shards)
    if found is None:
        return None
    seed = int(found[1] or 0)
    start = Path(home()).resolve()
    ours = "://" in shards or Path(shards).resolve() == start / folder_of(seed)
    return seed if ours else None


def are_there(shards: str) -> bool:
    """Whether `shards` has an index."""
    fs, root = open_filesystem(shards)
    return bool(fs.exists(f"{root}/{INDEX_NAME}"))


def make(shards: str, console: Console, on_ray: bool = False) -> None:
    """Render and prepare the synthetic corpus at `shards`, a place that `seed_of` knows; nothing where it is there already.

    on_ray: in parallel tasks of the Ray that this process has joined. Raises NoCommonFolder where its nodes do not all see `shards`.
    Of several processes on a node one does it, and the others wait.
    """
    from spfem_dist.prepare import job
    from spfem_dist.prepare.plan import PrepareSettings

    seed = seed_of(shards)
    assert seed is not None, shards
    bucket = "://" in shards
    if on_ray and not bucket:
        _refuse_separate_folders(Path(shards))
    with _one_at_a_time(shards):
        if are_there(shards):
            return
        console.print(
            f"no shards at {shards}: the synthetic corpus (seed {seed}) is rendered and prepared there first; "
            "a minute or two, once",
            highlight=False,
            soft_wrap=True,
        )
        if not bucket:
            job.run(PrepareSettings(corpus="synthetic", out=Path(shards), seed=seed, local=not on_ray), console)
            return
        with tempfile.TemporaryDirectory() as folder:
            job.run(PrepareSettings(corpus="synthetic", out=Path(folder), seed=seed, local=True), console)
            fs, root = open_filesystem(shards)
            # The index last: it says that all is there.
            for file in [
                *sorted(Path(folder).glob("*.tar")),
                *Path(folder).glob("*.arrows"),
                Path(folder) / INDEX_NAME,
            ]:
                fs.put_file(str(file), f"{root}/{file.name}")


@contextmanager
def _one_at_a_time(shards: str) -> Iterator[None]:
    """Hold the lock of `shards` on this node; the processes of a node beside its first one leave the work to that one."""
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:
        _wait_for(shards)
    place = Path(tempfile.gettempdir()) / f"spfem-{os.getuid()}" if "://" in shards else Path(shards).parent
    place.mkdir(parents=True, exist_ok=True)
    with open(place / f".{Path(shards).name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _wait_for(shards: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not are_there(shards):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the first process of this node has not made {shards} in {PATIENCE_S:g} s")
        time.sleep(1.0)


def _refuse_separate_folders(out: Path) -> None:
    """Raise NoCommonFolder where a node of the cluster does not see what this process writes beside `out`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    probe = out.parent / f".seen-by-all-{uuid.uuid4().hex}"
    probe.touch()
    look = ray.remote(num_cpus=0, max_retries=0)(os.path.exists)
    try:
        asked = {
            node["NodeManagerAddress"]: look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(probe))
            for node in nodes
        }
        blind = [address for address, answer in asked.items() if not ray.get(answer, timeout=60)]
    finally:
        probe.unlink()
    if blind:
        raise NoCommonFolder(
            f"there are no shards at {out}, and the synthetic corpus cannot be made there: node {blind[0]} does not see this folder. "
            "Start Ray on every node with SPFEM_HOME naming a folder that they share, or give --data.shards s3://bucket/shards/synthetic"
        )
