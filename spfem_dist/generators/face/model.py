"""A linear model of the face in landmarks: identity, jaw, 50 expression coefficients, head pose; fitted by least squares.

A clip's landmarks are, in the head's own coordinates (unit: the distance of the outer eye corners; x right, y down),

    rest + jaw * opening + expression @ coefficients + turn * (depth, 0) + nod * (0, depth)

seen through a similarity (scale, roll, shift) that the still points of the head give. The rest shape is the speaker's.
It stands where others have DECA on FLAME, whose files need a licence; `Motion` and the maps ask only for landmarks, so another
model can take its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from spfem_dist.generators.face.expressions import Shift
from spfem_dist.generators.face.topology import Topology, topology
from spfem_dist.saved import load_tensors, save_tensors

#: Expression coefficients of one frame, and with the jaw's opening before them.
EXPRESSION, COEFFICIENTS = 50, 51
#: Column of the jaw's opening; the expression coefficients follow.
JAW = 0
#: Directions in which rest shapes and mean expressions vary that a model keeps: the mesh's whole covariance would be larger than all else.
_DIRECTIONS = 64
#: Variance of a rest shape that no training speaker showed, in eye distances squared.
_UNSEEN = 1e-5
#: Points of all frames from which a model is learnt at once: 16 bytes each, in about eight arrays.
_MOST_POINTS = 16_000_000


@dataclass(frozen=True)
class Pose:
    """How the head is seen, for each frame: similarity factor (complex, scale and roll) [T] and centre [T, 2], pixels; turn and nod [T]."""

    factor: np.ndarray
    centre: np.ndarray
    turn: np.ndarray
    nod: np.ndarray

    def frames(self, which: slice | np.ndarray) -> Pose:
        """That of some frames."""
        return Pose(*(getattr(self, field.name)[which] for field in fields(self)))

    def to_picture(self, shift: np.ndarray) -> np.ndarray:
        """Shifts in the head's coordinates [T, L, 2] as shifts in pixels."""
        turned = (shift[..., 0] + 1j * shift[..., 1]) * self.factor[:, None]
        return np.stack([turned.real, turned.imag], -1).astype(np.float32)


@dataclass(frozen=True)
class ClipFit:
    """A clip in the model's terms: coefficients float32 [T, 51] (jaw first), rest [L, 2], pose."""

    coefficients: np.ndarray
    rest: np.ndarray
    pose: Pose

    @property
    def seen(self) -> dict[str, np.ndarray]:
        """What `FaceModel.shifting` asks of each frame: cosine and sine of the roll times scale."""
        factor = self.pose.factor
        return {"factor": np.stack([factor.real, factor.imag], -1).astype(np.float32)}

    def frames(self, numbers: np.ndarray) -> ClipFit:
        """Some frames of it."""
        return ClipFit(self.coefficients[numbers], self.rest, self.pose.frames(numbers))


@dataclass
class FaceModel:
    """The model. mean, basis: see `learn_face_model`.

    mean: [L, 2], the average speaker at rest. depth: [L], towards the camera. basis: [51, L, 2], what one unit of each coefficient
    moves. identity_spread, expression_spread: [64, 2 L], S of the covariance S^T S of rest shapes over speakers, and of a clip's mean
    expression.
    """

    topology: Topology
    mean: np.ndarray
    depth: np.ndarray
    basis: np.ndarray
    identity_spread: np.ndarray
    expression_spread: np.ndarray

    #: Columns of the coefficients that words move.
    speech = (JAW,)

    @property
    def openings(self) -> float:
        """Mouth opening of one unit of the jaw coefficient, in eye distances."""
        return float(_opening(self.basis[0], self.topology))

    def fit(
        self, landmarks: np.ndarray, rest: np.ndarray | None = None, neutral: bool = False, smoothing: float = 0.0
    ) -> ClipFit:
        """Coefficients of one clip's landmarks [T, L, 2], pixels.

        rest: the speaker's rest shape where it is known; else the most likely one, given that the clip is neutral or of any
        emotion. smoothing: sigma over time of the landmarks, frames.
        """
        if landmarks.shape[1:] != (self.topology.points, 2):
            raise ValueError(
                f"landmarks are {landmarks.shape}; this model wants [T, {self.topology.points}, 2] in the order {self.topology.name}"
            )
        points = landmarks.astype(np.float64)
        if smoothing > 0:
            points = gaussian_filter1d(points, smoothing, axis=0, mode="nearest")
        shapes, pose = self.seen_from_the_front(points)
        if rest is None:
            rest = self.likely_rest(shapes.mean(0), neutral)
        return ClipFit(self.coefficients(shapes - rest), rest.astype(np.float32), pose)

    def coefficients(self, shift: np.ndarray) -> np.ndarray:
        """Coefficients [T, 51] of shifts from rest [T, L, 2]: the jaw's from the lips, the others by projection of what is left."""
        jaw = _opening(shift, self.topology) / self.openings
        left = shift - jaw[:, None, None] * self.basis[0]
        modes = self.basis[1:].reshape(EXPRESSION, -1)
        power = (modes**2).sum(1)
        found = left.reshape(len(left), -1) @ modes.T / np.where(power > 0, power, 1)
        return np.concatenate([jaw[:, None], found], 1).astype(np.float32)

    def shift(self, coefficients: np.ndarray) -> np.ndarray:
        """What coefficients [T, 51] move from rest: [T, L, 2]."""
        return np.einsum("tc,cld->tld", coefficients, self.basis)

    def moved(self, landmarks: np.ndarray, fit: ClipFit, coefficients: np.ndarray) -> np.ndarray:
        """The clip's landmarks [T, L, 2] with other coefficients; pose, identity and what the model does not explain stay."""
        return landmarks + fit.pose.to_picture(self.shift(coefficients - fit.coefficients))

    def bounded(self, coefficients: Tensor) -> Tensor:
        """The nearest coefficients that a face can show: any."""
        return coefficients

    def shifting(self, device: torch.device | str) -> Shift:
        """How landmarks of frames move with their coefficients: differentiable, on `device`."""
        basis = torch.from_numpy(self.basis).float().to(device)

        def shift(before: Tensor, after: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
            x, y = torch.einsum("nc,cld->nld", after - before, basis.to(before.dtype)).unbind(-1)
            cos, sin = seen["factor"][..., None].unbind(1)
            return torch.stack([x * cos - y * sin, x * sin + y * cos], -1)

        return shift

    def rest_of(self, clips: Sequence[np.ndarray], neutral: bool) -> np.ndarray:
        """The rest shape [L, 2] of a person seen in these clips [T, L, 2]: their mean, neutral or not."""
        return np.concatenate([self.seen_from_the_front(clip.astype(np.float64))[0] for clip in clips]).mean(0)

    def likely_rest(self, shape: np.ndarray, neutral: bool = False) -> np.ndarray:
        """The most likely rest shape [L, 2] of a speaker whose clip has this mean shape: the mean of a Gaussian posterior."""
        seen = (shape - self.mean).reshape(-1)
        noise = _UNSEEN * np.eye(len(seen))
        of_identity = self.identity_spread.T @ self.identity_spread + noise
        other = noise if neutral else self.expression_spread.T @ self.expression_spread + noise
        return self.mean + (of_identity @ np.linalg.solve(of_identity + other, seen)).reshape(-1, 2)

    def seen_from_the_front(self, points: np.ndarray) -> tuple[np.ndarray, Pose]:
        """Landmarks [T, L, 2] in the head's coordinates, turned to the front, and the pose that was taken out."""
        still = list(self.topology.rigid)
        factor, centre = similarity(points[:, still], self.mean[still])
        shapes = _to_head(points, factor, centre)
        # The still points are not in one plane: what a turn shifts is found on them and taken from all.
        left, depth = shapes[:, still] - self.mean[still], self.depth[still] - self.depth[still].mean()
        turn, nod = (left[..., axis] @ depth / (depth @ depth + 1e-9) for axis in (0, 1))
        shapes = shapes - np.stack([turn[:, None] * self.depth, nod[:, None] * self.depth], -1)
        return shapes, Pose(factor, centre, turn, nod)

    def save(self, file: Path) -> None:
        """Write the model as safetensors."""
        arrays = {name: getattr(self, name).astype(np.float32) for name in _shapes(self.topology)}
        save_tensors({name: torch.from_numpy(array) for name, array in arrays.items()}, file)

    @classmethod
    def load(cls, file: Path, name: str) -> FaceModel:
        """The model in `file`, of the landmark order `name`. Raises ValueError where the file is damaged or holds something else."""
        order = topology(name)
        wanted = {key: torch.empty(shape, device="meta") for key, shape in _shapes(order).items()}
        return cls(order, **{key: value.numpy() for key, value in load_tensors(file, wanted, "generator").items()})


def _shapes(order: Topology) -> dict[str, tuple[int, ...]]:
    """What a saved model holds."""
    points = order.points
    return {
        "mean": (points, 2),
        "depth": (points,),
        "basis": (COEFFICIENTS, points, 2),
        "identity_spread": (_DIRECTIONS, 2 * points),
        "expression_spread": (_DIRECTIONS, 2 * points),
    }


def similarity(points: np.ndarray, template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors (complex) [T] and centres [T, 2] of the similarities that take `template` [P, 2] nearest to points [T, P, 2]."""
    centre = points.mean(1)
    z = (points - centre[:, None]) @ (1, 1j)
    w = (template - template.mean(0)) @ (1, 1j)
    factor = (z @ w.conj()) / (w.conj() @ w)
    at = centre @ (1, 1j) - factor * (template.mean(0) @ (1, 1j))
    return factor, np.stack([at.real, at.imag], -1)


def _to_head(points: np.ndarray, factor: np.ndarray, centre: np.ndarray) -> np.ndarray:
    z = ((points - centre[:, None]) @ (1, 1j)) / factor[:, None]
    return np.stack([z.real, z.imag], -1)


def _opening(shapes: np.ndarray, order: Topology) -> np.ndarray:
    """Height of the gap between the inner lips [...], of shapes or shifts [..., L, 2]."""
    return (shapes[..., list(order.lower), 1] - shapes[..., list(order.upper), 1]).mean(-1)


@dataclass(frozen=True)
class TrainingClip:
    """What the model learns from. landmarks: [T, L, 2], pixels."""

    speaker: str
    neutral: bool
    landmarks: np.ndarray


def learn_face_model(clips: Iterable[TrainingClip], order: Topology) -> tuple[FaceModel, dict[str, np.ndarray]]:
    """The model of these clips, and the rest shape [L, 2] of each speaker.

    Rest is a speaker's mean over neutral clips (over all of them where there is none). What moves away from rest is the jaw (the
    regression on the mouth's opening) and the principal components of what the jaw leaves. Of very many frames every n-th counts.
    Raises ValueError without clips.
    """
    clips = list(clips)
    if not clips:
        raise ValueError("a face model needs landmarks of at least one clip: prepare the shards with --faces mesh")
    step = math.ceil(order.points * sum(len(clip.landmarks) for clip in clips) / _MOST_POINTS)
    clips = [replace(clip, landmarks=clip.landmarks[::step]) for clip in clips]
    everything = np.concatenate([clip.landmarks for clip in clips]).astype(np.float64)
    mean = _procrustes_mean(everything, order)
    depth = _learnt_depth([clip.landmarks.astype(np.float64) for clip in clips], mean, order)
    model = FaceModel(order, mean, depth, np.zeros((COEFFICIENTS, order.points, 2)), np.zeros(0), np.zeros(0))
    shapes = [model.seen_from_the_front(clip.landmarks.astype(np.float64))[0] for clip in clips]
    neutral_shapes: dict[str, np.ndarray] = {}
    for speaker in sorted({clip.speaker for clip in clips}):
        own = [(clip.neutral, shape) for clip, shape in zip(clips, shapes, strict=True) if clip.speaker == speaker]
        neutral_shapes[speaker] = np.concatenate([s for neutral, s in own if neutral] or [s for _, s in own]).mean(0)
    model.mean = np.mean(list(neutral_shapes.values()), 0)
    shifts = [shape - neutral_shapes[clip.speaker] for clip, shape in zip(clips, shapes, strict=True)]
    moved = np.concatenate(shifts)
    opening = _opening(moved, order)
    spread = opening.std() + 1e-9
    model.basis[0] = np.einsum("t,tld->ld", opening - opening.mean(), moved) / (len(opening) * spread)
    model.basis[0] *= spread / (
        _opening(model.basis[0], order) + 1e-9
    )  # one unit opens the mouth by one deviation exactly
    left = moved - (opening / spread)[:, None, None] * model.basis[0]
    flat = left.reshape(len(left), -1)
    _, values, modes = (
        np.linalg.svd(flat - flat.mean(0) if len(flat) < 4 else flat, full_matrices=False)
        if len(flat) < 5000
        else _principal(flat)
    )
    # One unit for all: a mode that moves the face ten times less has coefficients ten times smaller, and its noise weighs as little.
    unit = values[0] / np.sqrt(len(flat))
    for number in range(min(EXPRESSION, len(values))):
        # The sign is the solver's choice: the largest entry is made positive, so that every machine learns the same model.
        mode = modes[number] * np.sign(modes[number][np.abs(modes[number]).argmax()])
        model.basis[1 + number] = (mode * unit).reshape(-1, 2)
    rest = np.stack([r - model.mean for r in neutral_shapes.values()]).reshape(len(neutral_shapes), -1)
    expressions = np.stack([s.mean(0) for s in shifts]).reshape(len(shifts), -1)
    model.identity_spread, model.expression_spread = _spread(rest), _spread(expressions)
    return model, neutral_shapes


def _spread(shapes: np.ndarray) -> np.ndarray:
    """S [64, D] with S^T S the covariance of shapes [N, D] about 0, in its strongest directions."""
    _, values, vectors = np.linalg.svd(shapes / np.sqrt(len(shapes)), full_matrices=False)
    found = (values[:, None] * vectors)[:_DIRECTIONS]
    return np.pad(found, ((0, _DIRECTIONS - len(found)), (0, 0)))


def _principal(flat: np.ndarray) -> tuple[None, np.ndarray, np.ndarray]:
    """Singular values and right vectors of a tall matrix, by its Gram matrix."""
    values, vectors = np.linalg.eigh(flat.T @ flat)
    return None, np.sqrt(np.maximum(values[::-1], 0)), vectors[:, ::-1].T


def _procrustes_mean(points: np.ndarray, order: Topology) -> np.ndarray:
    """The mean shape [L, 2], upright, in units of the outer eye corners' distance, centred between them."""
    still = list(order.rigid)
    mean = points.mean(0)
    for _ in range(3):
        left, right = (mean[c] for c in order.outer_eyes)
        axis = (right - left) @ (1, 1j)
        mean = _to_head(mean[None], np.array([axis]), ((left + right) / 2)[None])[0]
        factor, centre = similarity(points[:, still], mean[still])
        mean = _to_head(points, factor, centre).mean(0)
    return mean


def _learnt_depth(clips: list[np.ndarray], mean: np.ndarray, order: Topology) -> np.ndarray:
    """Depth [L] of each point, from how the points move within clips when heads turn and nod.

    Begins with an ellipsoid as wide and high as the face. Turn and nod are found on the still points given the depth, the depth of
    every point by regression given turn and nod, in turns.
    """
    low, high = mean.min(0), mean.max(0)
    inside = np.clip(1 - (((mean - (low + high) / 2) / ((high - low) / 2 * 1.15)) ** 2).sum(1), 0.02, 1)
    depth = 0.4 * (high - low)[0] * np.sqrt(inside)
    still = list(order.rigid)
    moves = []
    for points in clips:
        shapes = _to_head(points, *similarity(points[:, still], mean[still]))
        moves.append(shapes - shapes.mean(0))
    moved = np.concatenate(moves)
    size = np.std(depth[still])
    for _ in range(20):
        level = depth[still] - depth[still].mean()
        turn, nod = (moved[:, still, axis] @ level / (level @ level + 1e-9) for axis in (0, 1))
        depth = (turn @ moved[..., 0] + nod @ moved[..., 1]) / (turn @ turn + nod @ nod + 1e-9)
        depth = depth * size / (np.std(depth[still]) + 1e-9)
    return depth
