"""The published encoder: an IR-SE-50 trunk, a feature pyramid, one head for each code (pSp's form), and the layers that fuse its maps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.generators.sserd.stylegan2 import EqualLinear

#: Blocks of each stage of the trunk and their channels.
STAGES = ((3, 64), (4, 128), (14, 256), (3, 512))
#: Blocks after which a map is tapped, as (name of the map in the code, block).
TAPS = {"c128": 2, "c1": 6, "c21": 10, "c22": 15, "c2": 20, "c3": 23}
#: Codes of the coarse heads, of the coarse and middle ones.
COARSE, MIDDLE = 3, 7
#: Channels of the skips and of the generator's maps that they are fused into, in the order of the blocks.
SKIPS = ((256, 512), (256, 512), (256, 512), (256, 512), (128, 512), (64, 256), (64, 128))


class SqueezeExcite(nn.Module):
    """Scales channels by what the whole map shows."""

    def __init__(self, width: int, reduction: int = 16):
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(width // reduction, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Bottleneck(nn.Module):
    """A block of the trunk."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.shortcut_layer: nn.Module = (
            nn.MaxPool2d(1, stride)
            if inputs == width
            else nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, width, 3, 1, 1, bias=False),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            SqueezeExcite(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class StyleHead(nn.Module):
    """A code from a map: `halvings` convolutions, the mean, a linear layer."""

    def __init__(self, halvings: int, width: int = 512):
        super().__init__()
        layers = [layer for _ in range(halvings) for layer in (nn.Conv2d(width, width, 3, 2, 1), nn.LeakyReLU())]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).mean((2, 3)))


class AdaptiveNorm(nn.Module):
    """Instance norm, scaled and shifted by a label."""

    def __init__(self, width: int, label: int):
        super().__init__()
        self.style = nn.Linear(label, 2 * width)
        with torch.no_grad():
            self.style.bias.copy_(torch.cat([torch.ones(width), torch.zeros(width)]))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        scale, shift = self.style(label)[:, :, None, None].chunk(2, 1)
        return scale * F.instance_norm(x) + shift


class Fusion(nn.Module):
    """A skip of the encoder added to the generator's map; with an emotion's code, only where its mask lets it."""

    def __init__(self, skip: int, width: int, code: int = 512):
        super().__init__()
        self.transform = nn.Sequential(nn.Conv2d(skip, width, 3, 1, 1), nn.LeakyReLU())
        self.fusion_out = nn.Conv2d(2 * width, width, 3, 1, 1)
        self.linear = nn.Sequential(
            nn.Linear(code, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)
        )
        self.norm = AdaptiveNorm(2 * width, width)
        self.conv = nn.Conv2d(2 * width, 1, 3, 1, 1)
        with torch.no_grad():  # the map itself, and a little noise
            self.fusion_out.weight.mul_(0.01)
            self.fusion_out.weight[:, :width, 1, 1] += torch.eye(width)

    def forward(self, skip: Tensor, x: Tensor, emotion: Tensor | None) -> Tensor:
        added = self.transform(skip)
        if emotion is not None:
            both = torch.cat([x, (x - added).abs()], 1)
            added = added * torch.tanh(F.relu(self.conv(self.norm(both, self.linear(emotion)))))
        return self.fusion_out(torch.cat([x, added], 1))


@dataclass(frozen=True)
class Encoded:
    """Of pictures of side S: codes [N, L, 512] without the mean code; first: the map [N, 512, S / 8, S / 8]; start: [N, 3, ., .], a start of
    the colours that nothing uses; skips: maps for the fusion layers, in their order; fine: the pyramid's finest map."""

    codes: Tensor
    first: Tensor
    start: Tensor
    skips: tuple[Tensor, ...]
    fine: Tensor


class Encoder(nn.Module):
    """The encoder with the fusion layers, whose weights lie with its own. codes: heads, 18 at 1024 pixels."""

    def __init__(self, codes: int = 18):
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        self.body = nn.Sequential()
        for (_, inputs), (count, width) in pairwise(((0, 64), *STAGES)):
            self.body.extend(Bottleneck(inputs if i == 0 else width, width, 2 if i == 0 else 1) for i in range(count))
        halvings = (4 if code < COARSE else 5 if code < MIDDLE else 6 for code in range(codes))
        self.styles = nn.ModuleList(StyleHead(count) for count in halvings)
        self.latlayer1, self.latlayer2 = nn.Conv2d(256, 512, 1), nn.Conv2d(128, 512, 1)
        self.featlayer, self.skiplayer = nn.Conv2d(768, 512, 1), nn.Conv2d(768, 3, 1)
        self.fusion = nn.ModuleList(Fusion(*widths) for widths in SKIPS)

    def forward(self, pictures: Tensor) -> Encoded:
        """[N, 3, S, S] in [-1, 1], S 256 as published -> what the generator wants of them."""
        x = whole = self.input_layer(pictures)
        taps = {block: name for name, block in TAPS.items()}
        seen: dict[str, Tensor] = {}
        for number, block in enumerate(self.body):
            x = block(x)
            if number in taps:
                seen[taps[number]] = x
        coarse = seen["c3"]
        middle = _added(coarse, self.latlayer1(seen["c2"]))
        fine = _added(middle, self.latlayer2(seen["c1"]))
        codes = [
            head(coarse if code < COARSE else middle if code < MIDDLE else fine)
            for code, head in enumerate(self.styles)
        ]
        joined = torch.cat([seen["c21"], seen["c22"], seen["c2"]], 1)
        skips = (*(seen[name] for name in ("c2", "c2", "c22", "c21", "c1", "c128")), whole)
        return Encoded(torch.stack(codes, 1), self.featlayer(joined), self.skiplayer(joined), skips, fine)


def _added(small: Tensor, large: Tensor) -> Tensor:
    """Both, at the larger one's side."""
    return F.interpolate(small, large.shape[2:], mode="bilinear", align_corners=True) + large
