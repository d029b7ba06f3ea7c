"""How the judges' crops are disturbed in training, so that their word stays good on pictures that a generator drew.

Every number is a function of (sample seed, purpose), as in `nets.augment`; applying them is vectorised on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from spfem_dist.evaluation.judges.settings import JudgeSettings
from spfem_dist.nets.augment import colour_jitter, uniform
from spfem_dist.records import Seeds

#: Block coding works on squares of this side, as JPEG and H.264 do.
BLOCK = 8


def crop_matrix(settings: JudgeSettings, count: int, numbers: Tensor | None = None) -> Tensor:
    """Maps crop coordinates to frame coordinates, both in [-1, 1]: float [count, 2, 3], as `affine_grid` takes it.

    numbers: [count, 4] in [0, 1): scale, rotation and shift of each crop; None leaves the crop where the settings put it.
    """
    signed = torch.zeros(count, 4) if numbers is None else 2.0 * numbers - 1.0
    scale = settings.crop * (1.0 + settings.zoom * signed[:, 0])
    angle = math.radians(settings.turn) * signed[:, 1]
    shift = 2.0 * settings.shift * signed[:, 2:]
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    down = shift[:, 1] + 2.0 * settings.crop_row - 1.0
    rows = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, down], 1)], 1)
    return rows


def cropped(frames: Tensor, matrix: Tensor, side: int) -> Tensor:
    """The crops that `matrix` [N, 2, 3] places on float frames [N, 3, S, S]: [N, 3, side, side]."""
    matrix = matrix.to(frames)
    ratio = float(matrix[0, :, :2].norm(dim=0).mean()) * frames.shape[-1] / side
    if ratio > 1.5:  # bilinear sampling alone would skip pixels
        target = max(8, round(frames.shape[-1] / ratio))
        frames = F.interpolate(frames, size=(target, target), mode="bilinear", align_corners=False, antialias=True)
    grid = F.affine_grid(matrix, [len(frames), 3, side, side], align_corners=False)
    return F.grid_sample(frames, grid, mode="bilinear", padding_mode="border", align_corners=False)


def to_crop(landmarks: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Landmarks [N, L, 2] (x, y) in pixels of frames of side `size` as crop coordinates in [-1, 1]."""
    matrix = matrix.to(landmarks)
    centred = 2.0 * landmarks / size - 1.0 - matrix[:, None, :, 2]
    return centred @ torch.linalg.inv(matrix[:, :, :2]).transpose(1, 2)


def to_frame(landmarks: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Landmarks [N, L, 2] in crop coordinates as pixels of frames of side `size`: the inverse of `to_crop`."""
    matrix = matrix.to(landmarks)
    return (landmarks @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2] + 1.0) * size / 2.0


def disturbed(faces: Tensor, seed: Seeds, purpose: str, settings: JudgeSettings, each: tuple[int, ...]) -> Tensor:
    """Colour, light, blur, noise and block coding, each of random strength. faces: [B * prod(each), 3, s, s] in [-1, 1]."""
    last = len(each)
    numbers = uniform(seed, f"{purpose}/look", *each, 8).flatten(0, last).to(faces)
    faces = colour_jitter(faces, settings.colour_jitter, numbers[:, :5])
    # Half of the crops stay sharp, half without noise, half uncoded, as real frames are.
    if settings.blur:
        faces = _where_strong(faces, settings.blur * _often_none(numbers[:, 5]), lambda x, s: torch.lerp(x, soft(x), s))
    if settings.noise:
        grain = uniform(seed, f"{purpose}/grain", *each, *faces.shape[1:]).flatten(0, last).to(faces)
        # Uniform noise of this width has the standard deviation that the settings ask for; 2 is the full range.
        faces = faces + (grain - 0.5) * (2.0 * math.sqrt(12.0) * settings.noise) * _often_none(numbers[:, 6])
    if settings.coding:
        faces = _where_strong(faces, 2.0 * settings.coding * _often_none(numbers[:, 7]), coded)
    return faces


def soft(faces: Tensor) -> Tensor:
    """The faces [N, C, H, W] under a binomial filter of standard deviation one pixel."""
    for axis in (2, 3, 2, 3):
        size = faces.shape[axis]
        first, last = faces.narrow(axis, 0, 1), faces.narrow(axis, size - 1, 1)
        wide = torch.cat([first, faces, last], axis)
        faces = wide.narrow(axis, 0, size).add(wide.narrow(axis, 2, size)).mul_(0.25).add_(faces, alpha=0.5)
    return faces


def coded(faces: Tensor, step: Tensor) -> Tensor:
    """The faces after rounding each 8 x 8 block's cosine coefficients to `step` [N, 1, 1, 1], coarser for fine detail."""
    n, channels, height, width = faces.shape
    basis = _cosines(faces)
    fineness = torch.arange(BLOCK, device=faces.device, dtype=faces.dtype)
    steps = step[..., None, None] * (1.0 + 0.5 * (fineness[:, None] + fineness[None, :])) + 1e-4
    blocks = faces.view(n, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    spectrum = basis @ blocks @ basis.T
    spectrum = torch.round(spectrum / steps) * steps
    return (basis.T @ spectrum @ basis).transpose(3, 4).reshape(faces.shape)


def _where_strong(faces: Tensor, strength: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`change(faces, strength)` where the strength is above 0, at the cost of those faces alone."""
    strong = strength.flatten() > 0
    faces = faces.clone()
    faces[strong] = change(faces[strong], strength[strong])
    return faces


def _often_none(numbers: Tensor) -> Tensor:
    """Uniform numbers [N] in [0, 1) as strengths [N, 1, 1, 1]: half are 0, the others uniform in [0, 1)."""
    return (2.0 * numbers - 1.0).clamp(min=0.0)[:, None, None, None]


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal cosine basis [8, 8], rows are frequencies."""
    place = torch.arange(BLOCK, device=like.device, dtype=like.dtype)
    basis = torch.cos(math.pi / BLOCK * place[:, None] * (place[None, :] + 0.5)) * math.sqrt(2.0 / BLOCK)
    basis[0] /= math.sqrt(2.0)
    return basis
