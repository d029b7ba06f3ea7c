"""One frame of a film, edited anew as often as somebody moves a slider: what does not change with the edit is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spfem_dist.editing.clip import EditTarget, edited_pictures, wanted_motion
from spfem_dist.editing.face import Followed, follow
from spfem_dist.editing.video import EditError, Footage, Picture, pictures
from spfem_dist.generators.generator import Generator
from spfem_dist.prepare.faces import FaceFinder

#: So many frames are looked at around the one: more than a generator's shortest clip, and enough for a steady crop.
_AROUND = 15


@dataclass(frozen=True)
class Still:
    """A frame of a film, number `index` of those in which its face was followed: the whole film, or a part."""

    film: Footage
    picture: Picture
    followed: Followed
    index: int

    @property
    def shows_face(self) -> bool:
        """Whether the face is in this frame; an edit leaves one without it alone."""
        return bool(self.followed.weights[self.index] > 0)

    def edited(self, generator: Generator, target: EditTarget) -> Picture:
        """The picture as `edit_clip` makes it. Where a part was followed, that part alone says what the person's neutral face is.

        Raises EditError as `edit_clip` does.
        """
        motion = wanted_motion(self.film, self.followed, generator, target)
        ((_, edited),) = edited_pictures([self.picture], self.followed, generator, motion, self.index, target.paint)
        return edited


def still(
    film: Footage,
    seconds: float,
    generator: Generator,
    finder: FaceFinder,
    followed: Followed | None = None,
    threads: int = 0,
) -> Still:
    """The frame that is shown `seconds` after the first one.

    followed: the face in the whole film; without it the face is found in the few frames around this one.
    Raises EditError where those show no face or are too few, and where nothing can be decoded.
    """
    around, at = _around(film, seconds, threads)
    if followed is not None and around[at].pts in followed.ticks:
        return Still(film, around[at], followed, followed.ticks.index(around[at].pts))
    part = follow(film, finder, generator.size, generator.topology, threads=threads, part=around)
    return Still(film, around[at], part, at)


def _around(film: Footage, seconds: float, threads: int) -> tuple[list[Picture], int]:
    """The frames around that time, and which of them is the one."""
    begin, half = film.facts.start, _AROUND / 2 / film.fps
    when = begin + min(max(0.0, seconds), film.facts.duration)
    kept: list[Picture] = []
    for picture in pictures(film, threads, max(begin, when - half)):
        kept.append(picture)
        time = float(picture.pts * film.time_base)
        if len(kept) > _AROUND and time < when + half:  # what came before, from a key frame on
            kept.pop(0)
        if len(kept) >= _AROUND and time >= when + half:
            break
    if not kept:
        raise EditError(f"{film.path}: none of its frames can be decoded; fetch the file again")
    times = np.array([float(picture.pts * film.time_base) for picture in kept])
    return kept, int(np.abs(times - when).argmin())
