"""Small networks for the embedded demo: they train in minutes on one CPU core.

Three strided convolutions turn a 48-pixel face into a 6 x 6 map, two layers turn a window of speech
features into one vector. Batch norm throughout (synchronised over workers): layer norm left a common component in every
embedding and the contrast never took off.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.nets.batchnorm import BatchNorm1d, BatchNorm2d

#: Side of the face crop that the small networks see, pixels.
SIDE = 48
#: Channels and side of the small encoder's map.
CHANNELS, MAP_SIDE = 96, 6


class FaceEncoder(nn.Sequential):
    """Face crop [N, 3, 48, 48] in [-1, 1] -> map [N, 96, 6, 6]."""

    channels, map_side = CHANNELS, MAP_SIDE
    compilable = True

    def __init__(self, widths: tuple[int, int, int] = (24, 48, CHANNELS)):
        layers: list[nn.Module] = []
        before = 3
        for width, kernel in zip(widths, (5, 3, 3), strict=True):
            layers += [
                nn.Conv2d(before, width, kernel, stride=2, padding=kernel // 2, bias=False),
                BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            before = width
        super().__init__(*layers)

    def forward(self, input: Tensor) -> Tensor:
        # Channels last halves the time of these convolutions on the CPU.
        return super().forward(input.contiguous(memory_format=torch.channels_last))


class SpeechEncoder(nn.Module):
    """A window of speech features [N, W, F] -> one vector [N, width]."""

    def __init__(self, features: int, window: int, width: int = 128):
        super().__init__()
        self.scale = BatchNorm1d(features)
        self.mix = nn.Conv1d(features, width, 3, padding=1, bias=False)
        self.mix_norm = BatchNorm1d(width)
        self.join = nn.Linear(width * window, width, bias=False)
        self.join_norm = BatchNorm1d(width)

    def forward(self, speech: Tensor) -> Tensor:
        """speech: float [N, W, F] -> [N, width], rectified."""
        code = F.relu(self.mix_norm(self.mix(self.scale(speech.transpose(1, 2)))))
        return F.relu(self.join_norm(self.join(code.flatten(1))))


def to_unit_range(frames: Tensor) -> Tensor:
    """uint8 frames in 0..255 -> float32 in [-1, 1]; floats pass unchanged, half precision as float32 (which resizing wants)."""
    if frames.dtype == torch.uint8:
        return frames.float().div(127.5).sub(1.0)
    return frames.to(torch.promote_types(frames.dtype, torch.float32))


def resized(frames: Tensor, side: int) -> Tensor:
    """Float frames [N, C, S, S] at `side` pixels, anti-aliased when they shrink; unchanged when they fit already."""
    if frames.shape[-1] == side:
        return frames
    return F.interpolate(frames, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


def unit(vectors: Tensor) -> Tensor:
    """Unit vectors along the last dimension, in float32 or better whatever the precision of the network."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)
