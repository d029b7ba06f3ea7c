"""A face model for generators whose coefficients are the head's 52 units: it needs no training, and every coefficient has a name.

A coefficient is a unit's weight in steps of `STEP`, so that those that move most deviate by about 1, as the linear model's do (`face/model.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spfem_dist.generators.face import unit_fit
from spfem_dist.generators.face.expressions import Shift
from spfem_dist.generators.face.head_shape import HeadShape
from spfem_dist.generators.face.topology import Topology
from spfem_dist.generators.face.units import EXACT, NOISE, Camera, UnitFace, unit_face
from spfem_dist.saved import load_tensors, save_tensors

#: Weight of a unit that one coefficient stands for: about the deviation of the units that emotions use.
STEP = 0.25
#: Units that words move (`SPEECH`), and those of lids and gaze, which are nobody's emotion.
SPEECH = (
    "jawOpen",
    "jawLeft",
    "jawRight",
    "mouthClose",
    "mouthFunnel",
    "mouthPucker",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "tongueOut",
)
GAZE = tuple(
    f"eye{what}{side}" for what in ("Blink", "LookDown", "LookIn", "LookOut", "LookUp") for side in ("Left", "Right")
)
#: Units of the Facial Action Coding System (Ekman and Friesen 1978) by the head's, both sides.
ACTION_UNITS = {
    "browInnerUp": 1,
    "browOuterUp": 2,
    "browDown": 4,
    "eyeWide": 5,
    "cheekSquint": 6,
    "eyeSquint": 7,
    "noseSneer": 9,
    "mouthUpperUp": 10,
    "mouthSmile": 12,
    "mouthDimple": 14,
    "mouthFrown": 15,
    "mouthLowerDown": 16,
    "mouthShrugLower": 17,
    "mouthPucker": 18,
    "tongueOut": 19,
    "mouthStretch": 20,
    "mouthFunnel": 22,
    "mouthPress": 24,
    "jawOpen": 26,
    "jawForward": 29,
    "cheekPuff": 34,
    "eyeBlink": 45,
}
#: Root mean square of what a fit to exact landmarks leaves of landmarks, eye distances, below which they are exact: heads rendered at 64 pixels
#: leave .001.
_EXACT_LEAVES = 0.0025
#: Deviation of the mean of an expression's unit over a neutral clip.
_NEUTRAL = 0.05
#: Every n-th of the points that are no feature counts where only the movement of a known face is wanted.
_SPARSE = 4


@dataclass(frozen=True)
class UnitClip:
    """A clip in the model's terms: coefficients float32 [T, 52], rest float32 [L, 3], how its head is seen."""

    coefficients: np.ndarray
    rest: np.ndarray
    camera: Camera

    @property
    def seen(self) -> dict[str, np.ndarray]:
        """What `UnitModel.shifting` asks of each frame: the camera, and the person."""
        frames = len(self.coefficients)
        found = {name: getattr(self.camera, name).numpy() for name in ("rotation", "scale", "centre")}
        return found | {
            "nearness": np.full((frames, 1, 1), float(self.camera.nearness), np.float32),
            "rest": np.repeat(self.rest[None], frames, 0),
        }

    def frames(self, numbers: np.ndarray) -> UnitClip:
        """Some frames of it."""
        at, camera = torch.from_numpy(np.asarray(numbers)), self.camera
        seen = Camera(camera.rotation[at], camera.scale[at], camera.centre[at], camera.nearness)
        return UnitClip(self.coefficients[numbers], self.rest, seen)


class UnitModel:
    """The head of the package as the face behind a generator, in one order of landmarks.

    names: of the coefficients. speech: those that words move. mean: [L, 2] and depth: [L], of the mean head, eye distances; z to the camera.
    """

    def __init__(self, order: Topology):
        self.topology = order
        self.face = unit_face(order.name)
        self.names = self.face.names
        self.speech = tuple(self.names.index(name) for name in SPEECH)
        self.mean, self.depth = self.face.mean[:, :2].numpy(), self.face.mean[:, 2].numpy()
        self._few = _features(order)
        few = torch.from_numpy(self._few)
        parts = {name: getattr(self.face, name)[..., few, :] for name in ("mean", "identity", "units")}
        self._sparse = replace(self.face, **parts)

    def fit(self, landmarks: np.ndarray, rest: np.ndarray | None = None, neutral: bool = False) -> UnitClip:
        """Coefficients of one clip's landmarks [T, L, 2], pixels, in the order of time.

        rest: [L, 3], the person's neutral face where it is known; else the most likely one, given that the clip is neutral or of any
        emotion. Landmarks of a rendered corpus are exact and are taken so. Raises ValueError as `UnitFace.fit` does.
        """
        points = self.face.checked(landmarks)
        person = torch.from_numpy(rest).float() if rest is not None else None
        found = self._fitted(points, person, neutral, EXACT)
        seen = self.face.landmarks(
            torch.from_numpy(found.coefficients) * STEP, torch.from_numpy(found.rest), found.camera
        )
        error = ((seen - points)[:, self._few] / found.camera.scale[:, None, None]).square().sum(-1).mean().sqrt()
        return found if error < _EXACT_LEAVES else self._fitted(points, person, neutral, NOISE)

    @torch.no_grad()
    def _fitted(self, points: Tensor, person: Tensor | None, neutral: bool, noise: float) -> UnitClip:
        few = torch.from_numpy(self._few)
        whole, sparse = (_calm(face) if neutral else face for face in (self.face, self._sparse))
        if person is None:
            person, usual, nearness = unit_fit.fit_person(whole, points, None, noise)
        else:
            _, usual, nearness = unit_fit.fit_person(sparse, points[:, few], person[few], noise)
        units, pose = unit_fit.fit_frames(sparse, points[:, few], person[few], usual, nearness, noise)
        camera = Camera(pose.rotation, pose.scale, pose.centre, nearness)
        return UnitClip(units.numpy() / np.float32(STEP), person.numpy(), camera)

    def rest_of(self, clips: Sequence[np.ndarray], neutral: bool) -> np.ndarray:
        """The neutral face [L, 3] of a person seen in these clips [T, L, 2]."""
        return self.fit(np.concatenate(clips), None, neutral).rest

    def bounded(self, coefficients: Tensor) -> Tensor:
        """The nearest coefficients that a face can show: units end at 0 and 1."""
        return coefficients.clamp(0, 1 / STEP)

    def moved(self, landmarks: np.ndarray, fit: UnitClip, coefficients: np.ndarray) -> np.ndarray:
        """The clip's landmarks [T, L, 2] with other coefficients; pose, person and what the face does not explain stay."""
        before, after = torch.from_numpy(np.stack([fit.coefficients, coefficients]).astype(np.float32))
        seen = {name: torch.from_numpy(array) for name, array in fit.seen.items()}
        return landmarks + self.shifting("cpu")(before, after, seen).numpy()

    def shifting(self, device: torch.device | str) -> Shift:
        """How landmarks of frames move with their coefficients: differentiable, on `device`."""
        face = self.face.to(device)

        def shift(before: Tensor, after: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
            camera = Camera(seen["rotation"], seen["scale"], seen["centre"], seen["nearness"])
            was, shall = (face.landmarks(units * STEP, seen["rest"], camera) for units in (before, after))
            return shall - was

        return shift

    def save(self, file: Path) -> None:
        """Write which head the coefficients are of, as safetensors."""
        save_tensors({"mean": self.face.mean, "units": self.face.units}, file)

    @classmethod
    def load(cls, file: Path, order: Topology) -> UnitModel:
        """The model in `file`. Raises ValueError where the file is damaged, or of another head than the package's."""
        model = cls(order)
        own = {"mean": model.face.mean, "units": model.face.units}
        found = load_tensors(file, {name: tensor.to("meta") for name, tensor in own.items()}, "generator")
        if not all(torch.allclose(found[name].float(), tensor, atol=1e-4) for name, tensor in own.items()):
            raise ValueError(f"{file} was made with another head than this version's: train the generator again")
        return model


def refuse_drawn(landmarks: str, shards: str, flag: str, instead: str) -> None:
    """Raise ValueError for drawn faces, which the head does not explain. landmarks: their order, as the shards' index says. flag: what asked for
    the head. instead: what it may be."""
    if landmarks == "synthetic":
        raise ValueError(
            f"{flag} wants the 3-D head, and {shards} holds drawn faces (landmarks synthetic), which it does not explain: of their points it leaves "
            f"ten times what it leaves of rendered heads, and it takes lowered brows for a wrinkled nose. Leave {flag} {instead}, or give shards of "
            "rendered heads (spfem prepare heads) or of recordings"
        )


def in_words(change: np.ndarray, names: Sequence[str], most: int = 5) -> str:
    """What coefficients [52] that change by so much do, the largest first, sides together: `AU12 mouthSmile +.60, AU6 cheekSquint +.31`."""
    sides: dict[str, list[float]] = {}
    for name, value in zip(names, change * STEP, strict=True):
        sides.setdefault(name.removesuffix("Left").removesuffix("Right"), []).append(float(value))
    means = sorted(((float(np.mean(values)), name) for name, values in sides.items()), key=lambda pair: -abs(pair[0]))
    shown = [(value, name) for value, name in means[:most] if abs(value) >= 0.005]
    code = lambda name: f"AU{ACTION_UNITS[name]} " if name in ACTION_UNITS else ""  # noqa: E731
    return ", ".join(f"{code(name)}{name} {value:+.2f}".replace("0.", ".") for value, name in shown)


def _features(order: Topology) -> np.ndarray:
    """The points that say what moves: all features, and some of the skin between them."""
    named = {*order.rigid, *order.brows, *order.nose, order.chin, *order.outer_eyes, *order.upper, *order.lower}
    named |= {*order.mouth, *(p for part in (*order.lips, *order.eyes, *order.irises) for p in part)}
    if order.points == 68:
        return np.arange(68)
    return np.array(sorted(named | set(range(0, order.points, _SPARSE))))


def _calm(face: UnitFace | HeadShape) -> Any:
    """The face of somebody who shows no emotion: of the prior over a clip's mean units only what words and eyes do is left."""
    kept = torch.tensor([name in SPEECH or name in GAZE for name in face.names], device=face.mean.device)
    both = kept[:, None] & kept
    calm = torch.eye(len(kept), device=kept.device) * _NEUTRAL**2
    return replace(
        face,
        usual=torch.where(kept, face.usual, 0.0),
        between=torch.where(both, face.between, calm),
    )
