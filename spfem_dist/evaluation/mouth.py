"""How the mouth of an edit moves against the true target's: error in its box, movement of its corners, what it is seen to say.

Pure: frames and landmarks in, numbers out. A mouth's shape is in the head's coordinates: upright, from the middle between the outer
eye corners, in units of their distance. Both faces of a comparison are placed by the same known eyes, so that only the mouth differs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from spfem_dist.evaluation.judges.check import correlation
from spfem_dist.prepare.landmarks import mouth_region

#: Corners of the mouth, points of the inner lips, all points of the lips, and the outer corners of the eyes, by topology.
CORNERS: dict[str, tuple[int, ...]] = {"ibug68": (48, 54), "mesh468": (61, 291)}
INNER_LIPS: dict[str, tuple[int, ...]] = {
    "ibug68": tuple(range(60, 68)),
    "mesh468": (78, 82, 13, 312, 308, 317, 14, 87),
}
LIPS: dict[str, tuple[int, ...]] = {
    "ibug68": tuple(range(48, 68)),
    "mesh468": (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, *INNER_LIPS["mesh468"]),
}
OUTER_EYES: dict[str, tuple[int, ...]] = {"ibug68": (36, 45), "mesh468": (33, 263)}
for _points in (CORNERS, INNER_LIPS, LIPS, OUTER_EYES):
    _points["mesh478"] = _points["mesh468"]
#: Ridge penalty of the viseme probe, as a share of its inputs' mean variance.
PENALTY = 1e-3


def mouth_error(frames: np.ndarray, target: np.ndarray, landmarks: np.ndarray, topology: str) -> float:
    """Mean absolute error in grey levels of frames against the true target, uint8 [T, S, S, 3], in the box of the target's mouth.

    landmarks: of the target, [T, L, 2] pixels. Not a number where no box lies in the picture.
    """
    side = frames.shape[1]
    box = mouth_region(landmarks, topology)
    low, high = np.floor(box[:, :2]).astype(int), np.ceil(box[:, 2:]).astype(int)
    at = np.arange(side)
    inside = (at >= low[..., None]) & (at < high[..., None])  # [T, 2, S]: columns, rows
    mask = inside[:, 1, :, None] & inside[:, 0, None, :]
    if not mask.any():
        return float("nan")
    return float(np.abs(frames.astype(np.int16) - target).mean(-1)[mask].mean())


def placed_lips(landmarks: np.ndarray, known: np.ndarray, topology: str) -> np.ndarray:
    """The lips' points [T, P, 2] of landmarks [T, L, 2] in the coordinates of the head whose outer eyes are `known` [T, L, 2]."""
    left, right = (known[:, n].astype(np.float64) @ (1, 1j) for n in OUTER_EYES[topology])
    lips = landmarks[:, list(LIPS[topology])].astype(np.float64) @ (1, 1j)
    seen = (lips - ((left + right) / 2)[:, None]) / (right - left)[:, None]
    return np.stack([seen.real, seen.imag], -1)


def corner_movement(landmarks: np.ndarray, known: np.ndarray, topology: str) -> float:
    """Correlation over the clip of the distance between the mouth's corners in `landmarks` with that in `known`, both [T, L, 2]."""
    a, b = CORNERS[topology]
    widths = [np.linalg.norm(points[:, b] - points[:, a], axis=-1) for points in (landmarks, known)]
    left, right = (known[:, n] for n in OUTER_EYES[topology])
    scale = np.linalg.norm(right - left, axis=-1)
    found = correlation(widths[0] / scale, widths[1] / scale)
    # A mouth that stands still where the true one moves follows none of it.
    return 0.0 if np.isnan(found) and np.std(widths[1] / scale) > 1e-6 else found


@dataclass(frozen=True)
class VisemeProbe:
    """Reads what is spoken off the lips: a linear map from their movement to mouth opening, width and rounding.

    weights: [2 P, 3], learnt by ridge regression on recordings of training speakers. It sees deviations from a clip's mean alone, so that an
    expression that is held does not count as speech.
    """

    topology: str
    weights: np.ndarray

    @classmethod
    def fit(
        cls, clips: Iterable[tuple[np.ndarray, np.ndarray]], topology: str, penalty: float = PENALTY
    ) -> VisemeProbe:
        """clips: landmarks [T, L, 2] and spoken visemes [T, >= 3] of each. Raises ValueError where there is none."""
        pairs = [
            (_movement(seen, seen, topology), said[:, :3] - said[:, :3].mean(0)) for seen, said in clips if len(seen)
        ]
        if not pairs:
            raise ValueError("the viseme probe needs a training recording with landmarks: the split has none")
        moved, spoken = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        gram = moved.T @ moved
        ridge = penalty * np.trace(gram) / len(gram) * np.eye(len(gram))
        return cls(topology, np.linalg.solve(gram + ridge, moved.T @ spoken))

    def r2(self, landmarks: np.ndarray, known: np.ndarray, visemes: np.ndarray) -> float:
        """Share of the spoken visemes' variance over the clip that the lips show, mean of the three; below 0 they mislead.

        landmarks, known: [T, L, 2], see `placed_lips`. visemes: [T, >= 3]. A viseme that stands still in the clip does not count.
        """
        read = _movement(landmarks, known, self.topology) @ self.weights
        said = visemes[:, :3] - visemes[:, :3].mean(0)
        spread = np.square(said).sum(0)
        moves = spread > 1e-6 * len(said)
        if not moves.any():
            return float("nan")
        return float((1 - np.square(read - said).sum(0)[moves] / spread[moves]).mean())


def _movement(landmarks: np.ndarray, known: np.ndarray, topology: str) -> np.ndarray:
    lips = placed_lips(landmarks, known, topology).reshape(len(landmarks), -1)
    return lips - lips.mean(0)
