"""Light and skin tone, which differ between two recordings of one person."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

#: Share of the slow part of an error that does not count where a frame is redrawn from another recording: its light is another.
LIGHT = 0.8


def with_colours_of(moved: Tensor, around: Tensor, soft: Tensor) -> Tensor:
    """`moved` with the mean and spread that `around` has under the soft mask, channel by channel."""
    weight = soft / soft.sum((2, 3), keepdim=True).clamp(min=1e-6)

    def moments(picture: Tensor) -> tuple[Tensor, Tensor]:
        mean = (picture * weight).sum((2, 3), keepdim=True)
        return mean, (((picture - mean).square() * weight).sum((2, 3), keepdim=True) + 1e-4).sqrt()

    (mean, spread), (wanted, wanted_spread) = moments(moved), moments(around)
    return ((moved - mean) / spread * wanted_spread + wanted).clamp(-1, 1)


def slow(error: Tensor, soft: Tensor) -> Tensor:
    """The slow part of an error picture [N, C, S, S] under a soft mask: patches of light and colour, no lines."""
    width = max(1, error.shape[-1] // 10)

    def blurred(x: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(x, width), x.shape[-2:], mode="bilinear", align_corners=False)

    return blurred(error * soft) / (blurred(soft) + 1e-3)
