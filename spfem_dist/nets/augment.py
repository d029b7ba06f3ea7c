"""Augmentation whose randomness belongs to the sample, never to the process.

Every number is a function of (sample seed, purpose), so a batch split over workers, resumed or repeated sees exactly
the same augmented frames. Parameters are drawn on the CPU for each sample; applying them is vectorised on the device.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from spfem_dist.records import Seeds


def uniform(seed: Seeds, purpose: str, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 [B, *shape] on seed's device, a function of each sample's seed and the purpose.

    Two purposes give independent numbers for one seed.
    """
    drawn = [rng.random(shape, np.float32) for rng in _streams(seed, purpose)]
    return torch.from_numpy(np.stack(drawn)).to(seed.device, non_blocking=True)


def normal(seed: Seeds, purpose: str, *shape: int) -> Tensor:
    """The same of a standard normal distribution."""
    drawn = [rng.standard_normal(shape, np.float32) for rng in _streams(seed, purpose)]
    return torch.from_numpy(np.stack(drawn)).to(seed.device, non_blocking=True)


def _streams(seed: Seeds, purpose: str) -> list[np.random.Generator]:
    stream = zlib.crc32(purpose.encode())
    return [np.random.default_rng([number & (2**63 - 1), stream]) for number in seed.numbers]


def face_crop(frames: Tensor, share: float, row: float, offset: Tensor | None = None) -> Tensor:
    """The square around the face out of each frame, moved by whole pixels.

    frames: [N, C, S, S]. share: side of the square as a share of S. row: row of its centre as a share of S (its column is
    the middle). offset: int64 [N, 2], rows and columns; the square stays inside the frame. Returns [N, C, side, side].
    """
    n, _, height, width = frames.shape
    side = max(8, round(share * height))
    if offset is None:
        offset = torch.zeros(n, 2, dtype=torch.long, device=frames.device)
    top, left = round(row * height - side / 2), (width - side) // 2
    start = (offset + torch.tensor([top, left], device=frames.device)).clamp(min=0, max=height - side)
    steps = torch.arange(side, device=frames.device)
    rows, columns = start[:, :1] + steps, start[:, 1:] + steps
    samples = torch.arange(n, device=frames.device)[:, None, None]
    return frames.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def random_shift(frames: Tensor, seed: Seeds, purpose: str, share: float, each: tuple[int, int]) -> Tensor:
    """Whole-pixel offsets for `face_crop`, int64 [B * R * K, 2], uniform in +- share of the frame's side.

    frames: [B * R * K, C, S, S]; seed: of B samples; each: (R, K).
    """
    reach = round(share * frames.shape[-1])
    numbers = uniform(seed, purpose, *each, 2).flatten(0, 2)
    return (numbers * (2 * reach + 1)).floor().long() - reach


def flip(frames: Tensor, chosen: Tensor) -> Tensor:
    """Mirrors the chosen frames left to right. frames: [N, C, H, W]; chosen: bool [N]."""
    return torch.where(chosen[:, None, None, None], frames.flip(-1), frames)


def colour_jitter(frames: Tensor, strength: float, numbers: Tensor) -> Tensor:
    """Changes contrast, brightness and white balance of each frame.

    frames: float [N, 3, H, W] in [-1, 1]. strength: largest change as a share of full range. numbers: [N, 5] in [0, 1):
    contrast, brightness and three channel gains. The result may leave [-1, 1] a little; it is not clamped, since a
    clamp would erase the detail of bright faces.
    """
    signed = (2.0 * numbers - 1.0) * strength
    mean = frames.mean(dim=(1, 2, 3), keepdim=True)
    contrast, brightness, gains = signed[:, 0], signed[:, 1], signed[:, 2:5]
    jittered = (frames - mean) * (1.0 + contrast)[:, None, None, None] + mean + brightness[:, None, None, None]
    return jittered + gains[:, :, None, None] * 0.5


def mouth_window(side: int, device: torch.device, centre: tuple[float, float], radius: tuple[float, float]) -> Tensor:
    """Soft mask of the mouth region of a centred face crop, float [1, 1, side, side] in [0, 1].

    centre and radius: (row, column), as shares of the side; the mask is 1 inside the ellipse and falls to 0 over the
    outer third of it, so that a pasted mouth leaves no hard edge to learn from.
    """
    grid = (torch.arange(side, device=device) + 0.5) / side
    distance = torch.sqrt(
        ((grid[:, None] - centre[0]) / radius[0]).square() + ((grid[None, :] - centre[1]) / radius[1]).square()
    )
    return ((1.17 - distance) / 0.34).clamp(0.0, 1.0)[None, None]
