"""Action units of a face from its landmarks: what drives ICface, relative to the person at rest.

The published system takes intensities of 17 action units from OpenFace, whose models need a licence. Here a unit is a distance in
the head's own coordinates minus the same distance of the person at rest, both ways in one number: brows up are positive, drawn down
negative. What a unit moves is a regression on the training part, so that landmarks can be driven by units too. Where a 3-D face explains the
landmarks, `head_units.HeadUnits` stands in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.face.expressions import ExpressionModel, Fit
from spfem_dist.generators.face.model import FaceModel, Pose
from spfem_dist.generators.face.recordings import Recorded
from spfem_dist.generators.face.topology import Topology
from spfem_dist.saved import load_tensors, save_tensors

#: What is measured, with the units of the Facial Action Coding System that it goes with.
NAMES = (
    "brow_inner",  # up (AU1), down (AU4)
    "brow_middle",
    "brow_outer",  # up (AU2)
    "furrow",  # brows drawn together (AU4)
    "upper_lid",  # up (AU5), down (AU43, AU45)
    "lower_lid",  # up (AU7, AU6)
    "nose",  # wrinkled (AU9)
    "upper_lip",  # raised (AU10)
    "corners",  # up (AU12), down (AU15)
    "stretch",  # wide (AU20), narrow (AU18)
    "press",  # thin lips (AU23, AU24)
    "part",  # lips apart (AU25)
    "jaw",  # dropped (AU26)
)
#: Units that an edit leaves as the source's words have them; of the others it shifts the level and keeps the timing.
SPOKEN = ("part", "jaw")
#: Numbers of the pose beside them: turn and nod. Roll, place and size are seen in the picture that is edited.
POSE = 2
CONDITION = len(NAMES) + POSE
#: Share of the mean variance of a unit that is added to each in the regression of what units move.
_RIDGE = 1e-3
#: In a file, where files hold finite numbers alone: the mean unit of an emotion that nobody showed.
_NOBODY = -1e6
#: Quantile of a unit's size over the training part that counts as 1.
_FULL = 0.95


@dataclass(frozen=True)
class Measured:
    """A clip in units. values: float32 [T, U]. pose: float32 [T, 2], turn and nod. rest: [L, 2 or 3], the person's. seen: how the head lies.
    fit: where a face model was fitted, that."""

    values: np.ndarray
    pose: np.ndarray
    rest: np.ndarray
    seen: Pose
    fit: Fit | None = None

    @property
    def conditions(self) -> np.ndarray:
        """float32 [T, U + 2], what a network is told of each frame."""
        return np.concatenate([self.values, self.pose], 1)

    def frames(self, which: slice | np.ndarray) -> Measured:
        """Some frames of it: a slice, or which of them, bool [T]."""
        fit = self.fit and self.fit.frames(np.arange(len(self.values))[which])
        return Measured(self.values[which], self.pose[which], self.rest, self.seen.frames(which), fit)


class Units(Protocol):
    """What drives the generators: `LandmarkUnits` or `head_units.HeadUnits`. spoken: bool [U], units that an edit leaves as the source has them."""

    spoken: np.ndarray

    @property
    def model(self) -> ExpressionModel: ...

    def measured(self, landmarks: np.ndarray, rest: np.ndarray | None = None, neutral: bool = False) -> Measured: ...

    def bounded(self, values: np.ndarray) -> np.ndarray: ...

    def moved(self, landmarks: np.ndarray, measured: Measured, values: np.ndarray) -> np.ndarray: ...

    def level(self, emotion: Emotion) -> np.ndarray: ...

    def save(self, file: Path) -> None: ...


def directions(order: Topology) -> np.ndarray:
    """float64 [U, L, 2]: the sum of products with a shape is the unit; in eye distances."""
    made = {name: np.zeros((order.points, 2)) for name in NAMES}

    def add(name: str, points: Sequence[int], axis: int, sign: float) -> None:
        made[name][list(points), axis] += sign / len(points)

    brows = order.brows
    add("brow_inner", brows[4:6], 1, -1)
    add("brow_middle", (brows[2], brows[7]), 1, -1)
    add("brow_outer", (brows[0], brows[9]), 1, -1)
    add("furrow", brows[4:5], 0, 1)
    add("furrow", brows[5:6], 0, -1)
    lids = [order.opposite(outline) for outline in order.eyes]
    add("upper_lid", [p for upper, _ in lids for p in upper], 1, -1)
    add("lower_lid", [p for _, lower in lids for p in lower], 1, -1)
    add("nose", order.nose, 1, -1)
    add("upper_lip", order.lips[0], 1, -1)
    corners = order.mouth[0], order.mouth[len(order.mouth) // 2]
    add("corners", corners, 1, -1)
    add("stretch", corners[:1], 0, -1)
    add("stretch", corners[1:], 0, 1)
    for inner, outer, sign in ((order.upper, order.lips[0], -1), (order.lower, order.lips[1], 1)):
        add("press", inner, 1, sign)
        add("press", outer, 1, -sign)
    add("part", order.lower, 1, 1)
    add("part", order.upper, 1, -1)
    add("jaw", (order.chin,), 1, 1)
    return np.stack([made[name] for name in NAMES])


class LandmarkUnits:
    """The units of one face model.

    scale: [U], a unit of 1 in eye distances; pose_scale: [2]. basis: [U, L, 2], what a unit moves in the head's coordinates.
    means: [7, U], mean units of the training part by emotion, in the order of SEVEN; nan for an emotion that nobody showed.
    """

    spoken = np.isin(NAMES, SPOKEN)

    def __init__(
        self, model: FaceModel, scale: np.ndarray, pose_scale: np.ndarray, basis: np.ndarray, means: np.ndarray
    ):
        self.model, self.scale, self.pose_scale, self.basis, self.means = model, scale, pose_scale, basis, means
        self._directions = directions(model.topology) / scale[:, None, None]

    def measured(self, landmarks: np.ndarray, rest: np.ndarray | None = None, neutral: bool = False) -> Measured:
        """Units of a clip's landmarks [T, L, 2], pixels.

        rest: the person's, where it is known; else the most likely one, given that the clip is neutral or of any emotion.
        """
        shapes, pose = self.model.seen_from_the_front(landmarks.astype(np.float64))
        if rest is None:
            rest = self.model.likely_rest(shapes.mean(0), neutral)
        values = np.einsum("tld,uld->tu", shapes - rest, self._directions)
        turned = np.stack([pose.turn, pose.nod], 1) / self.pose_scale
        return Measured(values.astype(np.float32), turned.astype(np.float32), rest, pose)

    def bounded(self, values: np.ndarray) -> np.ndarray:
        """The nearest units [T, U] that a face can show: any."""
        return values

    def moved(self, landmarks: np.ndarray, measured: Measured, values: np.ndarray) -> np.ndarray:
        """The clip's landmarks [T, L, 2] with other units [T, U]; what units do not explain stays."""
        shift = np.einsum("tu,uld->tld", values - measured.values, self.basis)
        return landmarks + measured.seen.to_picture(shift)

    def level(self, emotion: Emotion) -> np.ndarray:
        """Mean units [U] of an emotion. ValueError for one that no training recording showed."""
        return level_of(self.means, emotion)

    def save(self, file: Path) -> None:
        """Write what is beside the face model as safetensors."""
        save_tensors({name: torch.from_numpy(filled(getattr(self, name))) for name in self._shapes()}, file)

    @classmethod
    def load(cls, file: Path, model: FaceModel) -> LandmarkUnits:
        """The units in `file`, of the face `model`. ValueError where the file is damaged or holds something else."""
        empty = cls(model, np.ones(len(NAMES)), np.ones(POSE), np.zeros(0), np.zeros(0))
        wanted = {name: torch.empty(shape, device="meta") for name, shape in empty._shapes().items()}
        tensors = load_tensors(file, wanted, "generator")
        return cls(model, **{name: emptied(value.numpy()) for name, value in tensors.items()})

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        count = len(NAMES)
        return {
            "scale": (count,),
            "pose_scale": (POSE,),
            "basis": (count, self.model.topology.points, 2),
            "means": (len(SEVEN), count),
        }


def learnt_units(model: FaceModel, recordings: Sequence[Recorded], rests: Mapping[str, np.ndarray]) -> LandmarkUnits:
    """The units of these recordings. rests: each speaker's shape at rest. ValueError without recordings."""
    if not recordings:
        raise ValueError(
            "action units are learnt from landmarks of at least one clip: prepare the shards with --faces mesh"
        )
    plain = LandmarkUnits(model, np.ones(len(NAMES)), np.ones(POSE), np.zeros(0), np.zeros(0))
    shifts, values, poses, means = [], [], [], {emotion: [] for emotion in SEVEN}  # type: ignore[var-annotated]
    for recorded in recordings:
        seen = recorded.landmarks[recorded.valid]
        rest = rests[recorded.speaker]
        found = plain.measured(seen, rest)
        shifts.append(model.seen_from_the_front(seen.astype(np.float64))[0] - rest)
        values.append(found.values)
        poses.append(found.pose)
        if recorded.emotion in means:
            means[recorded.emotion].append(found.values.mean(0))
    shift, every = np.concatenate(shifts), np.concatenate(values).astype(np.float64)
    scale = np.quantile(np.abs(every), _FULL, axis=0) + 1e-6
    pose_scale = pose_scale_of(poses)
    every = every / scale
    power = every.T @ every
    power += _RIDGE * np.trace(power) / len(power) * np.eye(len(power))
    basis = np.linalg.solve(power, every.T @ shift.reshape(len(shift), -1)).reshape(len(NAMES), -1, 2)
    nobody = np.full(len(NAMES), np.nan)
    level = np.stack([np.mean(means[e], 0) / scale if means[e] else nobody for e in SEVEN])
    return LandmarkUnits(model, scale, pose_scale, basis, level)


def level_of(means: np.ndarray, emotion: Emotion) -> np.ndarray:
    """The row of means [7, U] of an emotion. ValueError for one that no training recording showed."""
    found = means[SEVEN.index(emotion)]
    if np.isnan(found).any():
        known = [str(e) for e, row in zip(SEVEN, means, strict=True) if not np.isnan(row).any()]
        raise ValueError(
            f"emotion {emotion}: nobody in the training part showed it; this generator knows {', '.join(known)}"
        )
    return found


def filled(array: np.ndarray) -> np.ndarray:
    """The array as a file holds it, float32: without nan."""
    return np.nan_to_num(array, nan=_NOBODY).astype(np.float32)


def emptied(array: np.ndarray) -> np.ndarray:
    """The inverse of `filled`."""
    return np.where(array <= _NOBODY, np.nan, array)


def pose_scale_of(poses: Sequence[np.ndarray]) -> np.ndarray:
    """Turn and nod [2] that count as 1, of clips' poses [T, 2]."""
    return np.quantile(np.abs(np.concatenate(poses)), _FULL, axis=0) + 1e-6
