"""One face followed through a clip: where its crops lie, its landmarks, and where it is not to be edited."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from spfem_dist import weights
from spfem_dist.editing.cover import covered, looks, masks
from spfem_dist.editing.landmark_file import TOPOLOGIES, known, read_landmarks, refuse_unfit
from spfem_dist.editing.video import EditError, Footage, Picture, pictures
from spfem_dist.generators.generator import Face
from spfem_dist.prepare.faces import (
    AlignedFinder,
    FaceFinder,
    FaceTrack,
    MeshFinder,
    crop_landmarks,
    crop_regions,
    face_finder,
)
from spfem_dist.prepare.landmarks import converted
from spfem_dist.prepare.mesh import Region
from spfem_dist.records import Unusable

#: Faces are sought in pictures of at most about this many pixels a side; the mesh looks at 192 of them.
_LONGEST_SIDE = 1920
#: A face lost for less is filled in, as a wink of the finder; after more the edit fades, each in seconds.
_BRIDGED, _FADE = 0.12, 0.2


@dataclass(frozen=True)
class Followed:
    """A face through a clip of T frames.

    regions: the crop of each frame, steady over time. face: its landmarks in crops. weights: float32 [T] in 0..1, how much
    of an edit each frame takes: 0 where the face is gone. faces: the most that were seen together. deinterlaced: frames.
    ticks: the time of each frame, as its picture has it. covers: uint8 [T, C, C], 255 in a crop where something is before the face
    (see `cover`); None where nothing is.
    """

    regions: list[Region]
    face: Face
    weights: np.ndarray
    faces: int
    deinterlaced: int = 0
    ticks: tuple[int, ...] = ()
    covers: np.ndarray | None = None

    @property
    def lost(self) -> int:
        """Frames that stay as they are, as the face is not in them."""
        return int((self.weights == 0).sum())

    @property
    def hidden(self) -> int:
        """Frames in which something covers a part of the face."""
        return 0 if self.covers is None else int((self.covers == 255).any((1, 2)).sum())


class SameFace(MeshFinder):
    """The mesh, kept to the face that was largest when the clip began to show one.

    MeshFinder takes whatever face is nearest to where the last one was; here, once several were seen together, one that
    is elsewhere or of another size is somebody else. faces: the most that were seen together. looks: how its points look in each
    frame, see `cover.looks`.
    """

    def __init__(self, threads: int = 1, minimum_score: float = 0.5):
        super().__init__(threads, minimum_score)
        self.faces = 0
        self.looks: list[np.ndarray] = []

    def track(self, frames: Iterable[np.ndarray]) -> FaceTrack:
        """See `FaceFinder`."""
        self.faces, self.looks = 0, []
        return super().track(self._counted(frames))

    def _seen(self, frame: np.ndarray, points: np.ndarray) -> None:
        there = np.isfinite(points).all()
        self.looks.append(looks(frame, points) if there else np.full((478, 4), np.nan, np.float16))

    def _counted(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for number, frame in enumerate(frames):
            if number % 24 == 0:  # about every second: who comes in later is nobody to be taken for the first
                seen = self.models.detect(frame, self.minimum_score) or self.models.detect_small(frame)
                self.faces = max(self.faces, len(seen))
            yield frame

    def _found_anew(self, frame: np.ndarray, last: Region | None) -> np.ndarray | None:
        points = super()._found_anew(frame, last)
        if points is None or last is None or self.faces < 2:
            return points
        low, high = points.min(0), points.max(0)
        away = math.hypot(*((low + high) / 2 - (last.x, last.y)))
        return points if away < 0.5 * last.side and 0.4 < 1.5 * (high - low).max() / last.side < 2.5 else None


def finder_for(faces: str, landmarks_given: bool, flag: str = "--landmarks", threads: int = 1) -> FaceFinder:
    """The finder called `faces` (see `prepare.faces.face_finder`); `auto` is the mesh, whose weights are fetched once.

    flag: what the error calls the landmarks. Raises ValueError where it finds none and none are given, and
    weights.MissingWeights where the mesh is not there and cannot be fetched.
    """
    if faces == "auto":
        faces = "mesh"
    if faces.endswith("mesh"):
        weights.ensure("face-mesh")  # now, and not after the first seconds of work
    if faces == "mesh":
        return SameFace(threads)
    finder = AlignedFinder(SameFace(threads)) if faces == "aligned-mesh" else face_finder(faces, threads)
    if finder.topology == "none" and not landmarks_given:
        raise ValueError(
            f"an edit follows landmarks, and faces {faces!r} finds none: give --faces mesh (or "
            f"aligned-mesh for face crops), or {flag} with an array of them"
        )
    return finder


def follow(
    film: Footage,
    finder: FaceFinder,
    size: int,
    topology: str,
    landmarks: Path | None = None,
    advance: Callable[[], None] = lambda: None,
    threads: int = 0,
    part: Iterable[Picture] | None = None,
) -> Followed:
    """The face of `film` in crops of `size` pixels, with landmarks of `topology`; the film is read once, frame by frame.

    landmarks: a file of them, in pixels of the upright frame, instead of the finder's. advance: called after each frame.
    part: some pictures of the film, one after the other, in place of all.
    Raises EditError where there is no face, and where the landmarks are not those of this film or generator.
    """
    given = None if landmarks is None else _checked(film, landmarks)
    shrink, deinterlaced = 1, 0
    ticks: list[int] = []

    def seen() -> Iterator[np.ndarray]:
        nonlocal shrink, deinterlaced
        for picture in pictures(film, threads) if part is None else part:
            shrink, deinterlaced = _shrink(picture), deinterlaced + picture.deinterlaced
            ticks.append(picture.pts)
            yield picture.rgb(shrink)
            advance()

    try:
        track = finder.track(seen())
    except Unusable as error:
        raise EditError(f"{film.path}: {error.detail}") from error
    track.poses[:, :3] *= shrink
    if track.landmarks is not None:
        track.landmarks *= np.float32(shrink)
    mesh = track.landmarks
    track, order = _with_landmarks(track, finder.topology, film.path, landmarks, given)
    if topology != order:
        points = None if track.landmarks is None else converted(track.landmarks, order, topology)
        if points is None:
            raise EditError(
                f"{landmarks or film.path}: its landmarks are {order}, and this generator was trained on {topology}: "
                "leave the landmarks to --faces mesh (aligned-mesh for face crops)"
            )
        track = dataclasses.replace(track, landmarks=points)
    try:
        regions = crop_regions(track, film.fps)
    except Unusable as error:
        raise EditError(f"{film.path}: {error.detail}") from error
    cropped = crop_landmarks(track, regions, size)
    assert cropped is not None
    face = Face(cropped, track.found.astype(bool), size, topology)
    followed = Followed(regions, face, _weights(track.found, film.fps), _faces(finder), deinterlaced, tuple(ticks))
    if (meshed := _same_face(finder)) is None or mesh is None:
        return followed
    hidden = covered(np.stack(meshed.looks), mesh, film.fps)
    return followed if hidden is None else dataclasses.replace(followed, covers=masks(hidden, mesh, regions))


def _checked(film: Footage, path: Path) -> np.ndarray:
    points = read_landmarks(path)
    first = next(pictures(film, 1), None)
    if first is not None:
        height, width = first.y.shape
        refuse_unfit(path, points, width, height)
    return points


def _with_landmarks(
    track: FaceTrack, topology: str, film: Path, path: Path | None, points: np.ndarray | None
) -> tuple[FaceTrack, str]:
    if points is None:
        return track, topology
    if len(points) != len(track.found):
        raise EditError(f"{path} has landmarks of {len(points)} frames, and {film} has {len(track.found)} frames")
    return FaceTrack(track.poses, track.found & known(points), points), TOPOLOGIES[points.shape[1]]


def _same_face(finder: FaceFinder) -> SameFace | None:
    meshed = finder.mesh if isinstance(finder, AlignedFinder) else finder
    return meshed if isinstance(meshed, SameFace) else None


def _faces(finder: FaceFinder) -> int:
    counting = _same_face(finder)
    return counting.faces if counting else 1


def _shrink(picture: Picture) -> int:
    return max(1, round(max(picture.y.shape) / _LONGEST_SIDE))


def _weights(found: np.ndarray, fps: float) -> np.ndarray:
    """1 where the face is there, 0 where it is gone for long, rising over `_FADE` seconds between them."""
    gone = ~found
    edges = np.flatnonzero(np.diff(np.concatenate([[0], gone, [0]])))
    for start, stop in edges.reshape(-1, 2):
        if stop - start <= _BRIDGED * fps:
            gone[start:stop] = False
    if not gone.any():
        return np.ones(len(gone), np.float32)
    frames_away = distance_transform_edt(~gone)
    return np.clip(frames_away / max(1.0, _FADE * fps), 0, 1).astype(np.float32)
