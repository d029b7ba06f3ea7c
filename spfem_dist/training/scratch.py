"""Temporary folders of training processes that are gone with them, even when a process is killed."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX, _LOCK = "spfem-scratch-", ".lock"
#: A folder younger than this may not have its lock yet, seconds.
_YOUNG = 60.0


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """A folder of this process under the system's temporary folder (TMPDIR moves it), locked while it is in use."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-"))
    inner = folder / "files"
    inner.mkdir()
    with open(folder / _LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield inner
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep() -> int:
    """Remove the folders that killed processes left on this machine: nobody holds their locks. Returns how many."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime < _YOUNG:
                continue
            with open(folder / _LOCK, "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
    return removed
