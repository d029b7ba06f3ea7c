"""What covers a face for a while (a hand, a microphone, a strand of hair, words on the screen), told by what it hides: it is not to be moved.

Every point of the face's mesh has a colour and a grain of its own, which light changes smoothly over the face, and which come back when
nothing is in front. Where a point looks for a while like nothing it looked like before, something else is seen in its place. What is
there in most frames is taken for the face: glasses, a beard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from spfem_dist.generators.face.topology import MESH478
from spfem_dist.prepare.faces import cut_face
from spfem_dist.prepare.mesh import Region, region_of

#: Side of the crop in which points are looked at, and the neighbourhood of one (sigma), both in its pixels.
_SIDE, _NEAR = 96, 1.4
#: How far a point's look may be from its usual one: colours in grey values and grain likewise, or so many of its own deviations.
_COLOUR, _GRAIN, _DEVIATIONS = 13.0, 9.0, 4.0
#: Added to grey values before their logarithm, so that dark ones do not count too much; and what light alone may explain there.
_DARK, _LIGHT = 16.0, 0.12
#: A point is covered where this share of those around it looks strange: distances in outer-eye distances, time in seconds (sigmas).
_SHARE, _AROUND, _LASTS = 0.3, 0.09, 0.06
#: Eyes and mouth change by themselves: what lies nearer to their points than this (outer-eye distances) is judged by its surroundings.
_MOVING = 0.06
#: Below so many frames with a face there is nothing to compare with.
_FEWEST = 15
#: Frames that say what is usual, and that are judged at once: memory hardly grows with a film.
_SOME = 400
#: Side of the masks.
SIDE = 32


def looks(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How each of the mesh's points [478, 2] (pixels) looks in the RGB frame: float16 [478, 4], its colour and the grain around it."""
    region = region_of(points[:468].astype(np.float64))
    crop = cut_face(frame, region, _SIDE).astype(np.float32)
    grey = crop.mean(2)
    mean, square = (cv2.GaussianBlur(a, (0, 0), 2 * _NEAR) for a in (grey, grey * grey))
    grain = np.sqrt(np.maximum(square - mean * mean, 0))
    seen = np.dstack([cv2.GaussianBlur(crop, (0, 0), _NEAR), grain])
    at = (region.from_picture(points.astype(np.float64), _SIDE) - 0.5).astype(np.float32)
    sampled: np.ndarray = cv2.remap(seen, at[:, :1], at[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled[:, 0].astype(np.float16)


def covered(seen: np.ndarray, points: np.ndarray, fps: float) -> np.ndarray | None:
    """Which of the mesh's points something covers: float32 [T, 478] in 0..1; None where nothing ever does, or it cannot be known.

    seen: float [T, 478, 4] as `looks` has them, NaN without a face. points: float32 [T, 478, 2], pixels, NaN likewise.
    """
    there = np.flatnonzero(np.isfinite(seen).all((1, 2)) & np.isfinite(points).all((1, 2)))
    if len(there) < _FEWEST:
        return None
    some = there[np.linspace(0, len(there) - 1, min(len(there), _SOME)).astype(int)]
    shape = np.median(points[some], 0).astype(np.float64)
    shape /= np.linalg.norm(shape[MESH478.outer_eyes[0]] - shape[MESH478.outer_eyes[1]])
    judged = _still_points(shape)
    usual = _Usual.of(seen[some][:, judged], shape[judged])
    strange = np.zeros((len(seen), len(judged)), np.float32)
    for part in np.array_split(there, math.ceil(len(there) / _SOME)):
        strange[part] = usual.strangeness(seen[part][:, judged]) > 1
    strange = gaussian_filter1d(strange, _LASTS * fps, axis=0, mode="nearest")
    away = np.linalg.norm(shape[:, None] - shape[judged], axis=-1)
    near = np.exp(-0.5 * (away / _AROUND) ** 2)
    share = strange @ (near / near.sum(1, keepdims=True)).T.astype(np.float32)
    hidden = np.clip((share - _SHARE / 2) / _SHARE, 0, 1)
    return hidden if (hidden >= 1).any() else None


def masks(hidden: np.ndarray, points: np.ndarray, regions: list[Region]) -> np.ndarray:
    """The same as pictures of the crops `regions`: uint8 [T, SIDE, SIDE], 255 where something covers the face."""
    axis = (np.arange(SIDE) + 0.5) / SIDE
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 1, 2)
    drawn = np.zeros((len(hidden), SIDE, SIDE), np.uint8)
    for number in np.flatnonzero((hidden > 0).any(1) & np.isfinite(points).all((1, 2))):
        at = regions[number].from_picture(points[number, :468].astype(np.float64), 1.0)
        eyes = np.linalg.norm(at[MESH478.outer_eyes[0]] - at[MESH478.outer_eyes[1]])
        near = np.exp(-0.5 * (((grid - at) / (_AROUND * eyes)) ** 2).sum(-1)) + 1e-12
        share = near @ hidden[number, :468] / near.sum(1)
        drawn[number] = np.rint(255 * share).reshape(SIDE, SIDE)
    return drawn


def _still_points(shape: np.ndarray) -> np.ndarray:
    """Numbers of the points that look the same while a face speaks and winks."""
    lips = (point for lip in MESH478.lips for point in lip)
    moving = [*MESH478.mouth, *lips, *(point for eye in MESH478.eyes for point in eye)]
    skin = np.array(sorted(set(MESH478.surface) - set(moving)))
    away = np.linalg.norm(shape[skin][:, None] - shape[moving], axis=-1).min(1)
    return skin[away > _MOVING]


@dataclass(frozen=True)
class _Usual:
    """How P points look when nothing covers them. logs: [P, 3] of their colours; grain: [P, 1]; each with what is still theirs."""

    plane: np.ndarray
    logs: np.ndarray
    colour_limit: np.ndarray
    grain: np.ndarray
    grain_limit: np.ndarray

    @classmethod
    def of(cls, seen: np.ndarray, shape: np.ndarray) -> _Usual:
        """From their looks [T, P, 4] in frames of which most show them, and their places [P, 2] in the face."""
        plane = np.concatenate([shape - shape.mean(0), np.ones((len(shape), 1))], 1)
        logs, grain = _split(seen)
        usual = np.median(logs, 0)
        for _ in range(2):
            other = logs - usual
            other = other - _light(other, plane)
            usual = usual + np.median(other, 0)
        ordinary = np.median(grain, 0)
        limits = [
            np.maximum(limit, _DEVIATIONS * 1.48 * np.median(np.abs(values), 0))
            for values, limit in ((other * np.exp(usual), _COLOUR), (grain - ordinary, _GRAIN))
        ]
        return cls(plane, usual, limits[0], ordinary, limits[1])

    def strangeness(self, seen: np.ndarray) -> np.ndarray:
        """How far [T, P] looks [T, P, 4] are from the usual ones; beyond 1 they are something else's."""
        logs, grain = _split(seen)
        other = logs - self.logs
        colour = (other - _light(other, self.plane)) * np.exp(self.logs)
        found = np.abs(colour) / self.colour_limit, np.abs(grain - self.grain) / self.grain_limit
        largest: np.ndarray = np.concatenate(found, -1).max(-1)
        return largest


def _split(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the colours [T, P, 3], and the grain [T, P, 1]."""
    values = seen.astype(np.float64)
    return np.log(values[..., :3] + _DARK), values[..., 3:]


def _light(change: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """What light explains of a change [T, P, 3] in logarithms: a plane over the face for each frame and channel, whatever covers a part."""
    weights, drawn = np.ones_like(change), np.zeros_like(change)
    for _ in range(4):
        normal = np.einsum("tpc,pi,pj->tcij", weights, plane, plane) + 1e-3 * np.eye(3)
        right = np.einsum("tpc,pi,tpc->tci", weights, plane, change)
        drawn = np.einsum("tci,pi->tpc", np.linalg.solve(normal, right[..., None])[..., 0], plane)
        weights = 1 / (1 + ((change - drawn) / _LIGHT) ** 2)
    return drawn
