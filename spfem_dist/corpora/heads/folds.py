"""Lines that units draw into skin: forehead, frown, crow's feet, nose, cheeks, chin. Grooves on the skin's map, each with its units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numba import njit

from spfem_dist.corpora.heads.acting import Units
from spfem_dist.corpora.heads.person import Person
from spfem_dist.corpora.heads.skin import SKIN, lip_region, strokes, worn_region
from spfem_dist.head.asset import MAP_ANGLE, MAP_FOOT, MAP_TOP, Head

SIDE = 256
#: Decimetres of one texel, along u at the face's middle and along v.
_TEXEL = (np.radians(2 * MAP_ANGLE / 1.6) * 0.85 / SIDE, (MAP_TOP - MAP_FOOT) / SIDE)


@dataclass(frozen=True)
class Folds:
    """height: float32 [K, R, R], decimetres, negative in a groove, of each fold at weight 1. box: int32 [K, 4], rows and columns that it
    fills. still: float32 [R, R], what is always there. drivers: float32 [K, U]. labels: uint8 [S, S], what the skin's map shows, as `scene.LABELS`."""

    height: np.ndarray
    box: np.ndarray
    still: np.ndarray
    drivers: np.ndarray
    labels: np.ndarray


def folds(head: Head, person: Person, rng: np.random.Generator) -> Folds:
    """The folds of `person`: as deep as its age makes them, each drawn a little differently."""
    place = head.mesh478(head.uv) * SIDE
    units = Units(head.names)
    heights, drivers = [], []
    still = np.zeros((SIDE, SIDE), np.float32)
    for drawn in _drawings(place, rng):
        depth = drawn.depth * (0.35 + 0.75 * person.lines) * rng.uniform(0.75, 1.25)
        height: Any = np.zeros((SIDE, SIDE), np.float32)
        for line in drawn.lines:
            smooth = _smooth(line)
            fading = np.sin(np.linspace(0.15, np.pi - 0.15, len(smooth) - 1))
            stroke = strokes([(smooth[k : k + 2], float(fading[k])) for k in range(len(fading))], side=SIDE)
            soft = cv2.GaussianBlur(stroke, (0, 0), drawn.width)
            height = height - np.asarray(soft) / max(float(soft.max()), 1e-6)
        # Skin pushed out of a groove stands up beside it.
        height = height - 0.5 * np.asarray(cv2.GaussianBlur(height, (0, 0), 2.5 * drawn.width))
        heights.append(height * depth)
        drivers.append(units.row(drawn.units))
        still += height * depth * drawn.rest * person.lines
    heights_array = np.stack(heights).astype(np.float32)
    boxes = []
    for height in heights_array:
        rows, columns = (np.flatnonzero((np.abs(height) > 1e-5).any(axis)) for axis in (1, 0))
        boxes.append((rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    fine = cv2.resize(rng.standard_normal((150, 150)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    still += 0.0007 * fine
    labels = np.ones((SKIN, SKIN), np.uint8)
    labels[lip_region(head.mesh478(head.uv) * SKIN) > 0.5] = 2
    labels[worn_region(person) > 0.5] = 9
    return Folds(heights_array, np.array(boxes, np.int32), still, np.stack(drivers).astype(np.float32), labels)


@dataclass(frozen=True)
class _Drawing:
    """lines: polylines [P, 2] in texels. width: texels. depth: decimetres at weight 1. rest: share of it that age leaves. units: what draws it."""

    lines: list[np.ndarray]
    width: float
    depth: float
    rest: float
    units: Mapping[str, float]


def _drawings(place: np.ndarray, rng: np.random.Generator) -> list[_Drawing]:
    def at(*numbers: int) -> np.ndarray:
        return place[list(numbers)].astype(np.float64)

    apart = float(np.linalg.norm(place[33] - place[263]))
    brow, top = place[9], place[10]
    found: list[_Drawing] = []
    rows = []
    for k in range(4):
        y = brow[1] + (top[1] - brow[1]) * (0.30 + 0.21 * k)
        x = brow[0] + np.linspace(-0.42, 0.42, 9) * apart
        wave = -0.035 * apart * np.cos(np.linspace(-2.2, 2.2, 9)) + 0.012 * apart * rng.standard_normal(9)
        rows.append(np.stack([x, y + wave], axis=1))
    found.append(_Drawing(rows, 1.0, 0.016, 0.25, {"browInnerUp": 0.6, "browOuterUp": 0.25}))
    for side, name in ((-1, "Right"), (1, "Left")):  # the subject's left is on the right of the picture
        inner, corner, wing, mouth = (107, 33, 129, 61) if side < 0 else (336, 263, 358, 291)
        x = brow[0] + side * 0.075 * apart
        y = place[inner][1]
        jitter = 0.01 * apart * rng.standard_normal(2)
        frown = np.array(
            [
                (x + jitter[0], y - 0.10 * apart),
                (x - side * 0.01 * apart, y),
                (x + side * 0.02 * apart + jitter[1], y + 0.12 * apart),
            ]
        )
        found.append(_Drawing([frown], 1.1, 0.022, 0.25, {f"browDown{name}": 1.0}))
        feet = []
        for slant in (-0.55, -0.1, 0.35):
            start = place[corner] + side * np.array((0.07, 0.35 * slant * 0.2)) * apart
            reach = rng.uniform(0.15, 0.24) * apart
            feet.append(
                start
                + np.array([(0, 0), (side * 0.5 * reach, slant * 0.4 * reach), (side * reach, slant * 1.1 * reach)])
            )
        found.append(_Drawing(feet, 0.8, 0.010, 0.30, {f"cheekSquint{name}": 0.6, f"eyeSquint{name}": 0.4}))
        start = place[wing] + np.array((side * 0.01, -0.03)) * apart
        end = place[mouth] + np.array((side * 0.09, 0.05)) * apart
        bow = (start + end) / 2 + np.array((side * 0.035, -0.01)) * apart
        found.append(
            _Drawing(
                [np.stack([start, bow, end])],
                1.5,
                0.034,
                0.22,
                {
                    f"mouthSmile{name}": 0.8,
                    f"noseSneer{name}": 0.5,
                    f"mouthUpperUp{name}": 0.5,
                    f"cheekSquint{name}": 0.2,
                },
            )
        )
        bunny = []
        for k in range(3):
            y = place[6][1] + (0.02 + 0.09 * k) * apart
            bunny.append(
                np.array(
                    [
                        (brow[0] + side * 0.015 * apart, y),
                        (brow[0] + side * 0.08 * apart, y - 0.02 * apart),
                        (brow[0] + side * 0.15 * apart, y + 0.04 * apart),
                    ]
                )
            )
        found.append(_Drawing(bunny, 0.8, 0.013, 0.0, {f"noseSneer{name}": 1.0}))
        low = at(*((110, 24, 22, 26) if side < 0 else (339, 254, 252, 256)))
        found.append(
            _Drawing(
                [low + np.array((0, 0.03)) * apart],
                1.0,
                0.010,
                0.6,
                {f"cheekSquint{name}": 0.7, f"eyeSquint{name}": 0.4, f"mouthSmile{name}": 0.2},
            )
        )
        corner_of_mouth = place[mouth] + np.array((side * 0.05, 0.02)) * apart
        fall = corner_of_mouth + np.array([(0, -0.03), (side * 0.03, 0.07), (side * 0.03, 0.20)]) * apart
        found.append(_Drawing([fall], 1.3, 0.020, 0.25, {f"mouthFrown{name}": 0.9, f"mouthStretch{name}": 0.35}))
        dent = corner_of_mouth + np.array([(side * 0.02, -0.06), (side * 0.045, 0.0), (side * 0.02, 0.06)]) * apart
        found.append(
            _Drawing(
                [dent],
                1.2,
                0.018,
                0.0,
                {f"mouthDimple{name}": 0.8, f"mouthPress{name}": 0.5, f"mouthSmile{name}": 0.25},
            )
        )
    chin = place[199]
    dents = [
        chin + np.array([(-0.16, 0.03), (0, -0.03), (0.16, 0.03)]) * apart + 0.02 * apart * rng.standard_normal(2)
        for _ in range(3)
    ]
    found.append(_Drawing(dents, 1.3, 0.010, 0.0, {"mouthShrugLower": 0.9, "mouthFrown": 0.15}))
    return found


def _smooth(line: np.ndarray) -> np.ndarray:
    """Corners of a polyline as 13 points of a smooth curve through them."""
    along = np.append(0, np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1)))
    degree = min(len(line) - 1, 3)
    wanted = np.linspace(0, along[-1], 13)
    if len(line) > 4:
        return np.stack([np.interp(wanted, along, values) for values in line.T], axis=1)
    return np.stack([np.polyval(np.polyfit(along, values, degree), wanted) for values in line.T], axis=1)


def folded(made: Folds, units: np.ndarray) -> np.ndarray:
    """The relief under unit weights [U], as `raster.shade` reads it: darkening, and the slopes along u and v, float32 [R, R, 3]."""
    weights = np.clip((made.drivers * units.astype(np.float32)).sum(1), 0, 1.3)
    return _relief(
        made.height, made.box, made.still, weights.astype(np.float32), np.float32(_TEXEL[0]), np.float32(_TEXEL[1])
    )


@njit(cache=True, nogil=True)
def _relief(height, box, still, weights, across, down):
    total = still.copy()
    side = still.shape[0]
    for k in range(height.shape[0]):
        w = weights[k]
        if w <= np.float32(0.01):
            continue
        for i in range(box[k, 0], box[k, 1]):
            for j in range(box[k, 2], box[k, 3]):
                total[i, j] += w * height[k, i, j]
    out = np.zeros((side, side, 3), np.float32)
    for i in range(1, side - 1):
        for j in range(1, side - 1):
            # A groove is dark because little of the sky is seen from its ground.
            out[i, j, 0] = min(max(-total[i, j] * np.float32(14.0), np.float32(-0.06)), np.float32(0.45))
            out[i, j, 1] = (total[i, j + 1] - total[i, j - 1]) / (np.float32(2) * across)
            out[i, j, 2] = (total[i + 1, j] - total[i - 1, j]) / (np.float32(2) * down)
    return out
