"""Who and where a training process is, and how it hands a checkpoint over: under Ray Train, torchrun, or alone.

The loop sees only `World`. Three ways of starting give the same loop, the same losses and the same checkpoint format.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from spfem_dist.faults import inject
from spfem_dist.storage import open_filesystem


class World(Protocol):
    """One process of a training job."""

    rank: int
    size: int
    local_rank: int
    launcher: str

    def latest(self) -> str | None:
        """Location of the newest committed checkpoint of this job, or None at the first start."""
        ...

    def commit(self, metrics: dict[str, Any], folder: Path) -> None:
        """Hand over this rank's files in `folder` as part of one checkpoint. Every rank calls it equally often."""
        ...

    def stop_requested(self) -> bool:
        """Whether somebody asked this job to stop (Ctrl-C, SIGTERM); asked of rank 0 only."""
        ...

    def say(self, line: str) -> None:
        """Show a line to the person who started the job."""
        ...


def device_of(world: World) -> torch.device:
    """The accelerator of this process, or the CPU."""
    if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu":
        # Ray narrows CUDA_VISIBLE_DEVICES to one device for each worker; torchrun does not.
        index = 0 if torch.cuda.device_count() == 1 else world.local_rank
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    return torch.device("cpu")


def agree(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is true on any rank; a collective, so every rank gets the same answer."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return flag
    vote = torch.tensor([int(flag)], device=device)
    dist.all_reduce(vote, op=dist.ReduceOp.MAX)
    return bool(vote.item())


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after optimiser step `step`; names sort by step."""
    return f"checkpoint_{step:09d}"


def committed(storage: str) -> list[str]:
    """Names of the complete checkpoints under `storage`, oldest first, whoever wrote them.

    Ray Train lists its own in a snapshot; without Ray a `committed.json` in the folder says so. Anything else is what a
    killed process left behind.
    """
    fs, root = open_filesystem(storage)
    if not fs.exists(root):
        return []
    names = {path.rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(root, detail=False)}
    found = {n for n in names if n.startswith("checkpoint_") and fs.exists(f"{root}/{n}/committed.json")}
    if "checkpoint_manager_snapshot.json" in names:
        with fs.open(f"{root}/checkpoint_manager_snapshot.json", "r") as f:
            listed = json.load(f)["checkpoint_results"]
        found |= names.intersection(result["checkpoint_dir_name"] for result in listed)
    return sorted(found)


class RayWorld:
    """A Ray Train worker."""

    launcher = "ray"

    def __init__(self, storage: str, desk: Any) -> None:
        import ray.train

        context = ray.train.get_context()
        self.rank, self.size = context.get_world_rank(), context.get_world_size()
        self.local_rank = context.get_local_rank()
        self._storage, self._desk = storage.rstrip("/"), desk

    def latest(self) -> str | None:
        """See `World.latest`; Ray Train's word counts for what it wrote itself, and what was written without Ray counts too."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        names = committed(self._storage) + ([checkpoint.path.rstrip("/").rsplit("/", 1)[-1]] if checkpoint else [])
        return f"{self._storage}/{max(names)}" if names else None

    def commit(self, metrics: dict[str, Any], folder: Path) -> None:
        """See `World.commit`; a barrier over all ranks inside Ray Train."""
        import ray.train

        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(str(folder)),
            checkpoint_dir_name=checkpoint_name(metrics["step"]),
        )

    def stop_requested(self) -> bool:
        """See `World.stop_requested`; the driver leaves the request at the desk."""
        import ray

        return bool(ray.get(self._desk.stopping.remote()))

    def say(self, line: str) -> None:
        """See `World.say`; the driver prints what it finds at the desk."""
        self._desk.say.remote(line)


class PlainWorld:
    """A process started alone, by torchrun or by `accelerate launch`; checkpoints go straight to the storage."""

    def __init__(self, storage: str, keep: int) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ or self.size > 1 else "local"
        self._storage, self._keep = storage.rstrip("/"), keep
        self._fs, self._root = open_filesystem(self._storage)
        self._stopping = threading.Event()

    def latest(self) -> str | None:
        """See `World.latest`; a checkpoint counts once its `committed.json` is there, or Ray Train lists it."""
        names = committed(self._storage)
        return f"{self._storage}/{names[-1]}" if names else None

    def commit(self, metrics: dict[str, Any], folder: Path) -> None:
        """See `World.commit`; rank 0 writes `committed.json` after every rank's files have arrived."""
        name = checkpoint_name(metrics["step"])
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            target = f"{self._root}/{name}/{file.relative_to(folder).as_posix()}"
            self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            self._fs.put_file(str(file), target)
            inject.during("upload", metrics["step"])
        _barrier()
        if self.rank == 0:
            with self._fs.open(f"{self._root}/{name}/committed.json", "w") as f:
                json.dump(metrics, f)
            for old in self._written_here()[: -self._keep]:
                self._fs.rm(f"{self._root}/{old}", recursive=True)
        _barrier()

    def stop_requested(self) -> bool:
        """See `World.stop_requested`; set by the signal handler of `stop_on_signals`."""
        return self._stopping.is_set()

    def say(self, line: str) -> None:
        """See `World.say`."""
        print(line, flush=True)

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

    def _written_here(self) -> list[str]:
        """What Ray Train wrote is its own to remove."""
        return [name for name in committed(self._storage) if self._fs.exists(f"{self._root}/{name}/committed.json")]


def _barrier() -> None:
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


@contextmanager
def fetched(checkpoint: str, wanted: list[str]) -> Iterator[Path]:
    """A local folder with the files of `checkpoint` that match one of the `wanted` patterns.

    A local checkpoint is used in place. From S3 only the wanted files come, so a rank reads its own shards and no others.
    """
    fs, root = open_filesystem(checkpoint)
    if fs.protocol in ("file", "local") or "file" in fs.protocol:
        yield Path(root)
        return
    folder = Path(tempfile.mkdtemp(prefix="spfem-restore-"))
    try:
        for path in fs.find(root):
            relative = Path(path[len(root) :].lstrip("/"))
            if any(relative.match(pattern) for pattern in wanted):
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                fs.get_file(path, str(folder / relative))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
