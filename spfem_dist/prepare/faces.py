"""Where the face is in every frame, and the upright, steady crop that follows from it.

Three finders answer one question, `track(frames) -> FaceTrack`:

    mesh      MediaPipe's detector, 468-point mesh and irises (weights `face-mesh`); landmarks and the best crops
    cascade   OpenCV's cascades for face and eyes: needs no download, gives no landmarks
    aligned   the video is cropped already: the crop is the whole picture

A crop is a rotated square of the picture (similarity: one scale for both axes, never squeezed). Its place comes from
points that speech and expression move little (eye corners and nose), is filled in where the face was lost, and is
smoothed over time, so that neither jaw nor detector noise makes the crop breathe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d, median_filter

from spfem_dist.cropping import CROP_DROP, CROP_SIDE, RIGID
from spfem_dist.prepare.mesh import Detection, FaceModels, Region, region_of
from spfem_dist.records import Unusable

#: Where the points `RIGID` lie on a frontal face, in eye distances from their mean, x right and y down: the mean of 990 frames of five
#: MEAD speakers, made symmetric.
_TEMPLATE = np.array(
    [
        [-0.719, -0.223],
        [-0.281, -0.214],
        [0.281, -0.214],
        [0.719, -0.223],
        [0.0, -0.298],
        [0.0, -0.186],
        [0.0, -0.078],
        [0.0, 0.024],
        [0.0, 0.490],
        [-0.283, 0.460],
        [0.283, 0.460],
    ]
)
#: The crop's side and its centre below the box's, in sides of the box of OpenCV's frontal cascade: agreement with the
#: mesh's crops on the same frames.
_BOX_SCALE, _BOX_DROP = 1.2, 0.1
#: As long as no face was seen, small ones are sought in the first so many frames, and in one of so many later.
_CLOSELY_FOR, _CLOSELY_EVERY = 25, 12


@dataclass
class FaceTrack:
    """A face through T frames.

    poses: float64 [T, 4], the crop's centre x, y and side in pixels of the picture and its roll in radians; NaN where
    not found. landmarks: float32 [T, L, 2] in pixels of the picture, NaN where not found, or None. found: bool [T].
    """

    poses: np.ndarray
    found: np.ndarray
    landmarks: np.ndarray | None = None


class FaceFinder(Protocol):
    """topology: the landmarks' order, `mesh478` or `none`."""

    topology: str

    def track(self, frames: Iterable[np.ndarray]) -> FaceTrack:
        """The face in each of `frames`, uint8 [H, W, 3] RGB, read once and in order."""
        ...


def face_finder(name: str, threads: int = 1) -> FaceFinder:
    """The finder called `mesh`, `cascade`, `aligned`, or `aligned-mesh` (cropped already, landmarks wanted).

    Raises ValueError that lists the names.
    """
    if name == "mesh":
        return MeshFinder(threads)
    if name == "cascade":
        return CascadeFinder()
    if name == "aligned":
        return AlignedFinder()
    if name == "aligned-mesh":
        return AlignedFinder(MeshFinder(threads))
    raise ValueError(f"unknown face finder {name!r}; use mesh, cascade, aligned or aligned-mesh")


class MeshFinder:
    """The mesh, started by the detector and carried from frame to frame by its own landmarks."""

    topology = "mesh478"

    def __init__(self, threads: int = 1, minimum_score: float = 0.5):
        self.models, self.minimum_score = FaceModels(threads), minimum_score
        self._closely = True

    def track(self, frames: Iterable[np.ndarray]) -> FaceTrack:
        """See `FaceFinder`. Raises weights.MissingWeights where the models are not there."""
        poses, landmarks = [], []
        last: Region | None = None
        carried = False
        for number, frame in enumerate(frames):
            self._closely = number < _CLOSELY_FOR or number % _CLOSELY_EVERY == 0
            points = self._landmarks(frame, last) if carried and last else None
            if points is None:
                points = self._found_anew(frame, last)
            carried = points is not None
            if points is None:
                points = np.full((478, 2), np.nan)
                poses.append(np.full(4, np.nan))
            else:
                last = region_of(points)
                points = np.concatenate([points, self.models.irises(frame, points)])
                poses.append(pose_of(points[list(RIGID)]))
            self._seen(frame, points)
            landmarks.append(points.astype(np.float32))
        array = np.array(poses).reshape(-1, 4)
        return FaceTrack(array, np.isfinite(array).all(1), np.array(landmarks, np.float32).reshape(-1, 478, 2))

    def _seen(self, frame: np.ndarray, points: np.ndarray) -> None:
        """For who wants to look at each frame with its landmarks [478, 2], NaN where there is no face."""

    def _landmarks(self, frame: np.ndarray, region: Region) -> np.ndarray | None:
        points, score = self.models.landmarks(frame, region)
        return points if score >= self.minimum_score else None

    def _found_anew(self, frame: np.ndarray, last: Region | None) -> np.ndarray | None:
        """Landmarks of the face nearest to where it was last seen, or of the largest face."""
        for found in self._searches(frame, last):
            faces = [face.region() for face in found]
            if last is not None:
                faces.sort(key=lambda face: math.hypot(face.x - last.x, face.y - last.y))
            else:
                faces.sort(key=lambda face: -face.side)
            for face in faces:
                points = self._landmarks(frame, face)
                if points is not None:  # once more from its own region: the detector's box is coarse
                    return self._landmarks(frame, region_of(points))
        return None

    def _searches(self, frame: np.ndarray, last: Region | None) -> Iterator[list[Detection]]:
        """The faces of the whole picture, then small ones: around the last place, or anywhere."""
        yield self.models.detect(frame, self.minimum_score)
        if last is not None:
            yield self.models.detect_in(frame, Region(last.x, last.y, 3 * last.side, 0.0), self.minimum_score)
        elif self._closely:
            yield self.models.detect_small(frame)


class CascadeFinder:
    """OpenCV's cascades: place and size from the face's box, roll from the eyes. No landmarks."""

    topology = "none"

    def track(self, frames: Iterable[np.ndarray]) -> FaceTrack:
        """See `FaceFinder`."""
        face, eyes = (_cascade(f"haarcascade_{name}.xml") for name in ("frontalface_default", "eye"))
        boxes, rolls = [], []
        last: np.ndarray | None = None
        for frame in frames:
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            box = _nearby_box(grey, face, last) if last is not None else None
            box = box if box is not None else _any_box(grey, face, last)
            last = box if box is not None else last
            boxes.append(box if box is not None else np.full(3, np.nan))
            rolls.append(_eye_roll(grey, box, eyes) if box is not None else math.nan)
        # Single wrong boxes and eyes are common: a running median removes what lasts under half the window.
        found = np.isfinite(np.array(boxes).reshape(-1, 3)).all(1)
        steady = median_filter(_filled(np.array(boxes).reshape(-1, 3)), size=(7, 1), mode="nearest")
        roll = median_filter(_filled(np.array(rolls).reshape(-1, 1))[:, 0], size=15, mode="nearest")
        poses = _poses_of_boxes(steady, roll)
        poses[~found] = np.nan
        return FaceTrack(poses, found)


class AlignedFinder:
    """The crop is the whole picture. mesh: a finder for the landmarks, where they are wanted."""

    def __init__(self, mesh: MeshFinder | None = None):
        self.mesh = mesh
        self.topology = mesh.topology if mesh else "none"

    def track(self, frames: Iterable[np.ndarray]) -> FaceTrack:
        """See `FaceFinder`. Raises Unusable where the picture is not square."""
        poses: list[tuple[float, float, float, float]] = []

        def whole_picture() -> Iterable[np.ndarray]:
            for frame in frames:
                height, width = frame.shape[:2]
                if height != width:
                    detail = (
                        f"the picture is {width} x {height}; `aligned` wants square face crops: use mesh or cascade"
                    )
                    raise Unusable("not-square", detail)
                poses.append((width / 2, height / 2, width, 0.0))
                yield frame

        if self.mesh:
            track = self.mesh.track(whole_picture())
            return FaceTrack(np.array(poses, float).reshape(-1, 4), track.found, track.landmarks)
        for _ in whole_picture():
            pass
        return FaceTrack(np.array(poses, float).reshape(-1, 4), np.ones(len(poses), bool))


def pose_of(points: np.ndarray) -> np.ndarray:
    """The crop (x, y, side, roll) whose `RIGID` points [11, 2] are nearest to the template's.

    The least-squares similarity of two planar point sets (Umeyama, PAMI 1991) in complex form: with both sets centred,
    the factor is <template, points> / <template, template>; its size is the scale and its angle the roll.
    """
    centre = points.mean(0)
    template = _TEMPLATE - _TEMPLATE.mean(0)
    a, b = template @ (1, 1j), (points - centre) @ (1, 1j)
    factor = np.vdot(a, b) / np.vdot(a, a)
    drop = factor * 1j * (CROP_DROP - _TEMPLATE.mean(0)[1])
    return np.array([centre[0] + drop.real, centre[1] + drop.imag, CROP_SIDE * abs(factor), np.angle(factor)])


def crop_regions(track: FaceTrack, fps: float, smoothing: float = 0.1) -> list[Region]:
    """The crop of every frame: gaps filled linearly, then a Gaussian over time. smoothing: its sigma, seconds.

    Raises Unusable where no frame has a face.
    """
    if not track.found.any():
        raise Unusable(
            "face-not-found",
            f"no face in any of {len(track.found)} frames; where one is in it, crop the video around it first, three times its "
            "width (ffmpeg -i IN -vf crop=WIDTH:HEIGHT:LEFT:TOP OUT)",
        )
    poses = _filled(track.poses)
    poses[:, 2] = np.log(poses[:, 2])
    if smoothing > 0:
        poses = gaussian_filter1d(poses, smoothing * fps, axis=0, mode="nearest")
    return [Region(x, y, math.exp(side), roll) for x, y, side, roll in poses.tolist()]


def cut_face(frame: np.ndarray, region: Region, size: int) -> np.ndarray:
    """The crop of `frame` as uint8 [size, size, 3]; the picture's edge is repeated beyond it.

    A region much larger than `size` is drawn at a multiple first and averaged down, which keeps fine lines from
    flickering.
    """
    multiple = max(1, min(4, round(region.side / size)))
    drawn = region.cut(frame, size * multiple, cv2.BORDER_REPLICATE)
    return cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA) if multiple > 1 else drawn


def crop_landmarks(track: FaceTrack, regions: list[Region], size: int) -> np.ndarray | None:
    """The track's landmarks in pixels of the crops, float32 [T, L, 2], gaps filled linearly; None where it has none."""
    if track.landmarks is None:
        return None
    rows = [
        region.from_picture(points.astype(float), size) for region, points in zip(regions, track.landmarks, strict=True)
    ]
    flat = _filled(np.array(rows).reshape(len(rows), -1))
    return flat.reshape(track.landmarks.shape).astype(np.float32)


def _filled(columns: np.ndarray) -> np.ndarray:
    """Columns [T, N] of float64 with NaN replaced by interpolation over time, the ends by their nearest, all-NaN by 0."""
    result = np.array(columns, dtype=np.float64)
    time = np.arange(len(result))
    for column in result.T:
        known = np.isfinite(column)
        if not known.all():
            column[:] = np.interp(time, time[known], column[known]) if known.any() else 0.0
    return result


def _cascade(name: str) -> cv2.CascadeClassifier:
    path = Path(cv2.__file__).parent / "data" / name
    cascade = cv2.CascadeClassifier(str(path))
    if cascade.empty():
        raise FileNotFoundError(f"OpenCV's cascade {path} is missing or damaged; reinstall opencv-python-headless")
    return cascade


def _any_box(grey: np.ndarray, cascade: cv2.CascadeClassifier, last: np.ndarray | None) -> np.ndarray | None:
    """The largest face of the picture, or the one nearest to `last`, as (centre x, centre y, side), or None."""
    boxes = _boxes(grey, cascade, 400, 1 / 6, 5)
    if not boxes and last is None:  # a small one; false ones are common then, so more of its neighbours are to agree
        boxes = _boxes(grey, cascade, 1280, 1 / 16, 8)
    if last is not None:
        return min(boxes, key=lambda box: float(np.hypot(*(box - last)[:2])), default=None)
    return max(boxes, key=lambda box: float(box[2]), default=None)


def _boxes(
    grey: np.ndarray, cascade: cv2.CascadeClassifier, longest: int, smallest: float, agreeing: int
) -> list[np.ndarray]:
    """Faces (centre x, centre y, side) of at least `smallest` of the shorter side, sought in `longest` pixels."""
    shrink = min(1.0, longest / max(grey.shape))
    small = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) if shrink < 1 else grey
    least = max(24, int(smallest * min(small.shape)))
    found = cascade.detectMultiScale(small, 1.1, agreeing, minSize=(least, least))
    return [np.array([x + side / 2, y + side / 2, side]) / shrink for x, y, side, _ in found]


def _nearby_box(grey: np.ndarray, cascade: cv2.CascadeClassifier, last: np.ndarray) -> np.ndarray | None:
    """The face near its last place and of nearly its last size: a tenth of the work of a search of the whole picture."""
    side = 80
    around = Region(last[0], last[1], 1.6 * last[2], 0.0)
    patch = around.cut(grey, round(1.6 * side), cv2.BORDER_REPLICATE)
    found = cascade.detectMultiScale(patch, 1.05, 3, minSize=(int(0.8 * side),) * 2, maxSize=(int(1.25 * side),) * 2)
    if not len(found):
        return None
    x, y, width, _ = max(found, key=lambda box: box[2])
    centre = around.to_picture(np.array([x + width / 2, y + width / 2]), round(1.6 * side))
    return np.array([*centre, width * around.side / round(1.6 * side)])


def _eye_roll(grey: np.ndarray, box: np.ndarray, cascade: cv2.CascadeClassifier) -> float:
    """The angle of the line through both eyes, or NaN where not exactly one was found on each side."""
    side = 120
    x, y, box_side = box.tolist()
    face = Region(x, y, box_side, 0.0).cut(grey, side, cv2.BORDER_REPLICATE)[: side * 6 // 10]
    found = cascade.detectMultiScale(face, 1.1, 6, minSize=(side // 7,) * 2, maxSize=(side // 3,) * 2)
    centres = [(x + w / 2, y + h / 2) for x, y, w, h in found]
    left, right = ([c for c in centres if (c[0] >= side / 2) == is_right] for is_right in (False, True))
    if len(left) != 1 or len(right) != 1:
        return math.nan
    (x0, y0), (x1, y1) = left[0], right[0]
    roll = math.atan2(y1 - y0, x1 - x0)
    return roll if abs(roll) < 0.6 and x1 - x0 > 0.25 * side else math.nan


def detector_box(pose: np.ndarray) -> tuple[float, float, float]:
    """(centre x, centre y, side) of the upright square that OpenCV's frontal cascade would find for the face of this crop pose [4]."""
    x, y, side, roll = pose.tolist()
    box = side / _BOX_SCALE
    return x + math.sin(roll) * _BOX_DROP * box, y - math.cos(roll) * _BOX_DROP * box, box


def _poses_of_boxes(boxes: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Crop poses [T, 4] from the cascade's boxes (centre x, centre y, side) [T, 3] and rolls [T]."""
    side = _BOX_SCALE * boxes[:, 2]
    drop = _BOX_DROP * boxes[:, 2]
    return np.stack([boxes[:, 0] - np.sin(roll) * drop, boxes[:, 1] + np.cos(roll) * drop, side, roll], axis=1)
