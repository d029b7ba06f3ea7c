"""NED's networks in their clean form: sizes from settings, one manipulator of three parts, a renderer that keeps the person.

What differs from the published form (manipulator.py, renderer.py) and why is in docs/generators.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.generators.face.maps import MAPS
from spfem_dist.generators.ned.faces import count_of
from spfem_dist.generators.ned.manipulator import Discriminator, MappingNetwork, StyleEncoder, initialise
from spfem_dist.generators.ned.manipulator import Generator as WindowGenerator
from spfem_dist.generators.ned.settings import Manipulation, Settings
from spfem_dist.nets.recompute import Recomputing

#: Channels of the source: its surroundings 3, its face moved to the new shape and expression 3, how far each pixel moved 2.
SOURCE_CHANNELS = 8
#: Numbers of noise behind a style drawn for an emotion.
NOISE = 4
#: Numbers of a style.
STYLE = 16


@dataclass(frozen=True)
class Sizes:
    """Widths of the networks. halvings: how often the renderer halves the picture."""

    manipulator: int
    critic: int
    renderer: int
    halvings: int
    blocks: int


SIZES: dict[Literal["small", "paper"], Sizes] = {
    "small": Sizes(manipulator=64, critic=16, renderer=16, halvings=2, blocks=2),
    "paper": Sizes(manipulator=512, critic=128, renderer=64, halvings=3, blocks=9),
}


class Manipulator(nn.Module):
    """Generator, style encoder and mapping network of windows.

    residual: it adds to the source's window, and begins as a copy of it; else it makes the window anew, as published. Styles have unit spread, so that the generator cannot overlook them. What a style adds whatever is said (`output_bias`), and what a
    window's mean says of its style (`style_skip`), have short ways past the recurrent layers, which begin by damping everything tenfold.
    """

    def __init__(self, sizes: Sizes, coefficients: int, residual: bool = True):
        super().__init__()
        self.residual = residual
        self.generator = initialise(WindowGenerator(STYLE, coefficients, width=sizes.manipulator))
        self.encoder = initialise(StyleEncoder(STYLE, coefficients, width=sizes.critic))
        self.mapping = initialise(MappingNetwork(NOISE, STYLE))
        self.output_bias = nn.Linear(STYLE, coefficients)
        self.style_skip = nn.Linear(coefficients, STYLE)
        last = self.generator.seq2[-1]
        assert isinstance(last, nn.Linear)
        for layer in (last, self.output_bias) if residual else (self.output_bias,):  # what is learnt is the edit
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, window: Tensor, style: Tensor) -> Tensor:
        """Window [B, T, C] and style [B, S] -> the edited window [B, T, C]."""
        made = self.generator(window, style) + self.output_bias(style)[:, None]
        return window + made if self.residual else made

    def style_of(self, window: Tensor) -> Tensor:
        """The style [B, S] of windows [B, T, C]."""
        return _spread(self.encoder(window) + self.style_skip(window.mean(1)))

    def style_for(self, emotion: Tensor, noise: Tensor) -> Tensor:
        """A style [B, S] for emotions int64 [B] (index into SEVEN) and noise [B, 4]."""
        return _spread(self.mapping(noise, emotion))


def _spread(style: Tensor) -> Tensor:
    return F.layer_norm(style, style.shape[-1:])


class Renderer(Recomputing):
    """Maps of the wanted face and what the source shows become a picture: the moved and textured source, and paint over it.

    Two encoders, summed as in the published renderer; skips, since it serves people that it was not trained on. The paint is
    added: a gate between source and paint closes early and is not seen to open again. Where the landmarks err, so does the
    moved source: nothing of the source's own mouth can be copied past them.
    """

    def __init__(self, sizes: Sizes):
        super().__init__()
        widths = [sizes.renderer * 2**k for k in range(sizes.halvings + 1)]
        self.geometry_encoder, self.source_encoder = (
            _encoder(channels, widths) for channels in (MAPS, SOURCE_CHANNELS)
        )
        self.norms = nn.ModuleList(_norm(width) for width in widths[1:])
        self.blocks = nn.Sequential(*(_Block(widths[-1]) for _ in range(sizes.blocks)))
        pairs = list(zip(widths[::-1][:-1], widths[::-1][1:], strict=True))
        self.ups = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.up_norms = nn.ModuleList(_norm(b) for _, b in pairs)
        self.paint = nn.Conv2d(widths[0], 3, 3, padding=1)
        with torch.no_grad():  # begins with the moved source, nearly
            self.paint.weight.mul_(0.1)
            self.paint.bias.zero_()  # type: ignore[union-attr]

    def forward(self, maps: Tensor, source: Tensor) -> Tensor:
        """Maps [N, 10, S, S] and the source [N, 8, S, S] -> a picture [N, 3, S, S] in [-1, 1]."""
        maps, source = (x.contiguous(memory_format=torch.channels_last) for x in (maps, source))
        moved = source[:, 3:6]
        skips = [self.kept(self._first, maps, source)]
        for level in range(1, len(self.norms) + 1):
            skips.append(self.kept(partial(self._down, level), skips[-1]))
        x = skips.pop()
        for block in self.blocks:
            x = self.kept(block, x)
        for level in range(len(self.ups)):
            x = self.kept(partial(self._up, level), x, skips.pop())
        return (moved + self.paint(x).tanh()).clamp(-1, 1)

    def _first(self, maps: Tensor, source: Tensor) -> Tensor:
        return F.silu(self.geometry_encoder[0](maps) + self.source_encoder[0](source))

    def _down(self, level: int, x: Tensor) -> Tensor:
        return F.silu(self.norms[level - 1](self.geometry_encoder[level](x) + self.source_encoder[level](x)))

    def _up(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        return F.silu(self.up_norms[level](self.ups[level](F.interpolate(x, scale_factor=2.0)))) + skip


class _Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norm = _norm(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.norm(self.first(F.silu(x)))))


def _encoder(channels: int, widths: list[int]) -> nn.ModuleList:
    first = nn.Conv2d(channels, widths[0], 3, padding=1)
    return nn.ModuleList([first, *(nn.Conv2d(a, b, 4, 2, 1) for a, b in itertools.pairwise(widths))])


def _norm(width: int) -> nn.GroupNorm:
    """Group norm: knows no other sample, so that sharing a batch between workers changes nothing."""
    return nn.GroupNorm(8, width)


def build_networks(settings: Manipulation) -> dict[str, nn.Module]:
    """The networks of one job of stage 2 by name; each becomes an engine of its own."""
    sizes, count = SIZES[settings.network], count_of(settings)
    networks: dict[str, nn.Module] = {
        "manipulator_critic": initialise(Discriminator(coefficients=count, width=sizes.critic)),
        "manipulator": Manipulator(sizes, count, residual=settings.regime == "residual"),
    }
    if isinstance(settings, Settings) and settings.renderer == "residual":
        networks["renderer"] = Renderer(sizes)
    return networks
