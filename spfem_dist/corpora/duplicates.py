"""Two files that claim to be the same recording."""

from __future__ import annotations

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
