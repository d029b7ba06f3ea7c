"""A 3-D face whose coefficients have names: the head of the package, its 52 units, and how both are seen in landmarks.

Landmarks of a frame are what a camera sees of

    turned(rest + sum of units * what each unit moves)

rest: the person's own neutral face, in the coordinates of `HeadShape`. It needs no training: fitted to any landmarks whose order it knows (`UnitFace.fit`), its coefficients say which muscles
move ("mouthSmileLeft" .6 is AU12), and what a mouth says apart from what a brow shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from spfem_dist.generators.face import unit_fit
from spfem_dist.generators.face.head_shape import HeadShape

#: Deviation of landmarks from what the face explains that a fit reckons with, in eye distances: MediaPipe's own error on rendered heads.
NOISE = 0.03
#: The same of a rendered corpus's own landmarks: they are exact, but for the camera's aim.
EXACT = 0.005


@dataclass(frozen=True)
class Camera:
    """How a head is seen in T frames. rotation: [T, 3, 3]. scale: pixels for an eye distance [T]. centre: where the origin is seen [T, 2].
    nearness: one over the camera's distance in eye distances, of the clip, or of each frame [T, 1, 1]; 0 is far away."""

    rotation: Tensor
    scale: Tensor
    centre: Tensor
    nearness: Tensor

    def seen(self, points: Tensor) -> Tensor:
        """Points [T, L, 3] of the upright head in pixels of the frames [T, L, 2]."""
        turned = points @ self.rotation.transpose(1, 2)
        near = 1 / (1 - self.nearness * turned[..., 2:])  # [T, L, 1]
        return self.centre[:, None] + self.scale[:, None, None] * near * turned[..., :2]


@dataclass(frozen=True)
class UnitFit:
    """A clip in the face's terms. units: float32 [T, 52], 0 to 1. rest: float32 [L, 3], the person's neutral face. residual: [T, L, 2], what the
    fit leaves of the landmarks, in eye distances of this person (outer corners)."""

    units: Tensor
    rest: Tensor
    camera: Camera
    residual: Tensor


class UnitFace(HeadShape):
    """The head of the package, seen and fitted. `unit_face` gives the one for an order of landmarks."""

    def landmarks(self, units: Tensor, rest: Tensor, camera: Camera) -> Tensor:
        """Landmarks [T, L, 2], pixels, of a neutral face [L, 3] under units [T, 52]; differentiable in all of them."""
        return camera.seen(self.shape(units, rest))

    def moved(self, landmarks: Tensor, fit: UnitFit, units: Tensor) -> Tensor:
        """The clip's landmarks [T, L, 2] with other units [T, 52]; pose, person and what the face does not explain stay."""
        change = self.landmarks(units, fit.rest, fit.camera) - self.landmarks(fit.units, fit.rest, fit.camera)
        return landmarks + change

    @torch.no_grad()
    def fit(self, landmarks: np.ndarray | Tensor, rest: Tensor | None = None, noise: float = NOISE) -> UnitFit:
        """Person, pose and units of one clip's landmarks [T, L, 2] in pixels, finite, in the order of time; on their device.

        rest: [L, 3], the person's neutral face where it is known. noise: deviation of the landmarks, eye distances; `EXACT` suits exact ones.
        Raises ValueError for another number of points, no frame, landmarks that are not finite, or a noise that is not positive.
        """
        points = self.checked(landmarks)
        if not noise > 0:
            raise ValueError(f"noise is {noise}; it is a deviation in eye distances above 0, such as {NOISE}")
        face = self if self.mean.device == points.device else self.to(points.device)
        rest, usual, nearness = unit_fit.fit_person(face, points, rest, noise)
        units, pose = unit_fit.fit_frames(face, points, rest, usual, nearness, noise)
        camera = Camera(pose.rotation, pose.scale, pose.centre, nearness)
        left, right = (rest[corner] for corner in self.topology.outer_eyes)
        pixels = (camera.scale * (right - left).norm())[:, None, None]
        return UnitFit(units, rest, camera, (points - face.landmarks(units, rest, camera)) / pixels)

    def checked(self, landmarks: np.ndarray | Tensor) -> Tensor:
        """Landmarks as this face is fitted to them: float32 [T, L, 2]. Raises ValueError for another number of points, no frame, or
        landmarks that are not finite."""
        points = torch.as_tensor(landmarks, dtype=torch.float32)
        if points.ndim != 3 or points.shape[1:] != (self.topology.points, 2) or len(points) == 0:
            raise ValueError(
                f"landmarks are {list(points.shape)}; units are fitted to [T, {self.topology.points}, 2] in the order {self.topology.name}, T at least 1"
            )
        if not points.isfinite().all():
            raise ValueError("landmarks are not finite: leave out the frames in which no face was found")
        return points


@lru_cache(maxsize=8)
def unit_face(name: str) -> UnitFace:
    """The face for landmarks of the order `name`, made once. Raises ValueError for one that `topology` does not know."""
    return UnitFace.of(name)
