"""StyleGAN2 (Karras et al., CVPR 2020), configuration f, at any widths: names of tensors as rosinality's stylegan2-pytorch has them.

Layers are equalised: weights are drawn from N(0, 1) and scaled when they are used. A modulated convolution scales its input and its
output instead of its weights, which is the same, and takes a batch in one call. Blurs are depth-wise convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Channels by side of the map, pixels, at the published widths.
CONFIG_F = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
#: Multiplier of the learning rate of the mapping network, whose weights are kept divided by it.
MAPPING_RATE = 0.01
#: Pictures over which a discriminator takes deviations, at most.
GROUP = 4
#: Where a layer's noise comes from: kept with the weights, drawn anew, or none.
Noise = Literal["stored", "random", "zero"]
#: Changes the map [N, C, H, W] before a block, whose number it is told.
Fuse = Callable[[Tensor, int], Tensor]


def kernel_of(gain: float = 1.0) -> Tensor:
    """The blur [1, 3, 3, 1] x [1, 3, 3, 1], float32 [4, 4], whose sum is `gain`."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(line, line) * (gain / 64)


def filtered(x: Tensor, kernel: Tensor, pad: tuple[int, int]) -> Tensor:
    """x [N, C, H, W], padded by `pad` (before, after) both ways, each channel under the symmetric `kernel`."""
    weight = kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)
    return F.conv2d(F.pad(x, (*pad, *pad)), weight, groups=x.shape[1])


class Blur(nn.Module):
    """Smooths each channel; before is down-sampled, or after was up-sampled."""

    kernel: Tensor

    def __init__(self, pad: tuple[int, int], gain: float = 1.0):
        super().__init__()
        self.pad = pad
        self.register_buffer("kernel", kernel_of(gain))

    def forward(self, x: Tensor) -> Tensor:
        return filtered(x, self.kernel, self.pad)


class Upsample(nn.Module):
    """Twice the side, smoothly."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel_of(4.0))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.kernel.to(x.dtype).expand(x.shape[1], 1, 4, 4)
        return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=x.shape[1])


class FusedLeakyReLU(nn.Module):
    """A bias for each channel, leaky ReLU, and the factor that keeps the variance."""

    def __init__(self, width: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return leaky(x + self.bias.view(1, -1, *[1] * (x.dim() - 2)))


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class EqualLinear(nn.Module):
    """A linear layer, equalised. rate: multiplier of its learning rate. active: with the leaky ReLU behind it."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0, active: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.scale, self.rate, self.active = rate / math.sqrt(inputs), rate, active

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight * self.scale, self.bias * self.rate)
        return leaky(x) if self.active else x


class EqualConv2d(nn.Module):
    """A convolution without bias, equalised."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scale, self.stride, self.padding = 1 / math.sqrt(inputs * kernel**2), stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, stride=self.stride, padding=self.padding)


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are scaled by a style, and whose output channels are normalised (`demodulate`).

    up: twice the side.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style: int, demodulate: bool = True, up: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.modulation = EqualLinear(style, inputs, bias=1.0)
        if up:
            self.blur = Blur((1, 1), 4.0)
        self.scale, self.padding, self.demodulate, self.up = (
            1 / math.sqrt(inputs * kernel**2),
            kernel // 2,
            demodulate,
            up,
        )

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        weight, scales = self.weight[0] * self.scale, self.modulation(style)
        x = self.convolved(x * scales[:, :, None, None], weight)
        if not self.demodulate:
            return x
        power = F.linear(scales.square(), weight.square().sum((2, 3)))
        return x * (power + 1e-8).rsqrt()[:, :, None, None]

    def convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        """x under the shared weight [O, I, K, K]."""
        if self.up:
            return self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        return F.conv2d(x, weight, padding=self.padding)


class NoiseInjection(nn.Module):
    """Adds noise, as much as it learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + self.weight * noise


class StyledConv(nn.Module):
    """A modulated convolution, noise, bias and activation."""

    def __init__(self, conv: ModulatedConv2d, noisy: bool = True):
        super().__init__()
        self.conv = conv
        if noisy:
            self.noise = NoiseInjection()
        self.activate = FusedLeakyReLU(conv.weight.shape[1])

    def forward(self, x: Tensor, style: Tensor, noise: Callable[[Tensor], Tensor | None]) -> Tensor:
        """noise: of a map, [., 1, H, W], or None."""
        x = self.conv(x, style)
        added = noise(x)
        return self.activate(x if added is None else self.noise(x, added))


class ToRGB(nn.Module):
    """Colours of a map, added to those of the map of half the side. up: how these are brought to this side."""

    def __init__(self, inputs: int, style: int, up: bool = True):
        super().__init__()
        self.conv = ModulatedConv2d(inputs, 3, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if up:
            self.upsample = Upsample()

    def forward(self, x: Tensor, style: Tensor, below: Tensor | None = None) -> Tensor:
        colours = self.conv(x, style) + self.bias
        return colours if below is None else colours + self.enlarged(below)

    def enlarged(self, colours: Tensor) -> Tensor:
        """Colours of the map below, at this map's side."""
        return self.upsample(colours)


class PixelNorm(nn.Module):
    """Each vector at mean square 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class Constant(nn.Module):
    """The learnt map that synthesis begins with."""

    def __init__(self, width: int):
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, width, 4, 4))

    def forward(self, n: int) -> Tensor:
        return self.input.expand(n, -1, -1, -1)


class Generator(nn.Module):
    """A picture from one style vector for each layer.

    size: side of the picture, a power of two from 8. style: numbers of a code. mapping: layers from z to w. widths: channels by side.
    noisy: with noise in each layer, as published.
    """

    def __init__(
        self,
        size: int,
        style: int = 512,
        mapping: int = 8,
        widths: Mapping[int, int] = CONFIG_F,
        noisy: bool = True,
    ):
        super().__init__()
        self.size, self.widths, self.noisy = size, widths, noisy
        self.levels = int(math.log2(size))
        self.codes = 2 * self.levels - 2
        self.style = nn.Sequential(
            PixelNorm(), *(EqualLinear(style, style, rate=MAPPING_RATE, active=True) for _ in range(mapping))
        )
        self.input = Constant(widths[4])
        self.conv1 = self.styled(widths[4], widths[4], style, 2)
        self.to_rgb1 = ToRGB(widths[4], style, up=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for level in range(3, self.levels + 1):
            below, width = widths[2 ** (level - 1)], widths[2**level]
            self.convs.append(self.styled(below, width, style, level, up=True))
            self.convs.append(self.styled(width, width, style, level))
            self.to_rgbs.append(self.coloured(width, style, level))
        self.noises = nn.Module()
        for layer in range(self.codes - 1 if noisy else 0):
            side = 2 ** ((layer + 5) // 2)
            self.noises.register_buffer(f"noise_{layer}", torch.randn(1, 1, side, side))

    def styled(self, inputs: int, outputs: int, style: int, level: int, up: bool = False) -> StyledConv:
        """The layer at maps of 2 ** level pixels; up: it makes them, from half the side."""
        return StyledConv(ModulatedConv2d(inputs, outputs, 3, style, up=up), self.noisy)

    def coloured(self, width: int, style: int, level: int) -> ToRGB:
        """The colours at maps of 2 ** level pixels."""
        return ToRGB(width, style)

    def noise_of(self, layer: int, x: Tensor, noise: Noise) -> Tensor | None:
        """The noise of a layer whose map is `x`, [., 1, H, W]."""
        if noise == "zero" or not self.noisy:
            return None
        if noise == "random":
            return torch.randn_like(x[:, :1])
        return getattr(self.noises, f"noise_{layer}")

    def spread(self, w: Tensor) -> Tensor:
        """The code w [N, D] for every layer: [N, codes, D]."""
        return w[:, None].expand(-1, self.codes, -1)

    def start(self, codes: Tensor) -> Tensor:
        """The map that synthesis begins with."""
        return self.input(len(codes))

    def forward(self, codes: Tensor, noise: Noise = "stored") -> Tensor:
        """Codes [N, L, D], one for each layer -> pictures [N, 3, S, S], about [-1, 1], not clamped."""
        return self.synthesis(codes, self.start(codes), noise)

    def synthesis(self, codes: Tensor, x: Tensor, noise: Noise, fuse: Fuse | None = None) -> Tensor:
        """The picture of codes whose first map is x."""
        styles = codes.unbind(1)
        x = self._layer(self.conv1, x, styles[0], 0, noise)
        colours = self.to_rgb1(x, styles[1])
        for block, to_rgb in enumerate(self.to_rgbs):
            first = 2 * block + 1
            if fuse is not None:
                x = fuse(x, block)
            x = self._layer(self.convs[2 * block], x, styles[first], first, noise)
            x = self._layer(self.convs[2 * block + 1], x, styles[first + 1], first + 1, noise)
            colours = to_rgb(x, styles[first + 2], colours)
        return colours

    def _layer(self, layer: nn.Module, x: Tensor, style: Tensor, number: int, noise: Noise) -> Tensor:
        return layer(x, style, lambda made: self.noise_of(number, made, noise))


class ConvLayer(nn.Sequential):
    """A convolution of the discriminator: equalised, half the side where `down`, with bias and activation where `active`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, down: bool = False, active: bool = True):
        pad = 2 + kernel - 1
        layers: list[nn.Module] = [Blur(((pad + 1) // 2, pad // 2))] if down else []
        layers += [EqualConv2d(inputs, outputs, kernel, 2 if down else 1, 0 if down else kernel // 2)]
        super().__init__(*layers, *([FusedLeakyReLU(outputs)] if active else []))


class ResBlock(nn.Module):
    """Half the side, residual."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = ConvLayer(inputs, inputs, 3)
        self.conv2 = ConvLayer(inputs, outputs, 3, down=True)
        self.skip = ConvLayer(inputs, outputs, 1, down=True, active=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)


class Discriminator(nn.Module):
    """How real pictures are: scores [N, 1].

    size: nominal side of the pictures. last: side of the last map where pictures have it; SSERD's is 1, so that its pictures have a
    quarter of the nominal side. deviation: the last map is told how much pictures of a group differ, as published: the batch must
    then divide by min(N, 4), and a score depends on the pictures beside it.
    """

    compilable = False  # R1 asks for second derivatives

    def __init__(self, size: int, widths: Mapping[int, int] = CONFIG_F, last: int = 4, deviation: bool = True):
        super().__init__()
        self.deviation = deviation
        sides = [2**level for level in range(int(math.log2(size)), 1, -1)]
        self.convs = nn.Sequential(
            ConvLayer(3, widths[size], 1),
            *(ResBlock(widths[side], widths[side // 2]) for side in sides[:-1]),
        )
        self.final_conv = ConvLayer(widths[4] + deviation, widths[4], 3)
        self.final_linear = nn.Sequential(
            EqualLinear(widths[4] * last**2, widths[4], active=True), EqualLinear(widths[4], 1)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.convs(pictures)
        if self.deviation:
            x = torch.cat([x, self._deviation(x)], 1)
        return self.final_linear(self.final_conv(x).flatten(1))

    def _deviation(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        group = min(n, GROUP)
        if n % group:
            raise ValueError(f"a batch of {n} pictures: the deviation is taken over {group}, give a multiple of it")
        spread = (x.view(group, n // group, -1).var(0, unbiased=False) + 1e-8).sqrt().mean(1)
        return spread.repeat(group)[:, None, None, None].expand(-1, 1, height, width)


def adversarial_loss(scores: Tensor) -> Tensor:
    """Of what is made: softplus, non-saturating."""
    return F.softplus(-scores).mean()


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """Of the discriminator, from its scores of real pictures and of what was made."""
    return F.softplus(-real).mean() + F.softplus(made).mean()


def gradient_penalty(scores: Tensor, pictures: Tensor) -> Tensor:
    """R1 without its weight: the mean squared slope of the scores at real pictures, which wanted gradients."""
    (slope,) = torch.autograd.grad(scores.sum(), pictures, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()


def path_lengths(pictures: Tensor, codes: Tensor, noise: Tensor) -> Tensor:
    """How far pictures [N, 3, S, S] move with their codes [N, L, D]: [N]. noise: like the pictures, the direction that is looked at."""
    share = (pictures * noise).sum() / pictures.shape[-1]
    (slope,) = torch.autograd.grad(share, codes, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()
