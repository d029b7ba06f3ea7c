"""An edit against its source, frame by frame: what changed that should not have. Pictures pass by and are not kept.

All in grey levels (0..255) of upright frames of one size. The face of both films is known by the mesh; what is outside of it is
outside of the outlines of both, grown by a quarter of the eyes' distance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from spfem_dist.evaluation.images import GRAIN
from spfem_dist.evaluation.judges.check import correlation
from spfem_dist.prepare.faces import FaceTrack, crop_regions, cut_face
from spfem_dist.prepare.landmarks import converted, mouth_region
from spfem_dist.prepare.mesh import Region

#: How far the face's outline is grown, in distances of the outer eye corners; those points of the mesh.
GROWN, EYES = 0.25, (33, 263)
#: Longest side of the pictures in which a still background is looked for, and what moves less from frame to frame is still.
STILL_SIDE, STILL = 320, 2.0
#: Side of the crops in which skin is looked at.
SKIN_SIDE = 128
#: The mouth may be late by so many seconds at most.
LATEST = 0.2
#: Lips and eyes are no skin, nor what lies this near to them, in eye distances.
_APART = 0.12


def lag(late: np.ndarray, source: np.ndarray, fps: float) -> float:
    """Frames by which the series `late` [T] follows `source` [T] where they agree best; of two, the nearer to 0.

    At most LATEST seconds, and a quarter of the film: few frames always agree somewhere. Frames that are not known (NaN) in one do not count. Not a number where one does not move.
    """
    reach = min(round(LATEST * fps), len(source) // 4)
    found: list[tuple[float, int]] = []
    for shift in sorted(range(-reach, reach + 1), key=abs):
        a, b = late[max(0, shift) : len(late) + min(0, shift)], source[max(0, -shift) : len(source) - max(0, shift)]
        if not math.isnan(agreement := series_correlation(a, b)):
            found.append((round(agreement, 9), shift))
    return float(max(found, key=lambda pair: pair[0])[1]) if found else math.nan


def series_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two series [T] over the frames in which both are known; not a number for fewer than three of them."""
    both = np.isfinite(a) & np.isfinite(b)
    return correlation(a[both], b[both]) if both.sum() >= 3 else math.nan


def sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian of a grey picture [H, W] (Pech-Pacheco et al. 2000): fine detail, and noise."""
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


@dataclass
class Comparison:
    """Measures of one edit, gathered as its frames and the source's pass by. `values` gives them.

    source, edit: the mesh's track of either film. fps: their rate.
    """

    source: FaceTrack
    edit: FaceTrack
    fps: float
    _background: list[float] = field(default_factory=list)
    _sharp: list[tuple[float, float]] = field(default_factory=list)
    _still: _Wobble = field(init=False)
    _skin: _Wobble = field(init=False)

    def __post_init__(self) -> None:
        self._still, self._skin = _Wobble(STILL), _Wobble(math.inf)
        self._crops: list[Region] = crop_regions(self.source, self.fps)

    def look(self, number: int, source: np.ndarray, edit: np.ndarray) -> None:
        """Frame `number` of both films, uint8 [H, W, 3] RGB. Raises ValueError where their sizes differ."""
        if source.shape != edit.shape:
            raise ValueError(f"frame {number} of the edit is {edit.shape[:2]}, of its source {source.shape[:2]}")
        if not (self.source.found[number] and self.edit.found[number]):
            self._still.pause()
            self._skin.pause()
            return
        assert self.source.landmarks is not None
        assert self.edit.landmarks is not None
        faces = [track.landmarks[number] for track in (self.source, self.edit)]  # type: ignore[index]
        outside = background(faces, source.shape[:2])
        if outside.any():
            self._background.append(float(np.mean(cv2.mean(cv2.absdiff(source, edit), outside)[:3])))
        greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (source, edit)]
        self._sharp.append(_of_mouth(greys, faces))
        small = [_shrunk(grey) for grey in greys]
        there = cv2.resize(outside, small[0].shape[::-1], interpolation=cv2.INTER_AREA) == 255
        self._still.look(small[0], small[1], there)
        crop = self._crops[number]
        skins = [_soft(cut_face(frame, crop, SKIN_SIDE)) for frame in (source, edit)]
        self._skin.look(skins[0], skins[1], skin(crop.from_picture(faces[0].astype(np.float64), SKIN_SIDE), SKIN_SIDE))

    def values(self) -> tuple[dict[str, float], dict[str, float]]:
        """The edit's measures, and the same of the unchanged source.

        background_change: mean absolute difference outside the face. sharpness: the mouth's, as a share of the source's.
        jitter_background, jitter_skin: mean second difference over time, where the source stands still, and of the skin of the face.
        """
        sharp = np.array(self._sharp).reshape(-1, 2).sum(0)
        mine = {
            "background_change": float(np.mean(self._background)) if self._background else math.nan,
            "sharpness": float(sharp[1] / sharp[0]) if sharp[0] > 0 else math.nan,
            "jitter_background": self._still.edit,
            "jitter_skin": self._skin.edit,
        }
        copy = {"background_change": 0.0, "sharpness": 1.0}
        copy |= {"jitter_background": self._still.source, "jitter_skin": self._skin.source}
        return mine, copy


class _Wobble:
    """Mean absolute second difference over time of two films, over pixels that count in three frames and move little in the source."""

    def __init__(self, still: float):
        self._limit, self._sums, self._count = still, np.zeros(2), 0
        self._last: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def pause(self) -> None:
        self._last.clear()

    def look(self, source: np.ndarray, edit: np.ndarray, there: np.ndarray) -> None:
        self._last = [*self._last[-2:], (source, edit, there)]
        if len(self._last) < 3:
            return
        (a, x, one), (b, y, two), (c, z, three) = self._last
        count = one & two & three & (np.abs(b - a) < self._limit) & (np.abs(c - b) < self._limit)
        self._sums += [np.abs(c - 2 * b + a)[count].sum(), np.abs(z - 2 * y + x)[count].sum()]
        self._count += int(count.sum())

    @property
    def source(self) -> float:
        return float(self._sums[0] / self._count) if self._count else math.nan

    @property
    def edit(self) -> float:
        return float(self._sums[1] / self._count) if self._count else math.nan


def background(faces: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W], 255 outside of all faces (mesh landmarks [478, 2] each, pixels), grown, and 0 inside."""
    outside = np.full(shape, 255, np.uint8)
    for points in faces:
        grow = GROWN * float(np.linalg.norm(points[EYES[1]] - points[EYES[0]]))
        _fill(outside, points[:468], 0, grow)
    return outside


def skin(points: np.ndarray, side: int) -> np.ndarray:
    """bool [side, side]: the face of mesh landmarks [478, 2] from jaw to brows, without lips and eyes and what is near them."""
    outline = converted(points, "mesh478", "ibug68")
    assert outline is not None
    near = _APART * float(np.linalg.norm(points[EYES[1]] - points[EYES[0]]))
    mask = np.zeros((side, side), np.uint8)
    _fill(mask, outline[:27], 255, 0.0)
    for part in (slice(36, 42), slice(42, 48), slice(48, 60)):
        _fill(mask, outline[part], 0, near)
    return mask > 0


def _fill(mask: np.ndarray, points: np.ndarray, value: int, grow: float) -> None:
    hull = cv2.convexHull(np.rint(points).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, value)
    if grow >= 0.5:
        cv2.polylines(mask, [hull], True, value, thickness=max(1, round(2 * grow)))


def _of_mouth(greys: list[np.ndarray], faces: list[np.ndarray]) -> tuple[float, float]:
    """The sharpness of source and edit in one box around both mouths."""
    boxes = np.stack([mouth_region(points, "mesh478") for points in faces])
    height, width = greys[0].shape
    left, top = np.floor(boxes[:, :2].min(0)).astype(int).clip(0, [width - 3, height - 3])
    right, bottom = np.ceil(boxes[:, 2:].max(0)).astype(int).clip([left + 3, top + 3], [width, height])
    return sharpness(greys[0][top:bottom, left:right]), sharpness(greys[1][top:bottom, left:right])


def _shrunk(grey: np.ndarray) -> np.ndarray:
    scale = min(1.0, STILL_SIDE / max(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    return small.astype(np.float32)


def _soft(crop: np.ndarray) -> np.ndarray:
    # As in `images.jitter`: a sensor's grain is no movement.
    return cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), GRAIN * SKIN_SIDE)
