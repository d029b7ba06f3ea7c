"""ICface's networks in their clean form: sizes from settings, group norm, the condition in every block, flow and paint.

What differs from the published form (released.py) and why is in docs/generators.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.generators.face.maps import grid_of, warped
from spfem_dist.generators.face.texture import lit
from spfem_dist.generators.icface.faces import count_of
from spfem_dist.generators.icface.settings import Reenactment
from spfem_dist.generators.icface.units import CONDITION, POSE

#: Side of the discriminator's last map, pixels.
LAST = 8
#: How far one network moves a pixel at most, as a share of the picture's side.
FARTHEST = 0.1
#: Factor behind the last layers, which begin at nothing: a step of Adam would else paint the whole face over.
GAIN = 0.2


@dataclass(frozen=True)
class Sizes:
    """Widths of the networks. blocks: residual blocks of each generator."""

    generator: int
    critic: int
    blocks: int


SIZES: dict[Literal["small", "paper"], Sizes] = {
    "small": Sizes(generator=16, critic=16, blocks=3),
    "paper": Sizes(generator=128, critic=256, blocks=6),
}


@dataclass(frozen=True)
class Known:
    """How units are known to change a picture, in single precision or better.

    Flows [N, S, S, 2] as `FaceMaps.flow` has them. calm: from the face without expression to the picture. between: from the wanted face to
    the one without expression. whole: from the wanted face to the picture. calm_light, light: log light [N, 3, S, S] that is drawn on the
    face without expression, and on the wanted one.
    """

    calm: Tensor
    between: Tensor
    whole: Tensor
    calm_light: Tensor
    light: Tensor

    def joined(self, other: Known) -> Known:
        """Both, one after the other."""
        return Known(*(torch.cat([getattr(one, f.name) for one in (self, other)]) for f in fields(self)))


class _Block(nn.Module):
    """Residual; the condition scales and shifts what is normalised."""

    def __init__(self, width: int, conditions: int):
        super().__init__()
        self.norms = nn.ModuleList(_norm(width) for _ in range(2))
        self.told = nn.ModuleList(nn.Linear(conditions, 2 * width) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, wanted: Tensor) -> Tensor:
        kept = x
        for norm, told, convolution in zip(self.norms, self.told, self.convolutions, strict=True):
            gain, shift = told(wanted)[:, :, None, None].chunk(2, 1)
            x = convolution(F.silu(norm(x) * (1 + gain) + shift))
        return kept + x


class PictureNetwork(nn.Module):
    """Neutraliser or animator: how pictures move and what is painted on them, as a condition asks. Begins with nothing of both.

    Flow is made at half the resolution, so that it is smooth.
    """

    def __init__(self, width: int, blocks: int, conditions: int = CONDITION):
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        pairs = list(itertools.pairwise(widths))
        self.first = nn.Conv2d(3, width, 7, padding=3)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairs)
        self.down_norms = nn.ModuleList(_norm(w) for w in widths)
        self.blocks = nn.ModuleList(_Block(widths[-1], conditions) for _ in range(blocks))
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in pairs[::-1])
        self.up_norms = nn.ModuleList(_norm(a) for a, _ in pairs[::-1])
        self.told = nn.ModuleList(nn.Linear(conditions, 2 * a) for a, _ in pairs[::-1])
        self.flow = nn.Conv2d(2 * width, 2, 3, padding=1)
        self.paint = nn.Conv2d(width, 3, 3, padding=1)
        with torch.no_grad():
            for layer in (self.flow, self.paint):
                layer.weight.zero_()
                layer.bias.zero_()  # type: ignore[union-attr]

    def forward(self, pictures: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 3, S, S] in [-1, 1] and conditions [N, C] -> flow [N, 2, S, S] in shares of the side, paint [N, 3, S, S]; S a multiple of 4."""
        x = F.silu(self.down_norms[0](self.first(pictures.contiguous(memory_format=torch.channels_last))))
        skips = [x]
        for down, norm in zip(self.downs, self.down_norms[1:], strict=True):
            skips.append(F.silu(norm(down(skips[-1]))))
        x, levels = skips.pop(), []
        for block in self.blocks:
            x = block(x, wanted)
        for up, norm, told in zip(self.ups, self.up_norms, self.told, strict=True):
            gain, shift = told(wanted)[:, :, None, None].chunk(2, 1)
            x = _doubled(F.silu(norm(up(x)) * (1 + gain) + shift)) + skips.pop()
            levels.append(x)
        flow, paint = GAIN * self.flow(levels[0]), GAIN * self.paint(levels[1])
        return _doubled(FARTHEST * torch.tanh(flow)), 2 * torch.tanh(paint)


class Reenactor(nn.Module):
    """Both generators. Each is shown its picture as units are known to change it, and moves and paints what is lacking.

    What one moves and the other moves further is looked up once in the picture, so that it stays sharp.
    """

    def __init__(self, sizes: Sizes, conditions: int = CONDITION):
        super().__init__()
        self.neutraliser, self.animator = (PictureNetwork(sizes.generator, sizes.blocks, conditions) for _ in range(2))

    def forward(self, pictures: Tensor, shown: Tensor, wanted: Tensor, known: Known) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures [N, 3, S, S] with conditions `shown` [N, C] -> the same with conditions `wanted` [N, C], and without expression.

        The third result is the flow of the first, [N, S, S, 2], as `generators.rendered.Rendered` has it.
        """
        dtype, calm, between, whole = pictures.dtype, known.calm, known.between, known.whole
        picture = pictures.to(whole.dtype)

        def asked(network: nn.Module, seen: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
            flow, paint = network(seen.to(dtype), condition)
            return flow.to(whole.dtype).permute(0, 2, 3, 1), paint.to(whole.dtype)

        def drawn(flow: Tensor, light: Tensor) -> Tensor:
            return lit(warped(picture, grid_of(flow)), light)

        calm_flow, calm_paint = asked(self.neutraliser, drawn(calm, known.calm_light), neutral(shown))
        plain = drawn(calm + calm_flow, known.calm_light) + calm_paint
        before = torch.cat([calm_flow.permute(0, 3, 1, 2), calm_paint], 1)
        left = warped(before, grid_of(between))
        seen = drawn(whole + left[:, :2].permute(0, 2, 3, 1), known.light) + left[:, 2:]
        flow, paint = asked(self.animator, seen, wanted)
        left = warped(before, grid_of(between + flow))
        whole = whole + flow + left[:, :2].permute(0, 2, 3, 1)
        made = drawn(whole, known.light) + left[:, 2:] + paint
        return made.to(dtype), plain.to(dtype), whole


class Critic(nn.Module):
    """How real a picture is, which condition it shows, and which speaker of the training part."""

    compilable = False  # its slope is differentiated again

    def __init__(self, width: int, size: int, people: int, conditions: int = CONDITION):
        super().__init__()
        widths = [3, *(min(width * 2**k, 8 * width) for k in range(1, halvings(size) + 1))]
        layers = ((nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2)) for a, b in itertools.pairwise(widths))
        self.layers = nn.Sequential(*(layer for pair in layers for layer in pair))
        self.score = nn.Conv2d(widths[-1], 1, 4, 1, 1)
        self.units = nn.Linear(widths[-1] * LAST * LAST, conditions)
        self.people = nn.Linear(widths[-1] * LAST * LAST, people)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, 3, S, S] -> scores [N, 1, 7, 7], conditions [N, C], logits of the people [N, P]."""
        x = self.layers(pictures)
        flat = x.flatten(1)
        return self.score(x), self.units(flat), self.people(flat)


def neutral(shown: Tensor) -> Tensor:
    """Conditions [N, C] without expression: the pose stays."""
    return torch.cat([torch.zeros_like(shown[:, :-POSE]), shown[:, -POSE:]], 1)


def halvings(size: int) -> int:
    """How often the discriminator halves pictures of that side; ValueError for a side that does not come to its last map."""
    found = max(size // LAST, 1).bit_length() - 1
    if size != LAST * 2**found or found < 1:
        raise ValueError(f"data.size is {size}: this generator's discriminator wants 16, 32, 64, 128 or 256 pixels")
    return found


def build_networks(settings: Reenactment, size: int, people: int) -> dict[str, nn.Module]:
    """The networks of one job by name; each becomes an engine of its own. size: of the pictures. people: training speakers."""
    sizes, conditions = SIZES[settings.network], count_of(settings) + POSE
    return {"reenactor": Reenactor(sizes, conditions), "critic": Critic(sizes.critic, size, people, conditions)}


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _norm(width: int) -> nn.GroupNorm:
    """Group norm: knows no other sample, so that sharing a batch between workers changes nothing."""
    return nn.GroupNorm(8, width)
