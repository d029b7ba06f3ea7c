"""Checkpoints as they lie on storage: committed by manifests, read back against them.

STORAGE/checkpoint_000000600/
    state.json  history.jsonl  <network>/...    what `checkpoint.py` puts there, each file by one worker
    manifest_rank_N.json                        worker N's last word: how many workers there are, its files, their bytes and sha256

A checkpoint is committed once the manifests of all workers are there. No worker waits for another, so it is the same under Ray Train,
torchrun and alone; what a killed worker left is no checkpoint. STORAGE/last.json, written after each commit, names the newest, so that
one that vanishes later is missed. What was committed once and is no longer whole is set aside as STORAGE/set-aside_NAME, never removed.
"""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from fsspec.callbacks import Callback

from spfem_dist.backoff import pauses
from spfem_dist.errors import UnreachableStorage
from spfem_dist.files import file_sha256, write_whole
from spfem_dist.redact import redact
from spfem_dist.storage import is_local, open_filesystem, patience
from spfem_dist.training.scratch import scratch

log = logging.getLogger(__name__)

#: Names the newest committed checkpoint; begins the names of checkpoints that are set aside.
LAST, ASIDE = "last.json", "set-aside_"
#: Attempts at a file whose bytes arrive altered before the stored file itself is blamed.
_READS = 3
#: Objects on one page of S3's listing.
_LISTED = 1000


class DamagedCheckpoint(RuntimeError):
    """A checkpoint whose files are not those that its manifests name; the message says which."""


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after optimiser step `step`; names sort by step."""
    return f"checkpoint_{step:09d}"


def manifest_name(rank: int) -> str:
    """File name of worker `rank`'s manifest."""
    return f"manifest_rank_{rank}.json"


def absent(files: Collection[str], workers: int) -> list[int]:
    """Workers whose manifests are not among these files of a checkpoint."""
    return [rank for rank in range(workers) if manifest_name(rank) not in files]


def committed(location: str) -> list[str]:
    """Names of the complete checkpoints under `location`, oldest first."""
    return CheckpointStore(location).committed()


class _Each(Callback):
    """Called after each file."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()
        self._call = call

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        self._call()


class CheckpointStore:
    """The checkpoints of one job.

    Storage that fails is waited for as long as `storage.patience_s` says; then UnreachableStorage is raised, which names the file.
    """

    def __init__(self, location: str) -> None:
        self.location, self.patience_s = location.rstrip("/"), patience().patience_s
        self.fs, self.root = open_filesystem(self.location)
        self._local = is_local(self.fs)

    def names(self) -> list[str]:
        """Every checkpoint folder, complete or not, oldest first."""
        return sorted(name for name in self._listed("") if name.startswith("checkpoint_") and "." not in name)

    def committed(self) -> list[str]:
        """The complete ones among `names()`."""
        return [name for name in self.names() if self.standing(name) == "committed"]

    def standing(self, name: str) -> str:
        """How a checkpoint stands: `committed`, `incomplete` where manifests are missing, or `damaged` where the first one cannot be
        read. A manifest is written whole or not at all, so no killed worker leaves that.
        """
        there = self._listed(name)
        if manifest_name(0) not in there:
            return "incomplete"
        try:
            return "incomplete" if absent(there, self.manifest(name, 0)["world"]) else "committed"
        except DamagedCheckpoint:
            return "damaged"

    def last(self) -> dict[str, Any]:
        """What `last.json` says: `checkpoint`, the newest that was committed, and its `step`; empty where none was, or it cannot be read."""
        try:
            found = json.loads(
                self._persist(lambda: self.fs.cat_file(f"{self.root}/{LAST}"), f"reading {self.location}")
            )
            return {"checkpoint": str(found["checkpoint"]), "step": int(found["step"])}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}

    def note_last(self, name: str, step: int) -> None:
        """Write `last.json`."""
        text = json.dumps({"checkpoint": name, "step": step})
        self._persist(lambda: self._put_text(text, LAST), f"writing {self.location}/{LAST}")

    def forget_last(self) -> None:
        """Remove `last.json`: the job begins anew."""
        with suppress(FileNotFoundError):
            self._persist(lambda: self.fs.rm(f"{self.root}/{LAST}"), f"removing {self.location}/{LAST}")

    def set_aside(self, name: str) -> str:
        """Give a checkpoint a name under which no run looks for it; returns that name."""
        taken = self._listed("")
        aside = next(n for n in (f"{ASIDE}{name}{f'-{k}' if k else ''}" for k in count()) if n not in taken)
        source, target = f"{self.root}/{name}", f"{self.root}/{aside}"

        def once() -> None:
            if self._local:
                self.fs.mv(source, target, recursive=True)
                return
            files = self.fs.find(source)
            self.fs.copy(files, [f"{target}{file.removeprefix(source)}" for file in files])
            self.fs.rm(source, recursive=True)

        self._persist(once, f"moving {self.location}/{name} to {aside}")
        return aside

    def files(self, name: str) -> dict[str, int]:
        """Bytes of every file of a checkpoint, by its path within it."""
        path = f"{self.root}/{name}"

        def once() -> dict[str, int]:
            if not self._local:
                return {file: entry["size"] for file, entry in self.fs.find(path, detail=True).items()}
            found: dict[str, int] = {}
            for file in Path(path).rglob("*"):
                with suppress(FileNotFoundError):  # another worker's manifest, which just now got its last name
                    found |= {str(file): file.stat().st_size} if file.is_file() else {}
            return found

        found = self._persist(once, f"listing {self.location}/{name}")
        return {file.removeprefix(f"{path}/"): size for file, size in found.items()}

    def manifest(self, name: str, rank: int) -> dict[str, Any]:
        """The manifest of worker `rank`. Raises DamagedCheckpoint where there is none, or no whole one."""
        path = f"{self.root}/{name}/{manifest_name(rank)}"
        try:
            return _parsed(self._persist(lambda: self.fs.cat_file(path), f"reading {self.location}/{name}"), rank)
        except FileNotFoundError:
            raise DamagedCheckpoint(f"{manifest_name(rank)} is missing") from None

    def manifests(self, name: str, ranks: Sequence[int]) -> list[dict[str, Any]]:
        """The manifests of these workers, as `manifest` gives them; those of many are read side by side."""
        if self._local or len(ranks) < 2:
            return [self.manifest(name, rank) for rank in ranks]
        with scratch("manifests") as folder:  # a file is one request, its content by name would be two
            sources = [f"{self.root}/{name}/{manifest_name(rank)}" for rank in ranks]
            targets = [folder / manifest_name(rank) for rank in ranks]
            with suppress(FileNotFoundError):  # `manifest` says which
                self._persist(lambda: self.fs.get(sources, list(map(str, targets))), f"reading {self.location}/{name}")
            return [
                _parsed(target.read_bytes(), rank) if target.exists() else self.manifest(name, rank)
                for rank, target in zip(ranks, targets, strict=True)
            ]

    def put(
        self,
        folder: Path,
        name: str,
        rank: int,
        world: int,
        facts: dict[str, Any],
        arrived: Callable[[], None] = lambda: None,
        commit: Callable[[], None] = lambda: None,
    ) -> None:
        """Store this worker's files of the checkpoint `name`, its manifest with the `facts` last.

        arrived: called after each file. commit: called before the manifest, which is not written where it raises.
        """
        files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        entries = {path: {"bytes": file.stat().st_size, "sha256": file_sha256(file)} for path, file in files.items()}
        if self.fs.async_impl:
            together = partial(self._put_together, files, name, arrived, world)
            self._persist(together, f"writing {self.location}/{name}/{{{','.join(files)}}}")
        else:
            for path, file in files.items():
                put = partial(self._put_file, file, f"{name}/{path}")
                self._persist(put, f"writing {self.location}/{name}/{path}")
                arrived()
        text = json.dumps({"world": world, "rank": rank, **facts, "files": entries}, indent=1)
        path = f"{name}/{manifest_name(rank)}"
        commit()
        self._persist(lambda: self._put_text(text, path), f"writing {self.location}/{path}")

    def remove(self, name: str) -> None:
        """Remove a checkpoint; its manifests first, so that what is left at any moment is never trusted."""
        path = f"{self.root}/{name}"

        def once() -> None:
            files = self.fs.find(path)
            manifests = {file for file in files if Path(file).match("manifest_rank_*.json")}
            for some in (sorted(manifests), sorted(set(files) - manifests)):
                if some:
                    self.fs.rm(some)
            if self._local:
                self.fs.rm(path, recursive=True)

        with suppress(FileNotFoundError):  # of two attempts the first went further than it said
            self._persist(once, f"removing {self.location}/{name}")

    def _listed(self, name: str) -> set[str]:
        path = f"{self.root}/{name}".rstrip("/")
        try:
            found = self._persist(lambda: self.fs.ls(path, detail=False), f"listing {self.location}/{name}")
        except FileNotFoundError:
            return set()
        return {entry.rstrip("/").rsplit("/", 1)[-1] for entry in found}

    def _put_file(self, file: Path, target: str) -> None:
        path = f"{self.root}/{target}"
        if self._local:
            self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        self.fs.put_file(str(file), path)
        if (size := self.fs.info(path)["size"]) != file.stat().st_size:
            raise OSError(f"{size} bytes arrived of {file.stat().st_size}")

    def _put_together(self, files: Mapping[str, Path], name: str, arrived: Callable[[], None], workers: int) -> None:
        """Store these files side by side, and see whether they are there as they are here.

        With one look at the checkpoint, where all that `workers` put there fits one page of a listing; else at these files alone: that
        every worker lists what every worker put would be requests by the square of their number.
        """
        targets = [f"{self.root}/{name}/{path}" for path in files]
        self.fs.put([str(file) for file in files.values()], targets, callback=_Each(arrived))
        there: dict[str, int] = {}
        if (len(files) + 1) * workers <= _LISTED:
            there = self.files(name)
        else:
            with suppress(FileNotFoundError):
                there = dict(zip(files, self.fs.sizes(targets), strict=True))
        for path, file in files.items():
            if there.get(path) != file.stat().st_size:
                raise OSError(f"{there.get(path, 0)} bytes arrived of {path}, which has {file.stat().st_size}")

    def _put_text(self, text: str, target: str) -> None:
        path = f"{self.root}/{target}"
        if self._local:  # whole or not at all
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_whole(Path(path), text)
        else:
            self.fs.pipe_file(path, text.encode())

    def _persist(self, call: Callable[[], Any], what: str) -> Any:
        """call(), again while a folder's disk fails or is full; S3's own file system waits by itself."""
        until = time.monotonic() + self.patience_s
        for pause in pauses():
            try:
                return call()
            except (FileNotFoundError, UnreachableStorage):
                raise
            except OSError as error:
                reason = redact(str(error))
                if isinstance(error, PermissionError) or time.monotonic() + pause > until:
                    mend = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend it"
                    raise UnreachableStorage(
                        f"{what} failed ({reason}): {mend} and start again under the same name, or wait longer than "
                        f"{self.patience_s:g} s with --storage.patience-s"
                    ) from error
                log.warning("%s failed, trying again: %s", what, reason)
            time.sleep(pause)
        raise AssertionError("pauses have no end")


@contextmanager
def fetched(location: str, patterns: Sequence[str] = ("*",), ranks: Collection[int] | None = None) -> Iterator[Path]:
    """A local folder with those files of a checkpoint that match a pattern and were written by `ranks` (None: by anyone).

    Every file's bytes are checked against its manifest. A local checkpoint is used in place; from S3 only the wanted files come, so a
    worker reads its own shards and no others. Raises DamagedCheckpoint that names the file.
    """
    storage, name = location.rstrip("/").rsplit("/", 1)
    store = CheckpointStore(storage)
    first = store.manifest(name, 0)
    writers = range(first["world"]) if ranks is None else sorted(ranks)
    wanted: dict[str, dict[str, Any]] = {}
    others = store.manifests(name, [rank for rank in writers if rank])
    manifests = dict(zip((rank for rank in writers if rank), others, strict=True)) | {0: first}
    for rank in writers:
        manifest = manifests[rank]
        if (manifest["world"], manifest.get("attempt")) != (first["world"], first.get("attempt")):
            raise DamagedCheckpoint(f"{manifest_name(rank)} is of another attempt than {manifest_name(0)}")
        wanted |= {
            file: entry for file, entry in manifest["files"].items() if any(Path(file).match(p) for p in patterns)
        }
    if store._local:
        folder = Path(store.root) / name
        for file, entry in wanted.items():
            _check(folder / file, file, entry)
        yield folder
        return
    with scratch("restore") as folder:
        sources = [f"{store.root}/{name}/{file}" for file in wanted]
        with suppress(FileNotFoundError):  # `_fetch` says which
            store._persist(
                lambda: store.fs.get(sources, [str(folder / file) for file in wanted]), f"reading {location}"
            )
        for file, entry in wanted.items():
            _fetch(store, f"{name}/{file}", folder / file, entry)
        yield folder


def _parsed(content: bytes, rank: int) -> dict[str, Any]:
    """A manifest; DamagedCheckpoint where it is none."""
    try:
        found = json.loads(content)
        return found | {"files": dict(found["files"]), "world": int(found["world"])}
    except (ValueError, KeyError, TypeError):
        raise DamagedCheckpoint(f"{manifest_name(rank)} is cut or altered") from None


def _fetch(store: CheckpointStore, source: str, target: Path, entry: dict[str, Any]) -> None:
    """See that `target` is the file `source`; get it where it is not, or not yet."""
    for attempt in range(1, _READS + 1):
        try:
            if attempt > 1 or not target.exists():
                store._persist(
                    lambda: store.fs.get_file(f"{store.root}/{source}", str(target)),
                    f"reading {store.location}/{source}",
                )
            _check(target, source.split("/", 1)[1], entry)
            return
        except FileNotFoundError:
            raise DamagedCheckpoint(f"{source.split('/', 1)[1]} is missing") from None
        except DamagedCheckpoint:
            if attempt == _READS:
                raise


def _check(path: Path, name: str, entry: dict[str, Any]) -> None:
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise DamagedCheckpoint(f"{name} has {size} bytes of {entry['bytes']}")
        if file_sha256(path) != entry["sha256"]:
            raise DamagedCheckpoint(f"{name} is altered: its sha256 is not the manifest's")
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{name} is missing") from None
