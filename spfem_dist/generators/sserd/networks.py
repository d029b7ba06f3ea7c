"""SSERD's networks in their clean form: a StyleGAN2 without noise, an encoder of its codes, and the emotion's residual.

What differs from the published form (released/) and why is in docs/generators.md.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.generators.sserd.settings import Portraits
from spfem_dist.generators.sserd.stylegan2 import (
    CONFIG_F,
    Discriminator,
    EqualConv2d,
    EqualLinear,
    FusedLeakyReLU,
    Generator,
)
from spfem_dist.nets.frozen import freeze

#: Factor behind the last layer of the residual, which begins at nothing.
GAIN = 0.2
#: Factor of the usual path length, so that it is found within some hundred steps.
LENGTH_GAIN = 20.0


@dataclass(frozen=True)
class Sizes:
    """Numbers of a code, layers of the mapping, channels of the generator by side, of the encoder's first map, heads of the attention."""

    style: int
    mapping: int
    widths: Mapping[int, int]
    encoder: int
    heads: int


SIZES = {
    "small": Sizes(128, 4, {side: min(64, max(16, 1536 // side)) for side in CONFIG_F}, encoder=32, heads=4),
    "paper": Sizes(512, 8, CONFIG_F, encoder=64, heads=8),
}


class Encoder(nn.Module):
    """A picture's codes: maps halved down to 4 pixels, then one linear layer, whose bias is the mean code. Layers are equalised."""

    def __init__(self, size: int, codes: int, style: int, width: int):
        super().__init__()
        halvings = int(math.log2(size)) - 2
        widths = [3, *(width * min(level + 1, 4) for level in range(halvings))]
        self.downs = nn.ModuleList(EqualConv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.convolutions = nn.ModuleList(EqualConv2d(b, b, 3, 1, 1) for b in widths[1:])
        self.norms = nn.ModuleList(nn.GroupNorm(8, b) for b in widths[1:])
        self.activations = nn.ModuleList(FusedLeakyReLU(b) for b in widths[1:])
        self.out = EqualLinear(widths[-1] * 16, codes * style)
        self.codes, self.style = codes, style

    def forward(self, pictures: Tensor) -> Tensor:
        """[N, 3, S, S] in [-1, 1] -> [N, L, D]."""
        x = pictures
        layers = zip(self.downs, self.norms, self.activations, self.convolutions, strict=True)
        for down, norm, activation, convolution in layers:
            x = activation(norm(down(x)))
            x = (x + convolution(x)) / math.sqrt(2)
        return self.out(x.flatten(1)).unflatten(1, (self.codes, self.style))


class Portrait(nn.Module):
    """Generator and encoder. Pictures are [N, 3, S, S] in [-1, 1], codes [N, L, D]."""

    def __init__(self, size: int, sizes: Sizes):
        super().__init__()
        self.generator = Generator(size, sizes.style, sizes.mapping, sizes.widths, noisy=False)
        self.encoder = Encoder(size, self.generator.codes, sizes.style, sizes.encoder)

    def encode(self, pictures: Tensor) -> Tensor:
        """The codes of pictures."""
        return self.encoder(pictures)

    def draw(self, codes: Tensor) -> Tensor:
        """The pictures of codes."""
        return self.generator(codes)

    def imagined(self, z: Tensor, other: Tensor, crossing: Tensor) -> Tensor:
        """Codes of noise z [N, D]; from layer `crossing` [N] on of the noise `other`."""
        first, second = (self.generator.spread(w) for w in self.generator.style(torch.cat([z, other])).chunk(2))
        layer = torch.arange(self.generator.codes, device=z.device)
        return torch.where((layer < crossing[:, None])[:, :, None], first, second)


class Averaged(nn.Module):
    """A portrait that learns, and the average of what it was, which is kept.

    The average's parameters want no gradient and lie in checkpoints like any others. `training.averaging`, which came later, would do the same
    in the optimiser's state, under ZeRO-3 and in bf16 too; checkpoints of runs that are not finished hold it here, and could not go on there.
    """

    compilable = False  # the path length asks for second derivatives

    def __init__(self, portrait: Portrait):
        super().__init__()
        self.now = portrait
        self.average = freeze(copy.deepcopy(portrait))
        self.length = nn.Parameter(torch.zeros(1))

    @property
    def usual_length(self) -> Tensor:
        """The path length that is the usual one by now, which is learnt like a weight, only faster."""
        return LENGTH_GAIN * self.length

    @torch.no_grad()
    def follow(self, share: float) -> None:
        """Let the average go the share of the way to what is now."""
        for average, now in zip(self.average.parameters(), self.now.parameters(), strict=True):
            average.lerp_(now.to(average.dtype), share)


class Residual(nn.Module):
    """CELCL: what an emotion adds to a source's codes, by attention of its tokens over a reference's, then two transformer layers.

    Tokens know their layer (as published they do not), and the feed-forward parts are twice as wide as a code (as published: 1).
    """

    def __init__(self, codes: int, style: int, heads: int):
        super().__init__()
        self.place = nn.Parameter(0.1 * torch.randn(codes, style))
        self.norms = nn.ModuleList(nn.LayerNorm(style) for _ in range(3))
        self.attention = nn.MultiheadAttention(style, heads, batch_first=True)
        layer = nn.TransformerEncoderLayer(style, heads, 2 * style, 0.0, F.gelu, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(style, style)
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.bias.zero_()

    def forward(self, source: Tensor, reference: Tensor) -> Tensor:
        """Codes [N, L, D] of both, without the mean code -> the residual [N, L, D]."""
        query, key = (norm(codes) + self.place for norm, codes in zip(self.norms, (source, reference), strict=False))
        crossed, _ = self.attention(query, key, key, need_weights=False)
        return GAIN * self.out(self.norms[2](self.layers(query + crossed)))


def check_size(size: int) -> None:
    """Raise ValueError for a side that a StyleGAN2 cannot draw."""
    if size not in CONFIG_F or size < 16:
        sides = ", ".join(str(side) for side in CONFIG_F if side >= 16)
        raise ValueError(f"data.size is {size}: a StyleGAN2 draws {sides} pixels, give one of them")


def build_portrait(settings: Portraits, size: int) -> Portrait:
    """Generator and encoder for pictures of `size` pixels, fresh."""
    check_size(size)
    return Portrait(size, SIZES[settings.network])


def build_critic(settings: Portraits, size: int) -> Discriminator:
    """The discriminator, fresh; without the deviation over a batch, which would make its word depend on the number of workers."""
    return Discriminator(size, SIZES[settings.network].widths, deviation=False)


def build_residual(settings: Portraits, size: int) -> Residual:
    """The emotion's residual, fresh: it adds nothing."""
    sizes = SIZES[settings.network]
    return Residual(2 * int(math.log2(size)) - 2, sizes.style, sizes.heads)


def pictures_of(frames: Tensor, dtype: torch.dtype) -> Tensor:
    """Frames uint8 [..., 3, S, S] as the networks see them, in [-1, 1]."""
    return frames.to(dtype) / 127.5 - 1
