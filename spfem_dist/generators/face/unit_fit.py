"""How a `UnitFace` is fitted to a clip's landmarks: the person once, then pose and units of every frame.

Both are Gauss-Newton on a Gaussian posterior: landmarks err by a given deviation (beyond three of it they count less, Huber 1964), a clip's mean
units and the frames around it have the covariances that the corpus's acting has, and units stay within 0..1 (Bertsekas's projected
Newton, SIAM J. Control and Optimization 20, 1982). For the person, the frames' own unknowns are eliminated (Schur complement),
so that a smile which lasts for the whole clip is weighed against a mouth of that shape, and not taken for one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spfem_dist.generators.face.head_shape import HeadShape

#: Frames of a clip, evenly spread, from which its person is known.
_FRAMES = 32
#: Steps for the person and for frames; steps of one quadratic model towards its bounded minimum.
_PERSON_STEPS, _FRAME_STEPS, _BOUNDED_STEPS = 6, 4, 3
#: Residuals beyond so many deviations count by their size and no longer by its square.
_HUBER = 3.0
#: What is expected of one over the camera's distance (eye distances), its deviation, and the nearest camera.
_NEARNESS, _NEARNESS_DEVIATION, _NEAREST = 0.09, 0.04, 0.2
#: Deviation of single points of a neutral face from all that is smooth, eye distances.
_LONE = 0.01
#: Frames whose equations are set up at once: 100 MB.
_CHUNK = 256
#: Unknowns of a frame's pose: rotation 3, logarithm of the scale, centre 2.
_POSE = 6


@dataclass(frozen=True)
class Pose:
    """Rotation [T, 3, 3], scale [T], centre [T, 2], as `units.Camera` has them."""

    rotation: Tensor
    scale: Tensor
    centre: Tensor

    def stepped(self, step: Tensor) -> Pose:
        """The pose after a step [T, 6]; that of the centre in scales."""
        rotation = torch.linalg.matrix_exp(_cross(step[:, :3])) @ self.rotation
        return Pose(rotation, self.scale * step[:, 3].exp(), self.centre + self.scale[:, None] * step[:, 4:])

    def part(self, rows: slice) -> Pose:
        """Some frames."""
        return Pose(self.rotation[rows], self.scale[rows], self.centre[rows])


def fit_person(face: HeadShape, points: Tensor, rest: Tensor | None, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """The neutral face [L, 3] (`rest` where it is given), the clip's mean units [52] and the camera's nearness, of landmarks [T, L, 2]."""
    chosen = torch.linspace(0, len(points) - 1, min(len(points), _FRAMES), device=points.device).round().long()
    points = points[chosen]
    modes = face.identity if rest is None else face.identity[:0]
    base, count, units_count = face.mean if rest is None else rest, len(modes), len(face.units)
    within, between = (torch.linalg.inv(matrix.double()) for matrix in (face.within, face.between))
    # Unknowns of the clip: identity, mean units, nearness.
    usual_at, shape_at = slice(count, count + units_count), [*range(count), count + units_count]
    known = torch.zeros(count + units_count + 1, dtype=torch.float64, device=points.device)
    known[usual_at], known[-1] = face.usual.double(), _NEARNESS
    prior_mean = known.clone()
    prior = torch.block_diag(torch.eye(count).to(between), between, torch.eye(1).to(between) / _NEARNESS_DEVIATION**2)
    units = face.usual.clamp(0, 1).expand(len(points), -1).clone()
    pose = _first_pose(base, points)
    for _ in range(_PERSON_STEPS):
        neutral = base + torch.einsum("k,kld->ld", known[:count].float(), modes)
        residual, by_pose, by_place, by_nearness = _linearised(
            points, face.shape(units, neutral), pose, known[-1].float()
        )
        root = _weights(residual, noise).sqrt()[..., None, None]
        by_units = torch.einsum("tlad,uld->tlau", by_place, face.units)
        by_shape = torch.einsum("tlad,kld->tlak", by_place, modes)
        own = (torch.cat([by_pose, by_units], -1) * root).flatten(1, 2)
        common = (torch.cat([by_shape, by_nearness], -1) * root).flatten(1, 2)
        left = (residual[..., None] * root).flatten(1, 2)
        hessian, slope = _own_equations(own, left)
        usual = known[usual_at]
        hessian[:, _POSE:, _POSE:] += within
        slope[:, _POSE:] += (units - usual).double() @ within
        mixed = hessian.new_zeros(len(points), hessian.shape[1], len(known))
        mixed[..., shape_at] = (own.transpose(1, 2) @ common).double()
        mixed[:, _POSE:, usual_at] = -within
        shared, shared_slope = prior.clone(), prior @ (known - prior_mean)
        at = torch.tensor(shape_at, device=points.device)
        flat = common.flatten(0, 1)
        shared[at[:, None], at] += (flat.T @ flat).double()
        shared[usual_at, usual_at] += len(points) * within
        shared_slope[at] -= (flat.T @ left.flatten(0, 1)).double()[:, 0]
        shared_slope[usual_at] -= ((units - usual).double() @ within).sum(0)
        # Eliminate what belongs to single frames; units that a bound holds do not move.
        free = _free(units, slope[:, _POSE:])
        mixed, slope = mixed * free[..., None], slope * free
        solved = _solved(_held(hessian, free), torch.cat([mixed, slope[..., None]], -1))
        shared = shared - torch.einsum("txg,txh->gh", mixed, solved[..., :-1])
        shared_slope = shared_slope - torch.einsum("txg,tx->g", mixed, solved[..., -1])
        common_step = -_solved(shared, shared_slope[:, None])[:, 0]
        step = -(solved[..., -1] + solved[..., :-1] @ common_step)
        known = known + common_step
        known[-1] = known[-1].clamp(0, _NEAREST)
        units = (units + step[:, _POSE:].float()).clamp(0, 1)
        pose = pose.stepped(step[:, :_POSE].float())
    neutral, nearness = base + torch.einsum("k,kld->ld", known[:count].float(), modes), known[-1].float()
    if rest is None:
        neutral = neutral + _lone_changes(points, face.shape(units, neutral), pose, nearness, noise)
    return neutral, known[usual_at].float().clamp(0, 1), nearness


def fit_frames(
    face: HeadShape, points: Tensor, rest: Tensor, usual: Tensor, nearness: Tensor, noise: float
) -> tuple[Tensor, Pose]:
    """Units [T, 52] and pose of every frame of a person whose neutral face, mean units and nearness are known, from landmarks [T, L, 2]."""
    units, pose = usual.expand(len(points), -1).clone(), _first_pose(rest, points)
    within = torch.linalg.inv(face.within.double())
    smooth = face.step.double() ** -2
    curvature = within + 2 * torch.diag(smooth)
    for _ in range(_FRAME_STEPS):
        here, steps = units.double(), []
        # Each frame is drawn to the mean of its neighbours as they were a step ago: no equation joins frames, and parts of a clip do alone.
        around = torch.cat([here[:1], here[:-1]]) + torch.cat([here[1:], here[-1:]])
        pull = (here - usual) @ within + smooth * (2 * here - around)
        for first in range(0, len(points), _CHUNK):
            rows = slice(first, first + _CHUNK)
            shape = face.shape(units[rows], rest)
            residual, by_pose, by_place, _ = _linearised(points[rows], shape, pose.part(rows), nearness)
            root = _weights(residual, noise).sqrt()[..., None, None]
            by_units = torch.einsum("tlad,uld->tlau", by_place, face.units)
            own = (torch.cat([by_pose, by_units], -1) * root).flatten(1, 2)
            hessian, slope = _own_equations(own, (residual[..., None] * root).flatten(1, 2))
            hessian[:, _POSE:, _POSE:] += curvature
            slope[:, _POSE:] += pull[rows]
            steps.append(_bounded_step(hessian, slope, here[rows]))
        step = torch.cat(steps)
        units = (here + step[:, _POSE:]).float().clamp(0, 1)
        pose = pose.stepped(step[:, :_POSE].float())
    return units, pose


def _bounded_step(hessian: Tensor, slope: Tensor, units: Tensor) -> Tensor:
    """The step [T, 6 + 52] to the minimum of a quadratic model under 0 <= units <= 1."""
    step = torch.zeros_like(slope)
    for _ in range(_BOUNDED_STEPS):
        here = units + step[:, _POSE:]
        now = slope + (hessian @ step[..., None])[..., 0]
        free = _free(here, now[:, _POSE:])
        step = step - _solved(_held(hessian, free), (now * free)[..., None])[..., 0]
        step[:, _POSE:] = (units + step[:, _POSE:]).clamp(0, 1) - units
    return step


def _lone_changes(points: Tensor, shape: Tensor, pose: Pose, nearness: Tensor, noise: float) -> Tensor:
    """What single points [L, 3] of the neutral face are off in all frames."""
    residual, _, by_place, _ = _linearised(points, shape, pose, nearness)
    weight = _weights(residual, noise)
    normal = torch.einsum("tlad,tl,tlae->lde", by_place, weight, by_place)
    right = torch.einsum("tlad,tl,tla->ld", by_place, weight, residual)
    return torch.linalg.solve(normal + torch.eye(3).to(normal) / _LONE**2, right)


def _first_pose(shape: Tensor, points: Tensor) -> Pose:
    """The weak perspective that takes a shape [L, 3] nearest to points [T, L, 2]."""
    middle, centre = shape.mean(0), points.mean(1)
    design = (shape - middle).expand(len(points), -1, -1)
    u, size, v = torch.linalg.svd(
        (torch.linalg.pinv(design[0]) @ (points - centre[:, None])).transpose(1, 2), full_matrices=False
    )
    rows, scale = u @ v, size.mean(1)
    rotation = torch.cat([rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]], 1)
    return Pose(rotation, scale, centre - scale[:, None] * (rows @ middle))


def _linearised(points: Tensor, shape: Tensor, pose: Pose, nearness: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Residuals [T, L, 2] in scales, and how what is seen changes with pose [T, L, 2, 6], place [T, L, 2, 3] and nearness [T, L, 2, 1]."""
    turned = shape @ pose.rotation.transpose(1, 2)
    near = 1 / (1 - nearness * turned[..., 2])
    flat = near[..., None] * turned[..., :2]
    residual = (points - pose.centre[:, None]) / pose.scale[:, None, None] - flat
    by_turned = turned.new_zeros(*turned.shape[:2], 2, 3)
    by_turned[..., 0, 0] = by_turned[..., 1, 1] = near
    by_turned[..., 2] = (nearness * near)[..., None] * flat
    by_centre = torch.eye(2).to(flat).expand(*by_turned.shape[:3], 2)
    by_pose = torch.cat([-by_turned @ _cross(turned), flat[..., None], by_centre], -1)
    by_nearness = ((near * turned[..., 2])[..., None] * flat)[..., None]
    return residual, by_pose, by_turned @ pose.rotation[:, None], by_nearness


def _cross(v: Tensor) -> Tensor:
    """Matrices [..., 3, 3] of the cross product with v [..., 3] from the left."""
    x, y, z = v.unbind(-1)
    none = torch.zeros_like(x)
    return torch.stack([none, -z, y, z, none, -x, -y, x, none], -1).unflatten(-1, (3, 3))


def _weights(residual: Tensor, noise: float) -> Tensor:
    """Weights [T, L] of points with residuals [T, L, 2]."""
    size = residual.norm(dim=-1) / noise
    return (_HUBER / size.clamp(min=_HUBER)) / noise**2


def _own_equations(own: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Hessian [T, 58, 58] and gradient [T, 58] of half the squared residuals; a little damping for the pose."""
    hessian, slope = (own.transpose(1, 2) @ own).double(), -(own.transpose(1, 2) @ left).double()[..., 0]
    hessian[:, :_POSE, :_POSE] += 1e-3 * torch.eye(_POSE).to(hessian)
    return hessian, slope


def _free(units: Tensor, slope: Tensor) -> Tensor:
    """Which unknowns of a frame may move, 0 or 1 [T, 58]: all but the units that are pressed against a bound."""
    held = ((units <= 0) & (slope > 0)) | ((units >= 1) & (slope < 0))
    return torch.cat([slope.new_ones(len(slope), _POSE), 1 - held.to(slope)], 1)


def _held(hessian: Tensor, free: Tensor) -> Tensor:
    return hessian * free[:, :, None] * free[:, None] + torch.diag_embed(1 - free)


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """Solutions for a positive definite matrix."""
    return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))
