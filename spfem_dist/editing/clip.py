"""One clip edited: the face is followed, its motion decided for the whole clip, and the clip read again and redrawn.

Memory does not grow with the clip but for its landmarks: pictures live in chunks of a few frames.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from spfem_dist.editing.blend import blend, box_of
from spfem_dist.editing.face import Followed, follow
from spfem_dist.editing.film import Film
from spfem_dist.editing.motion import shown_by_moving
from spfem_dist.editing.preview import side_by_side
from spfem_dist.editing.video import EditError, Footage, Picture, pictures
from spfem_dist.emotions import Emotion
from spfem_dist.generators.face.unit_wish import UnitWish, toward
from spfem_dist.generators.generator import Face, Generator, Motion, landmarks_of
from spfem_dist.prepare.faces import FaceFinder, cut_face
from spfem_dist.prepare.mesh import Region

_CHUNK = 16
#: Pictures of one chunk take at most about this many bytes, so that a chunk of a 4K clip has fewer.
_CHUNK_BYTES = 64 * 2**20
#: Largest side of the flow, pixels; a larger face takes it from between its pixels. A flow is averaged over more than one of them anyway.
_FINEST_FLOW = 128
#: Frames to each side of a chunk from which a generator learns what the person's neutral face is, where nobody told it.
_NEAR = 150
#: Pixels around a crop that are read as well: what colours are interpolated from.
_MARGIN = 8


@dataclass(frozen=True)
class EditTarget:
    """What a clip shall become, as `Generator.drive` takes it. reference: the face of another clip. paint: share of the residual. wish: about single
    units, upon what the emotion and the reference make of the face, or alone; it has a strength of its own."""

    emotion: Emotion | None = None
    reference: Face | None = None
    strength: float = 1.0
    paint: float = 1.0
    wish: UnitWish | None = None


@dataclass(frozen=True)
class Edited:
    """What was done to one clip. packets: of sound, copied. lost: frames left as they are. remarks: what a user should know."""

    out: Path
    frames: int
    seconds: float
    packets: int
    lost: int
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """How a clip is worked on, whichever it is. comment: written into the file. threads: of decoder and encoder, 0: any."""

    comment: str = ""
    threads: int = 0


Advance = Callable[[str], None]
_Pair = tuple[Picture, Picture]


def edit_clip(
    film: Footage,
    out: Path,
    generator: Generator,
    target: EditTarget,
    finder: FaceFinder,
    landmarks: Path | None = None,
    preview: Path | None = None,
    settings: Settings | None = None,
    advance: Advance = lambda what: None,
    followed: Followed | None = None,
) -> Edited:
    """Write `film` with another emotion to `out`: the same frames at the same times, the sound copied.

    landmarks: a file of the source's, instead of the finder's. preview: where to write source and result side by side.
    advance: called with what was done after each frame, twice for every frame. followed: the face, where it was followed before.
    Raises EditError (no face, too short a clip, a damaged file, an `out` that cannot be written); `out` is then as before.
    """
    settings = settings or Settings()
    with ExitStack() as films:
        # Opened first: what cannot be written is to be said before a long search for the face.
        writers = [films.enter_context(Film(out, film, settings.comment, settings.threads))]
        if preview is not None:
            writers.append(films.enter_context(Film(preview, film, settings.comment, settings.threads)))
        followed = followed or follow(
            film,
            finder,
            generator.size,
            generator.topology,
            landmarks,
            lambda: advance("finding the face"),
            settings.threads,
        )
        motion = wanted_motion(film, followed, generator, target)
        count = 0
        for picture, edited in redrawn(film, followed, generator, motion, target.paint, settings.threads):
            writers[0].write(edited)
            if preview is not None:
                writers[1].write(side_by_side(picture, edited))
            advance("editing")
            count += 1
        if count != len(followed.regions):
            raise EditError(
                f"{film.path}: {len(followed.regions)} frames at first reading, {count} at the second; is it being written?"
            )
    return Edited(out, count, count / film.fps, writers[0].packets, followed.lost, _remarks(film, followed))


def wanted_motion(film: Footage, followed: Followed, generator: Generator, target: EditTarget) -> Motion:
    """What the face of `film` becomes. Raises EditError where the clip is too short for this generator."""
    try:
        if target.emotion is None and target.reference is None and target.wish is not None:
            own = landmarks_of(followed.face, "source", generator.topology, generator.size)
            motion = Motion(own, own)
        else:
            motion = generator.drive(followed.face, target.emotion, target.reference, target.strength)
        if target.wish is not None:
            motion = toward(motion, generator.topology, target.wish, film.fps)
        return shown_by_moving(motion, generator.topology, film.fps)
    except ValueError as error:
        raise EditError(f"{film.path}: {error}") from error


def redrawn(
    film: Footage, followed: Followed, generator: Generator, motion: Motion, paint: float = 1.0, threads: int = 0
) -> Iterator[tuple[Picture, Picture]]:
    """Each picture of `film` with its edit, read and rendered a few at a time, ahead of whoever takes them.

    paint: share of the generator's residual.
    """
    for chunk in _ahead(_redrawn(film, followed, generator, motion, paint, threads)):
        yield from chunk


def _ahead(chunks: Iterator[list[_Pair]]) -> Iterator[list[_Pair]]:
    """The same, the next one being made in a thread while one is encoded: both leave Python for most of their time."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk


def _redrawn(
    film: Footage, followed: Followed, generator: Generator, motion: Motion, paint: float, threads: int
) -> Iterator[list[_Pair]]:
    first = 0
    for chunk in _chunks(pictures(film, threads)):
        yield edited_pictures(chunk, followed, generator, motion, first, paint)
        first += len(chunk)


def edited_pictures(
    chunk: list[Picture], followed: Followed, generator: Generator, motion: Motion, first: int, paint: float = 1.0
) -> list[_Pair]:
    """Each picture of `chunk`, frames first, first + 1, ... of those that were followed, with its edit."""
    frames = slice(first, first + len(chunk))
    regions, weights = followed.regions[frames], followed.weights[frames]
    if not weights.any():
        return list(zip(chunk, chunk, strict=True))
    crops = np.stack([_crop(p, r, generator.size) for p, r in zip(chunk, regions, strict=False)])
    near, at = _near(motion, first, len(chunk))
    edit = generator.render(crops, near, at, _flow_side(regions, generator.size))
    pairs = []
    for i, (p, region, weight) in enumerate(zip(chunk, regions, weights, strict=False)):
        flow, mask = weight * edit.flow[i], weight * edit.mask[i]
        if followed.covers is not None and followed.covers[first + i].any():
            flow, mask = (_beside(followed.covers[first + i], values) for values in (flow, mask))
        pairs.append((p, blend(p, region, flow, paint * edit.residual[i], mask)))
    return pairs


def _near(motion: Motion, first: int, count: int) -> tuple[Motion, int]:
    """The motion around `count` frames from `first` on, and where these are in it: a generator that has to find its own coefficients finds them
    anew for every chunk, and is not to look at the whole of a long film each time."""
    if motion.coefficients is not None or len(motion.source) <= 2 * _NEAR:
        return motion, first
    rows = slice(max(0, first - _NEAR), first + count + _NEAR)
    return Motion(motion.source[rows], motion.target[rows]), first - rows.start


def _beside(cover: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values [S, S, ...] of a crop, nothing where `cover` [C, C] is 255."""
    open_ = 1 - cv2.resize(cover, values.shape[:2], interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
    result: np.ndarray = values * (open_[..., None] if values.ndim == 3 else open_)
    return result


def _crop(picture: Picture, region: Region, size: int) -> np.ndarray:
    """The face of `picture` as `cut_face` gives it; of the rest of the picture no colours are computed."""
    height, width = picture.y.shape
    x0, y0, x1, y1 = box_of(region, width, height, _MARGIN)
    if x0 >= x1 or y0 >= y1:  # all of it lies outside, and the picture's edge goes on there
        return cut_face(picture.rgb(), region, size)
    inside = dataclasses.replace(region, x=region.x - x0, y=region.y - y0)
    return cut_face(picture.part((x0, y0, x1, y1)).rgb(), inside, size)


def _flow_side(regions: list[Region], size: int) -> int:
    """Side of the flow for these crops of the film: as fine as they are, within what drawing it may cost."""
    return max(size, min(_FINEST_FLOW, round(max(region.side for region in regions))))


def _chunks(source: Iterator[Picture]) -> Iterator[list[Picture]]:
    chunk: list[Picture] = []
    for picture in source:
        chunk.append(picture)
        # Source and result of a chunk, and one picture as RGB: 1.5 + 1.5 + 3 bytes for a pixel.
        if len(chunk) == max(1, min(_CHUNK, math.floor(_CHUNK_BYTES / (3 * picture.y.size)))):
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _remarks(film: Footage, followed: Followed) -> tuple[str, ...]:
    said = []
    if not film.sound:
        said.append("there was no sound to copy")
    if film.left_out:
        said.append(f"left out: {', '.join(film.left_out)}")
    if followed.deinterlaced:
        said.append(
            f"it is interlaced: {followed.deinterlaced} frames were deinterlaced, and the result is progressive"
        )
    if followed.faces > 1:
        said.append(f"{followed.faces} faces are in it: the largest was edited, the others stay as they are")
    if (hidden := followed.hidden) > 0:
        said.append(f"something covers a part of the face in {hidden} frames; there they stay as they are")
    if followed.lost:
        said.append(f"{followed.lost} of {len(followed.weights)} frames show no face and stay as they are")
    return tuple(said)
