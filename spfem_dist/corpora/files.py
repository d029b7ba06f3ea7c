"""What all parsers ask of a folder of recordings."""

from __future__ import annotations

from pathlib import Path

from spfem_dist.records import Clip, Reject


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


def visible_files(root: Path) -> list[Path]:
    """Every file under `root` in name order, without those in hidden folders (a clone's .git is no part of a corpus)."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts[:-1])
    ]
