"""Where shard bytes lie: a local folder, or a bucket seen through a bounded local folder of fetched shards.

Both stores answer `index()` and `read(shard, offset, size)`. Messages never hold credentials.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from spfem_dist.backoff import pauses
from spfem_dist.errors import RefusedStorage, UnreachableStorage
from spfem_dist.files import cache_folder, file_sha256, whole_file
from spfem_dist.redact import redact
from spfem_dist.shard_format import INDEX_NAME, DamagedShard, ShardEntry, StoredFile
from spfem_dist.storage import open_filesystem

log = logging.getLogger(__name__)
T = TypeVar("T")

#: With the cache folder's disk full, seconds until the next try to put a shard there.
_LOOK_AGAIN = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


class MissingShard(FileNotFoundError):
    """A shard (or index) that the storage does not have. Training cannot go on without it."""


class LocalStore:
    """Shards in a local folder, read by plain ranged file reads."""

    def __init__(self, root: str | Path):
        self.root = Path(root).expanduser()

    def index(self) -> bytes:
        """The bytes of index.json; MissingShard where there is none."""
        path = self.root / INDEX_NAME
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise MissingShard(
                f"no shard index at {path}: write shards with `spfem prepare CORPUS ROOT --out {self.root}`, or point "
                "data.shards at the folder that holds index.json"
            ) from None

    def table(self, table: StoredFile) -> Path:
        """The file of the index's table; MissingShard or DamagedShard where it is not there, or has another size."""
        path = self.root / table.name
        if not path.is_file():
            raise MissingShard(f"{path} is missing, which {self.root / INDEX_NAME} names: copy it back")
        if path.stat().st_size != table.bytes:
            raise DamagedShard(f"{path} has {path.stat().st_size} bytes of {table.bytes}: copy it again")
        return path

    def read(self, shard: ShardEntry, offset: int, size: int) -> bytes:
        """`size` bytes of `shard` from `offset`; MissingShard or DamagedShard where they are not there."""
        path = self.root / shard.name
        try:
            return _read_range(path, shard, offset, size)
        except FileNotFoundError:
            raise MissingShard(
                f"shard {shard.name} is listed in {self.root / INDEX_NAME} but missing from {self.root}: copy it back, "
                "or run the same `spfem prepare` again (it makes only what is missing)"
            ) from None


class RemoteStore:
    """Shards under an fsspec URL (`s3://bucket/prefix`), fetched whole into a local folder and read from there.

    cache_mb bounds that folder (least recently used shards go first); shards that do not fit are read by ranged
    requests, and so are all while the disk of the folder is full. A fetched shard appears under its name only when its size and sha256 agree with the index. Several
    processes may share the folder. The endpoint and credentials come from the standard AWS_* variables.
    """

    def __init__(self, url: str, cache: str = "", cache_mb: int = 20_480, retries: int = 5, verify: bool = True):
        self.url, self.retries, self.verify = url.rstrip("/"), max(1, retries), verify
        self.limit = cache_mb << 20
        self.folder = Path(cache).expanduser() if cache else cache_folder("shards")
        self._own = self.folder / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._refused: dict[str, DamagedShard] = {}
        self.fetched: list[str] = []
        self._full_until = 0.0
        self.fs, self.path = open_filesystem(self.url)

    def index(self) -> bytes:
        """The bytes of index.json; MissingShard or UnreachableStorage where they cannot be had."""
        path = f"{self.path}/{INDEX_NAME}"
        return self._attempt(INDEX_NAME, lambda: self.fs.cat_file(path))

    def table(self, table: StoredFile) -> Path:
        """The local file of the index's table, fetched once for all processes of this node."""
        return self.fetch(table)

    def read(self, shard: ShardEntry, offset: int, size: int) -> bytes:
        """`size` bytes of `shard` from `offset`; MissingShard, UnreachableStorage or DamagedShard."""
        if shard.bytes > self.limit:
            return self._read_remote_range(shard, offset, size)
        for _ in range(3):
            if time.monotonic() < self._full_until:
                return self._read_remote_range(shard, offset, size)
            try:
                path = self.fetch(shard)
            except _NoRoom as error:
                log.warning("%s; meanwhile shards are read from %s piece by piece", error, redact(self.url))
                self._full_until = time.monotonic() + _LOOK_AGAIN
                return self._read_remote_range(shard, offset, size)
            try:
                content = _read_range(path, shard, offset, size)
            except FileNotFoundError:  # another process evicted it between our look and our open
                continue
            with suppress(FileNotFoundError):
                os.utime(path)
            return content
        raise UnreachableStorage(
            f"{shard.name} is evicted from {self.folder} faster than it can be read: raise data.cache_mb "
            f"(now {self.limit >> 20} MiB, shared by all workers of a node)"
        )

    def fetch(self, shard: StoredFile) -> Path:
        """The local file of `shard`, fetched if it is not there yet."""
        path = self._own / f"{shard.sha256[:16]}-{shard.name}"
        if path.exists():
            return path
        if shard.name in self._refused:
            raise self._refused[shard.name]
        with self._lock_of(shard) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one node fetch a shard once
            if not path.exists():
                try:
                    self._attempt(shard.name, lambda: self._fetch_once(shard, path))
                except _NoRoom:
                    self._evict(keep=path, limit=0)  # others share the disk: what we hold there is the first to go
                    self._attempt(shard.name, lambda: self._fetch_once(shard, path))
                self.fetched.append(shard.name)
                self._evict(keep=path)
        return path

    def _lock_of(self, shard: StoredFile) -> IO[str]:
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            return open(self._own / f".{shard.name}.lock", "w")
        except OSError as error:
            if error.errno in _FULL:
                raise self._no_room(shard.name) from None
            raise

    def _no_room(self, name: str) -> _NoRoom:
        return _NoRoom(
            f"no room for {name} in the cache folder {self.folder}: free space there, lower data.cache_mb "
            f"(now {self.limit >> 20}) or point data.cache at a larger disk"
        )

    def _fetch_once(self, shard: StoredFile, path: Path) -> None:
        with whole_file(path) as temporary:
            self.fs.get_file(f"{self.path}/{shard.name}", str(temporary))
            found = temporary.stat().st_size
            if found != shard.bytes:
                raise _Short(f"{found} bytes arrived of {shard.bytes}")
            if self.verify and file_sha256(temporary) != shard.sha256:
                raise _Altered(f"sha256 differs from the index's {shard.sha256[:12]}...")

    def _read_remote_range(self, shard: ShardEntry, offset: int, size: int) -> bytes:
        def once() -> bytes:
            content = self.fs.cat_file(f"{self.path}/{shard.name}", start=offset, end=offset + size)
            if len(content) != size:
                raise _Short(f"{len(content)} bytes arrived of the {size} from {offset}")
            return content

        return self._attempt(shard.name, once)

    def _attempt(self, name: str, call: Callable[[], T]) -> T:
        """call() with retries for bytes that come short or altered; storage that does not answer was waited for below here."""
        place = redact(f"{self.url}/{name}")
        bucket = self.path.split("/", 1)[0]
        for attempt, pause in enumerate(pauses(), start=1):
            try:
                return call()
            except FileNotFoundError:
                raise MissingShard(
                    f"{name} is missing: bucket {bucket} has no {place}. Upload it again (`aws s3 sync SHARDS {redact(self.url)}`), "
                    "or correct data.shards"
                ) from None
            except RefusedStorage as error:
                raise UnreachableStorage(f"bucket {bucket} refuses {place}: {error.strerror}") from None
            except UnreachableStorage as error:
                raise UnreachableStorage(f"{name} could not be read: {error}") from None
            except _transport_errors() as error:
                reason = redact(f"{type(error).__name__}: {error}")
                if isinstance(error, PermissionError) or type(error).__name__ in _REFUSED:
                    raise UnreachableStorage(
                        f"bucket {bucket} refuses {place} ({reason}): check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
                        "AWS_SESSION_TOKEN, or the role of this machine, on every node"
                    ) from None
                if getattr(error, "errno", None) in _FULL:
                    raise self._no_room(name) from None
                if attempt == self.retries:
                    if isinstance(error, (_Short, _Altered)):
                        damage = DamagedShard(
                            f"{place}: {error} in each of {self.retries} attempts; upload this shard and index.json again"
                        )
                        self._refused[name] = damage
                        raise damage from None
                    raise UnreachableStorage(
                        f"{place} could not be read in {self.retries} attempts (last: {reason}): check the network and "
                        "AWS_ENDPOINT_URL, or raise data.retries"
                    ) from None
                log.warning("read of %s failed (attempt %d of %d): %s", place, attempt, self.retries, reason)
                time.sleep(pause)
        raise AssertionError("pauses have no end")

    def _evict(self, keep: Path, limit: int | None = None) -> None:
        self._sweep()
        limit = self.limit if limit is None else limit
        kept = []
        for path in self.folder.glob("*/*.tar"):
            try:
                kept.append((path.stat().st_mtime, path.stat().st_size, path))
            except FileNotFoundError:
                continue
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept, key=lambda entry: entry[0]):
            if total <= limit:
                break
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size

    def _sweep(self) -> None:
        """Remove what fetches left that were killed: nobody holds the locks of their shards."""
        for part in self.folder.glob("*/.*.part"):
            shard = part.name.split("-", 1)[-1].rsplit(".", 2)[0]
            with suppress(OSError), open(part.with_name(f".{shard}.lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink(missing_ok=True)


class _NoRoom(OSError):
    """The disk of the cache folder is full."""


class _Short(OSError):
    """Fewer bytes arrived than the index says."""


class _Altered(OSError):
    """The bytes that arrived are not those the index was written for."""


_REFUSED = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}


def _transport_errors() -> tuple[type[BaseException], ...]:
    import aiohttp
    import botocore.exceptions as aws

    return (OSError, TimeoutError, aiohttp.ClientError, aws.BotoCoreError, aws.ClientError)


def _read_range(path: Path, shard: ShardEntry, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        content = os.pread(file.fileno(), size, offset)
        if len(content) != size:
            found = os.fstat(file.fileno()).st_size
            raise DamagedShard(
                f"{path} has {found} bytes, the index says {shard.bytes}: it is cut; copy it again or run the same "
                "`spfem prepare` again"
            )
    return content
