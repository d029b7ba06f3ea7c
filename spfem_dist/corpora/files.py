"""What all parsers ask of a folder of recordings. Nothing in it ends a call: what cannot be read becomes a reject."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import isdir
from pathlib import Path

from spfem_dist.records import Clip, Reject

#: Sound files beside a video, the corpora's own kinds first.
AUDIO = (".m4a", ".wav", ".flac", ".mp3", ".aac", ".ogg", ".opus")
#: Ends of the names of films, in small letters.
VIDEO = (
    *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".flv", ".f4v", ".3gp", ".3g2", ".ogv"),
    *(".wmv", ".asf", ".mpg", ".mpeg", ".mpe", ".m2v", ".vob", ".ts", ".mts", ".m2t", ".m2ts", ".tod", ".mod"),
    *(".mxf", ".dv", ".rm", ".rmvb", ".nut", ".wtv", ".y4m", ".h264", ".hevc"),
)
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".rar", ".7z")


def keep_first(clips: list[Clip]) -> tuple[list[Clip], list[Reject]]:
    """The clips with the first file of each recording kept, and a reject that names the kept one for every other."""
    kept: dict[tuple[str, str], Clip] = {}
    rejects = []
    for clip in clips:
        first = kept.setdefault((clip.group, clip.recording), clip)
        if first is not clip:
            detail = f"{clip.recording} of {clip.group} is already {first.video}; remove one of the two"
            rejects.append(Reject(str(clip.video), "duplicate", detail))
    return list(kept.values()), rejects


def entries(folder: Path, rejects: list[Reject]) -> list[Path]:
    """What lies in `folder`, in name order; what cannot be looked at (permissions, links to nothing) goes to `rejects`."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        rejects.append(_unreadable(folder, error, "cannot be listed", "chmod u+rx"))
        return []
    seen = []
    for path in found:
        try:
            path.stat()
            seen.append(path)
        except FileNotFoundError:
            detail = f"{path} is a link to nothing; fetch what it points to (git annex get, datalad get), or remove it"
            rejects.append(Reject(str(path), "broken-link", detail))
        except OSError as error:
            rejects.append(_unreadable(path, error, "cannot be looked at", "chmod u+rx on its folder"))
    return seen


def visible_files(root: Path, rejects: list[Reject]) -> list[Path]:
    """Every file under `root` in name order, without those in hidden folders (a clone's .git is no part of a corpus).

    Links to folders are followed. What cannot be read goes to `rejects`.
    """
    return sorted(_walk(root, rejects, {root.resolve()}))


def _walk(folder: Path, rejects: list[Reject], above: set[Path]) -> Iterator[Path]:
    for path in entries(folder, rejects):
        if path.is_file():
            yield path
        elif (
            not path.name.startswith(".") and (real := path.resolve()) not in above
        ):  # a link to above leads in a circle
            yield from _walk(path, rejects, above | {real})


def unreadable(path: Path) -> Reject | None:
    """A reject where the file cannot be opened, for instance for want of permission."""
    try:
        with open(path, "rb"):
            return None
    except OSError as error:
        return _unreadable(path, error, "cannot be opened", "chmod u+r")


def stray(path: Path, expected: str) -> Reject:
    """The reject of something that is not `expected` ("a clip such as 001.mp4 is expected here")."""
    if path.name.lower().endswith(_ARCHIVES) and path.is_file():
        return Reject(str(path), "not-unpacked", f"{path.name!r} is an archive: unpack it where it lies")
    return Reject(str(path), "stray-file" if path.is_file() else "stray-folder", f"{path.name!r}: {expected}")


def displaced(wanted: Path, top: Path) -> Path | None:
    """Where `wanted`, a folder under `top` that is not there, lies one or two folders deeper than it should, or None."""
    inside = wanted.relative_to(top)
    depth: list[Path] = [top]
    for _ in range(2):
        depth = [path for folder in depth for path in entries(folder, []) if path.is_dir()]
        for folder in depth:
            if isdir(folder / inside):
                return folder / inside
    return None


def _unreadable(path: Path, error: OSError, what: str, fix: str) -> Reject:
    detail = f"{path} {what} ({error.strerror})"
    if isinstance(error, PermissionError):
        return Reject(str(path), "no-permission", f"{detail}: give yourself the right to read it ({fix}), or remove it")
    return Reject(str(path), "unreadable", f"{detail}: look at its disk, or remove it")
