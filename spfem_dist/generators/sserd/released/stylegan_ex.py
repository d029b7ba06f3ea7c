"""The generator of StyleGANEX's form: maps of 4 to 16 pixels become 32 x 32, their kernels dilated, so that weights of StyleGAN2 fit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spfem_dist.generators.sserd.stylegan2 import Fuse, Generator, ModulatedConv2d, Noise, StyledConv, ToRGB

#: Side of the first maps, pixels.
SIDE = 32


def dilation_of(level: int) -> int:
    """How far apart the taps of a layer at maps of 2 ** level pixels are, where these have 32."""
    return max(1, SIDE // 2**level)


def smoothing() -> Tensor:
    """[1, 2, 1] x [1, 2, 1], sum 1: [1, 1, 3, 3]."""
    line = torch.tensor([1.0, 2.0, 1.0])
    return (torch.outer(line, line) / 16)[None, None]


class DilatedConv2d(ModulatedConv2d):
    """A modulated convolution with its taps `dilation` apart. up: in the place of one that doubles the side: it smooths, then convolves."""

    blur_weight: Tensor

    def __init__(self, inputs: int, outputs: int, style: int, dilation: int, up: bool):
        super().__init__(inputs, outputs, 3, style, up=up)
        self.dilation = dilation
        if up:
            self.register_buffer("blur_weight", smoothing())

    def convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        if not self.up:
            return F.conv2d(x, weight, padding=self.dilation, dilation=self.dilation)
        half, c = self.dilation // 2, x.shape[1]
        x = F.conv_transpose2d(x, self.blur_weight.to(x.dtype).expand(c, 1, 3, 3), dilation=half, groups=c)
        return F.conv_transpose2d(x, weight.transpose(0, 1), padding=self.dilation, dilation=half)


class DilatedToRGB(ToRGB):
    """Colours that are smoothed where others are enlarged."""

    blur_weight: Tensor

    def __init__(self, inputs: int, style: int, dilation: int):
        super().__init__(inputs, style)
        self.half = dilation // 2
        self.register_buffer("blur_weight", smoothing())

    def enlarged(self, colours: Tensor) -> Tensor:
        weight = self.blur_weight.to(colours.dtype).expand(3, 1, 3, 3)
        return F.conv2d(colours, weight, padding=self.half, dilation=self.half, groups=3)


class GeneratorEX(Generator):
    """StyleGAN2 from a map of 32 x 32, its own constant spread out, or an encoder's."""

    def styled(self, inputs: int, outputs: int, style: int, level: int, up: bool = False) -> StyledConv:
        dilation = dilation_of(level - up)
        if dilation == 1:
            return super().styled(inputs, outputs, style, level, up)
        return StyledConv(DilatedConv2d(inputs, outputs, style, dilation, up), self.noisy)

    def coloured(self, width: int, style: int, level: int) -> ToRGB:
        dilation = dilation_of(level - 1)
        return super().coloured(width, style, level) if dilation == 1 else DilatedToRGB(width, style, dilation)

    def start(self, codes: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(super().start(codes), SIDE)

    def noise_of(self, layer: int, x: Tensor, noise: Noise) -> Tensor | None:
        found = super().noise_of(layer, x, noise)
        return found if found is None else F.adaptive_avg_pool2d(found, x.shape[-1])

    def forward(
        self, codes: Tensor, noise: Noise = "stored", first: Tensor | None = None, fuse: Fuse | None = None
    ) -> Tensor:
        """Codes [N, L, 512] -> pictures [N, 3, S, S]. first: the map [N, 512, 32, 32] to begin with. fuse: see `Fuse`."""
        return self.synthesis(codes, self.start(codes) if first is None else first, noise, fuse)
