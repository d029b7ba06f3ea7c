"""What is tried on a node: storage, shards, tracking. One actor for each node, so that each answers for itself."""

from __future__ import annotations

import os
import time
from pathlib import PurePosixPath
from typing import Any

from spfem_dist.config import Data, Storage
from spfem_dist.doctor import node
from spfem_dist.doctor.finding import public
from spfem_dist.storage import open_filesystem, set_retry_policy

#: Folder that the storage check makes and removes.
MARKER = ".spfem-doctor"
#: Seconds for which S3 is waited for: a doctor tells what is wrong now, a run may wait it out.
PATIENCE_S = 10.0


class NodeProbe:
    """Answers for one node. Every answer is a plain dictionary; what failed is in `error`, in words, without secrets."""

    def facts(self, address: str, cache: str, gpu: bool) -> node.NodeFacts:
        """See `node.gather`."""
        return node.gather(address, cache, gpu)

    def now(self) -> float:
        """This node's clock, seconds."""
        return node.now()

    def interface_of(self, address: str) -> str:
        """See `node.interface_of`."""
        return node.interface_of(address)

    def write(self, storage: str, token: str, name: str, megabytes: int) -> dict[str, Any]:
        """Write this node's marker of `megabytes` MB under `storage`; {"mb_s"} or {"error"}."""
        try:
            fs, root = _open(storage)
            fs.makedirs(f"{root}/{MARKER}/{token}", exist_ok=True)
            content = os.urandom(1 << 20) * megabytes  # nothing on the way can compress it away
            began = time.perf_counter()
            with fs.open(f"{root}/{MARKER}/{token}/{name}", "wb") as file:
                file.write(content)
                file.flush()
                if hasattr(file, "fileno"):
                    os.fsync(file.fileno())
            return {"mb_s": len(content) / 1e6 / (time.perf_counter() - began)}
        except Exception as error:  # any failure of any storage is this check's result
            return {"error": public(f"{type(error).__name__}: {error}")}

    def see(self, storage: str, token: str, name: str) -> dict[str, Any]:
        """The markers this node sees, and its own read back: {"seen", "mb_s"} or {"error"}."""
        try:
            fs, root = _open(storage)
            seen = sorted(PurePosixPath(p).name for p in fs.ls(f"{root}/{MARKER}/{token}", detail=False))
            began = time.perf_counter()
            content = fs.cat_file(f"{root}/{MARKER}/{token}/{name}")
            return {"seen": seen, "mb_s": len(content) / 1e6 / (time.perf_counter() - began)}
        except Exception as error:
            return {"error": public(f"{type(error).__name__}: {error}")}

    def clean(self, storage: str, token: str) -> dict[str, Any]:
        """Remove the markers; {"left"} is what still lies there, as it does where deleting is not allowed."""
        try:
            fs, root = _open(storage)
            if fs.exists(f"{root}/{MARKER}/{token}"):
                fs.rm(f"{root}/{MARKER}/{token}", recursive=True)
            left = fs.find(f"{root}/{MARKER}/{token}") if fs.exists(f"{root}/{MARKER}/{token}") else []
            if not left and fs.exists(f"{root}/{MARKER}") and not fs.ls(f"{root}/{MARKER}", detail=False):
                fs.rmdir(f"{root}/{MARKER}")
            return {"left": len(left)}
        except FileNotFoundError:  # another node was faster
            return {"left": 0}
        except Exception as error:
            return {"error": public(f"{type(error).__name__}: {error}")}

    def shards(self, data: dict[str, Any], megabytes: int) -> dict[str, Any]:
        """Read the index and up to `megabytes` MB of shards past every cache: {"digest", "groups", "mb_s"} or {"error"}."""
        from spfem_dist.streaming.reader import ShardReader
        from spfem_dist.streaming.store import LocalStore

        set_retry_policy(Storage(patience_s=PATIENCE_S))
        try:
            reader = ShardReader.of(Data.model_validate(data | {"retries": 2}))
            store, left, read, took = reader.store, megabytes << 20, 0, 0.0
            for shard in reader.index.shards:
                size = min(shard.bytes, left)
                began = time.perf_counter()
                if isinstance(store, LocalStore):
                    content = store.read(shard, 0, size)
                else:
                    content = store.fs.cat_file(f"{store.path}/{shard.name}", start=0, end=size)
                took += time.perf_counter() - began
                read, left = read + len(content), left - size
                if left <= 0:
                    break
            groups = sum(len(shard.groups) for shard in reader.index.shards)
            return {"digest": reader.index.digest, "groups": groups, "mb_s": read / 1e6 / max(took, 1e-9)}
        except Exception as error:
            return {"error": public(error)}

    def tracking(self, uri: str, experiment: str, token: str, write: bool) -> dict[str, Any]:
        """Leave `token` at the experiment (write), or read what is left there: {"detail", "token"} or {"error"}."""
        from spfem_dist.tracking import store

        reach = store.reachable(uri)
        if not reach.ok:
            return {"error": public(reach.detail)}
        try:
            client = store.open_client(uri)
            if write:
                client.set_experiment_tag(store.open_experiment(uri, experiment), "spfem.doctor", token)
            found = client.get_experiment_by_name(experiment)
            return {"detail": reach.detail, "token": found.tags.get("spfem.doctor", "") if found else ""}
        except Exception as error:
            return {"error": public(f"{type(error).__name__}: {error}")}


def decode_on_gpu(data: dict[str, Any]) -> dict[str, Any]:
    """Decode the first recording of the shards by DALI on this process's GPU: {"frames", "seconds"} or {"error"}."""
    import torch

    from spfem_dist.streaming.decode import decode_many
    from spfem_dist.streaming.encoded import Request
    from spfem_dist.streaming.reader import ShardReader

    try:
        group = ShardReader.of(Data.model_validate(data)).read(0, 0, whole=False, landmarks=False)
        recording = group.recordings[0]
        began = time.perf_counter()
        wanted = Request(recording.video, range(recording.frames), recording.name)
        frames = decode_many([wanted], "dali-gpu", torch.device("cuda"))[0]
        return {"frames": len(frames), "seconds": time.perf_counter() - began}
    except Exception as error:
        return {"error": public(f"{type(error).__name__}: {error}")}


def _open(storage: str) -> tuple[Any, str]:
    set_retry_policy(Storage(patience_s=PATIENCE_S))
    return open_filesystem(storage)
