"""The face of a frame, cut as each of the open judges was meant to see it; where it is, the project's own mesh says.

Every network comes with habits of the detector before it: face-api takes the box of 68 landmarks with a fifth more around it,
filled up to a square with black (`FaceLandmarks.align`, `imageToSquare` in its sources); FER the square that OpenCV's frontal
cascade finds, with 10 pixels more on each side (`FER.detect_emotions`). Boxes are upright, as there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from spfem_dist.cropping import RIGID
from spfem_dist.prepare.faces import detector_box, pose_of
from spfem_dist.prepare.landmarks import converted
from spfem_dist.prepare.mesh import Region

#: What face-api adds to the landmarks' box, as a share of its sides.
PADDING = 0.2
#: Side of FER's square in sides of the cascade's: 10 pixels on either side of a box of about 200.
FER_SIDE = 1.1
#: Sides in pixels: FER's grey square, face-api's for expression and landmarks, for recognition.
GREY, SMALL, LARGE = 64, 112, 150


@dataclass(frozen=True)
class FaceCut:
    """One face as the judges take it.

    grey: uint8 [64, 64]. small, large: uint8 RGB [112, 112, 3] and [150, 150, 3], black beside the face's box.
    square: where `small` and `large` lie in the picture.
    """

    grey: np.ndarray
    small: np.ndarray
    large: np.ndarray
    square: Region


def cut(frame: np.ndarray, points: np.ndarray) -> FaceCut:
    """The face with mesh landmarks `points` [478, 2], pixels, of an RGB frame uint8 [H, W, 3]."""
    low, high = face_box(points)
    (x, y), (width, height) = (low + high) / 2, high - low
    square = Region(float(x), float(y), float(max(width, height)), 0.0)
    small, large = (_beside_black(_drawn(frame, square, side), width, height) for side in (SMALL, LARGE))
    x, y, side = detector_box(pose_of(points[list(RIGID)].astype(np.float64)))
    grey = cv2.cvtColor(
        _drawn(frame, Region(x, y, FER_SIDE * side, 0.0), GREY, cv2.BORDER_REPLICATE), cv2.COLOR_RGB2GRAY
    )
    return FaceCut(grey, small, large, square)


def face_box(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper left and lower right corner [2] of face-api's aligned box around mesh landmarks [478, 2]."""
    outline = converted(points, "mesh478", "ibug68")
    assert outline is not None
    low, high = outline.min(0).astype(np.float64), outline.max(0).astype(np.float64)
    more = PADDING / 2 * (high - low)
    return low - more, high + more


def _drawn(frame: np.ndarray, square: Region, side: int, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """The square at `side` pixels; a larger one is drawn at a multiple and averaged, so that no line flickers in and out."""
    multiple = max(1, min(6, round(square.side / side)))
    drawn = square.cut(frame, side * multiple, border)
    return cv2.resize(drawn, (side, side), interpolation=cv2.INTER_AREA) if multiple > 1 else drawn


def _beside_black(square: np.ndarray, width: float, height: float) -> np.ndarray:
    """The square with black where the box of these proportions does not reach."""
    side, longer = len(square), max(width, height)
    across, down = (round((1 - length / longer) / 2 * side) for length in (width, height))
    inside = np.zeros_like(square)
    rows, columns = slice(down, side - down), slice(across, side - across)
    inside[rows, columns] = square[rows, columns]
    return inside
