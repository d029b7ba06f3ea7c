"""The one door to storage: `open_filesystem(location)` for a folder or for S3, with one policy of waiting for S3.

A request that fails for a passing reason (500, 503 SlowDown, a reset or cut connection, no answer) is made again, with
growing pauses, until `storage.patience_s` have gone by; a read that breaks off goes on where it broke. What waiting cannot
mend (a missing object, refused credentials) is said at once. Messages name the place, the reason and the fix, never a secret.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fsspec.core import url_to_fs

from spfem_dist.config import Storage
from spfem_dist.errors import UnreachableStorage
from spfem_dist.files import read_small
from spfem_dist.redact import redact

log = logging.getLogger(__name__)

_RESTORE = "bring a copy of it back; without a state.json a run goes on from its checkpoints, without a run.json under another name only"
_TORCH_FULL = ("No space left on device", "iostream error", "file write failed", "inline_container.cc")

#: What a state.json says of a run or a job, where it says it.
_STATE: dict[str, Any] = {
    "status": str,
    "reason": str,
    "mlflow_run": str | None,
    "data_digest": str,
    "step": int,
    "samples": int,
}

#: Beside S3, what fsspec may be asked for. Others of its kinds (http, ftp, github, hf, ...) are no storage that runs could be kept in, and may ask the
#: network before they say so.
_STORES = ("file", "local", "memory", "gs", "gcs", "az", "abfs", "abfss")

#: A bucket's name as botocore takes it, or an access point's.
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:aws[\w-]*:s3[\w-]*:[\w:-]+")

_policy = Storage(patience_s=60.0)


def set_retry_policy(policy: Storage) -> None:
    """From now on, storage opened in this process is waited for as `policy` says (at first: one minute)."""
    global _policy
    _policy = policy


def patience() -> Storage:
    """The policy of this process."""
    return _policy


def open_filesystem(location: str) -> tuple[Any, str]:
    """The fsspec file system of `location` (a path, or `s3://bucket/prefix`) and the path in it, without a trailing slash.

    S3's endpoint and credentials come from the standard AWS_* variables. Raises ValueError that names the location, or the variable, where
    there is no such storage.
    """
    if not location.startswith(("s3://", "s3a://")):
        try:
            if "://" in location and location.split("://")[0] not in _STORES:
                raise ValueError
            fs, path = url_to_fs(location)
            if is_local(fs) and "://" in location and not location.startswith(("file://", "local://")):
                raise ValueError  # a folder of that name would be made
        except ImportError as error:
            raise ValueError(
                f"{redact(location)} needs a package that is not installed ({error}): install it, or use s3:// or a folder"
            ) from None
        except ValueError:  # whose text may hold a part of a password
            raise ValueError(
                f"{redact(location)} is no storage that is known here: give s3://bucket/prefix or a folder"
            ) from None
        return fs, path.rstrip("/") or "/"
    if "@" in location.split("/")[2]:
        raise ValueError(
            f"{redact(location)}: an address of S3 holds no user and no password: give s3://bucket/prefix, and AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY in the environment"
        )
    if not _BUCKET.fullmatch(location.split("/")[2]):
        raise ValueError(
            f"{redact(location)} names no bucket of S3: give s3://bucket/prefix; a bucket's name has letters, digits, '.', '-' and '_'"
        )
    from spfem_dist.s3 import PatientS3  # a second to import, which a run on local folders need not spend

    fs = PatientS3(
        patience_s=_policy.patience_s,
        endpoint_url=_endpoint(),
        use_listings_cache=False,  # other processes write here too
        config_kwargs={
            "connect_timeout": min(10.0, _policy.timeout_s),
            "read_timeout": _policy.timeout_s,
            "retries": {"total_max_attempts": 1},  # one policy, ours: nested ones would multiply
        },
    )
    return fs, fs._strip_protocol(location).rstrip("/")


def _endpoint() -> str | None:
    """The address of an S3 that is not Amazon's, which a variable names; ValueError where that is none."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if said := os.environ.get(name):
            try:
                parts = urlsplit(said)
                sound = (
                    parts.scheme in ("http", "https")
                    and bool(parts.hostname)
                    and (parts.port is None or parts.port > 0)
                )
            except ValueError:  # a port or an IPv6 address that is none
                sound = False
            if not sound:
                raise ValueError(f"{name} is {redact(said)!r}: give http://HOST:PORT or https://HOST, or unset it")
            return said
    return None


def read_json(fs: Any, path: str, kind: type = dict) -> Any:
    """The JSON object (or a list, by `kind`) in the file `path`; ValueError that names it where that is damaged, FileNotFoundError where
    it is missing."""
    try:
        found = json.loads(read_small(path) if is_local(fs) else fs.cat_file(path))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {_RESTORE}") from None
    if not isinstance(found, kind):
        raise ValueError(f"{path} is damaged (it holds {json.dumps(found)[:40]}): {_RESTORE}")
    stated: Any = found if path.endswith("/state.json") else {}
    for key, one in stated.items():
        if not isinstance(one, _STATE.get(key, object)):
            raise ValueError(f"{path} is damaged ({key} is {json.dumps(one)[:40]}): {_RESTORE}")
    return found


def is_local(fs: Any) -> bool:
    """Whether this fsspec file system is this machine's own."""
    return "file" in fs.protocol or fs.protocol == "file"


def create(fs: Any, path: str, content: bytes) -> bool:
    """Write the file `path` where there is none; whether it was written. Of many who try at once storage lets one alone succeed
    (O_EXCL in a folder, If-None-Match on S3)."""
    if is_local(fs):
        try:
            with open(path, "xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        return True
    try:
        fs.pipe_file(path, content, mode="create")
    except FileExistsError:
        return fs.cat_file(path) == content  # an attempt whose answer was lost may have been carried out
    return True


def wait_for_room(folder: Path, size: int, what: str) -> None:
    """Wait until the disk of the local `folder` has `size` bytes free, `patience_s` at most; UnreachableStorage that names it then."""
    began, told = time.monotonic(), False
    while (free := shutil.disk_usage(folder).free) < size:
        waited = time.monotonic() - began
        need = f"{what} needs {size / 1e6:.0f} MB in {folder}, and {free / 1e6:.0f} MB are free there"
        if waited >= _policy.patience_s:
            raise UnreachableStorage(f"{need}: free some space, or let TMPDIR name another folder; then start again")
        if not told:
            log.warning("%s: waiting for room, %.0f s at most", need, _policy.patience_s)
            told = True
        time.sleep(min(2.0, _policy.patience_s))


def is_full(error: BaseException) -> bool:
    """Whether `error` says that a local disk is full. torch says so in words of its own."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH_FULL)
