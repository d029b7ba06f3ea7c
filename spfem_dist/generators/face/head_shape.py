"""The head of the package in one order of landmarks: its neutral faces, what its 52 units move, and what to expect of these."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from spfem_dist.cropping import CROP_DROP, RIGID
from spfem_dist.generators.face.topology import MESH478, Topology, topology
from spfem_dist.head.asset import expected, head

#: How far, and how smoothly, a person's neutral face may differ from any of the head's identities: deviation, and reach, eye distances; number of
#: such changes along each axis.
_DEVIATION, _REACH, _SMOOTH = 0.03, 0.35, 40
#: Deviation of where eyeballs lie beneath the lids, eye distances: without it, eyes that stand far apart would be taken for eyes that look outwards.
_EYEBALL = 0.03
#: Deviation that is granted to every unit, and to its change between frames, beyond what the corpus's programme shows.
_LOOSE, _LOOSE_STEP = 0.05, 0.05


@dataclass(frozen=True)
class HeadShape:
    """Coordinates: x right, y down, z to the camera; unit: the distance of the mean head's outer eye corners. The origin is the middle of the
    crop of the mean head, at the depth of its nose: that is where cameras aim.

    names: of the 52 units. mean: [L, 3]. identity: [K, L, 3], displacements at one standard deviation. units: [52, L, 3], at weight 1.
    usual, between, within: the prior of a clip's mean units [52], its covariance, and that of frames around it [52, 52]. step: [52], the prior
    deviation of the change between two frames.
    """

    topology: Topology
    names: tuple[str, ...]
    mean: Tensor
    identity: Tensor
    units: Tensor
    usual: Tensor
    between: Tensor
    within: Tensor
    step: Tensor

    @classmethod
    def of(cls, name: str) -> Self:
        """For landmarks of the order `name`. Raises ValueError for one that `topology` does not know."""
        order, asset, prior = topology(name), head(), expected()

        def points(values: np.ndarray) -> np.ndarray:
            mesh = asset.mesh478(values.astype(np.float64))
            return asset.ibug68(mesh) if order.points == 68 else mesh[..., : order.points, :]

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values, np.float32))

        whole, every = asset.mesh478(asset.mean.astype(np.float64)), np.eye(len(asset.names))
        left, right = (whole[corner] for corner in MESH478.outer_eyes)
        scale = np.array([1, -1, 1]) / np.linalg.norm(right - left)
        eyes = [whole[list(corners)].mean(0) for corners in (RIGID[:2], RIGID[2:4])]
        origin = whole[list(RIGID)].mean(0) - (0, CROP_DROP * np.linalg.norm(eyes[1] - eyes[0]), 0)
        mean = (points(asset.mean) - origin) * scale
        return cls(
            topology=order,
            names=asset.names,
            mean=tensor(mean),
            identity=tensor(np.concatenate([points(asset.basis) * scale, _smooth_changes(mean), _iris_changes(order)])),
            units=tensor(points(asset.units) * scale),
            usual=tensor(prior.mean),
            between=tensor(prior.between + _LOOSE**2 * every),
            within=tensor(prior.within + _LOOSE**2 * every),
            step=tensor(np.hypot(prior.step, _LOOSE_STEP)),
        )

    def to(self, device: torch.device | str) -> Self:
        """The same on `device`."""
        every: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: x.to(device) for name, x in every.items() if isinstance(x, Tensor)})

    def shape(self, units: Tensor, rest: Tensor) -> Tensor:
        """Faces [T, L, 3] of a neutral one [L, 3], or of one for each frame [T, L, 3], under units [T, 52]; differentiable in both."""
        return rest + (units @ self.units.flatten(1).to(units)).unflatten(1, rest.shape[-2:])


def _smooth_changes(mean: np.ndarray) -> np.ndarray:
    """Displacements [3 M, L, 3] in which no real person's face differs much from the head's identities, and which none of these has: the
    principal parts of a Gaussian process over the face, along each axis."""
    apart = ((mean[:, None] - mean) ** 2).sum(-1)
    values, vectors = np.linalg.eigh(np.exp(-apart / (2 * _REACH**2)))
    kept = min(_SMOOTH, len(mean))
    parts = (vectors[:, -kept:] * np.sqrt(np.maximum(values[-kept:], 0))).T * _DEVIATION
    return np.concatenate([parts[:, :, None] * axis for axis in np.eye(3)])


def _iris_changes(order: Topology) -> np.ndarray:
    """Displacements [4, L, 3] of either iris to the right and down; none where the order has no irises."""
    changes = np.zeros((2 * len(order.irises), order.points, 3))
    for number, iris in enumerate(order.irises):
        for axis in range(2):
            changes[2 * number + axis, list(iris), axis] = _EYEBALL
    return changes
