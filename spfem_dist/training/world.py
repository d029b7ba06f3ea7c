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

import fsspec
import torch
import torch.distributed as dist


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


class RayWorld:
    """A Ray Train worker."""

    launcher = "ray"

    def __init__(self, desk: Any) -> None:
        import ray.train

        context = ray.train.get_context()
        self.rank, self.size = context.get_world_rank(), context.get_world_size()
        self.local_rank = context.get_local_rank()
        self._desk = desk

    def latest(self) -> str | None:
        """See `World.latest`; only checkpoints that Ray Train has committed."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        # Each rank reads only its own shards from the storage, so the path is what matters, not a full download.
        path = checkpoint.path
        if "://" not in path and checkpoint.filesystem.type_name != "local":
            path = f"s3://{path}"
        return path

    def commit(self, metrics: dict[str, Any], folder: Path) -> None:
        """See `World.commit`; a barrier over all ranks inside Ray Train."""
        import ray.train

        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))

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
        self._fs, self._root = fsspec.core.url_to_fs(self._storage)
        self._stopping = threading.Event()

    def latest(self) -> str | None:
        """See `World.latest`; a checkpoint counts once its `committed.json` is there."""
        committed = [name for name in self._checkpoints() if self._fs.exists(f"{self._root}/{name}/committed.json")]
        return f"{self._storage}/{committed[-1]}" if committed else None

    def commit(self, metrics: dict[str, Any], folder: Path) -> None:
        """See `World.commit`; rank 0 writes `committed.json` after every rank's files have arrived."""
        name = f"checkpoint_{metrics['step']:09d}"
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            target = f"{self._root}/{name}/{file.relative_to(folder).as_posix()}"
            self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            self._fs.put_file(str(file), target)
        _barrier()
        if self.rank == 0:
            with self._fs.open(f"{self._root}/{name}/committed.json", "w") as f:
                json.dump(metrics, f)
            for old in self._checkpoints()[: -self._keep]:
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

    def _checkpoints(self) -> list[str]:
        if not self._fs.exists(self._root):
            return []
        names = (path.rstrip("/").rsplit("/", 1)[-1] for path in self._fs.ls(self._root, detail=False))
        return sorted(name for name in names if name.startswith("checkpoint_"))


def _barrier() -> None:
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


@contextmanager
def fetched(checkpoint: str, wanted: list[str]) -> Iterator[Path]:
    """A local folder with the files of `checkpoint` that match one of the `wanted` patterns.

    A local checkpoint is used in place. From S3 only the wanted files come, so a rank reads its own shards and no others.
    """
    fs, root = fsspec.core.url_to_fs(checkpoint)
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
