"""Local files: their sha256, files that appear whole or not at all, and the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

from spfem_dist.redact import redact


def file_sha256(path: Path | str) -> str:
    """sha256 of a file's content, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


#: What numpy may raise for an .npy file, or the beginning of one, that is damaged.
UNREADABLE_ARRAY = (EOFError, OSError, OverflowError, SyntaxError, TypeError, ValueError, TokenError)


def read_small(path: Path | str, most: int = 2**28) -> bytes:
    """The content of a file that people or commands write, of at most so many bytes. Raises ValueError that names it where there is more:
    some files have no end."""
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} has more than {most // 2**20} MiB, or no end: name another file")
    return content


def is_address(place: str | Path) -> bool:
    """Whether `place` names another machine's storage (s3://, https://), also after `Path` has taken one of the slashes."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(place)) is not None


def home() -> str:
    """SPFEM_HOME, the folder at which relative paths start; '' for the current one. Raises ValueError where it is another machine's address."""
    said = os.environ.get("SPFEM_HOME", "")
    if is_address(said):
        raise ValueError(
            f"SPFEM_HOME is {redact(said)}: give a folder; storage elsewhere is named by --checkpoint.storage and --data.shards"
        )
    return said


def cache_folder(kind: str) -> Path:
    """Where `kind` of files is cached for this user: under XDG_CACHE_HOME, or ~/.cache where that is not set. Not made here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spfem" / kind


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; on leaving, what is there is flushed to disk and renamed to `path`.

    `path` is never half written, whatever happens, and processes that write it side by side do not disturb each other.
    On an error the temporary file is removed and `path` stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # otherwise a crash of the machine could leave an empty file under the final name
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write the file `path`, whole or not at all; text as UTF-8."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
