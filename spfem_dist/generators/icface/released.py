"""ICface as published: what the authors' code computes, its defects included.

ICface (Tripathy, Kannala, Rahtu, WACV 2020), "Interpretable and Controllable Face Reenactment Using GANs"; facts about the code, in our own
words:

* A neutraliser takes expression and pose out of a picture, an animator puts those of another frame in. Both are one kind of network; 20
  numbers (three of pose, 17 intensities of action units as OpenFace gives them) reach it as constant planes behind the colours.
* Pose is scaled in two ways: v + .5 in the file that trained, (v + .7) / 1.4 in the one that tests (`POSE`).
* The neutral condition is the frame's own, divided by so large a number that it is 0, its pose .5; the target that the discriminator's head
  is held to is 0 for the pose too.
* The identity head ends in a softmax and its cross-entropy takes another: the loss stays near the logarithm of the number of people.
* The error of the units, a mean already, is divided by the batch once more.
* The animator's loss reaches the neutraliser, whose gradient is thrown away; each has an optimiser of its own, in the order
  discriminator, animator, neutraliser.
* In the published test the neutral picture passes no gradient, in training it does.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.nets.iresnet import load_exactly, read_tensors

#: Numbers of a condition: pose_Rx, Ry, Rz (radians), then the intensities (0..5) of AU01 02 04 05 06 07 09 10 12 14 15 17 20 23 25 26 45.
POSE_NUMBERS, CONDITION = 3, 20
#: How the pose is brought to about 0..1, as (offset, scale) of (v + offset) / scale: where it is tested, and where it was trained.
POSE = {"test": (0.7, 1.4), "training": (0.5, 1.0)}
#: What a condition is divided by to be neutral: where it is tested, and where it was trained; and the target of the units' head.
NEUTRAL, NEUTRAL_TARGET = {"test": 1e5, "training": 1e8}, 1e6
#: People of the published discriminator (VoxCeleb), side of its pictures, pixels.
PEOPLE, SIZE = 939, 128
#: Parameters at the published widths: of each generator, of the discriminator.
PAPER_GENERATOR, PAPER_DISCRIMINATOR = 31_438_595, 85_135_680
WEIGHT, GRADIENT_PENALTY = 10.0, 0.05


def condition(raw: Tensor, where: str = "test") -> Tensor:
    """OpenFace's numbers [N, 20] (radians, then intensities 0..5) as a condition [N, 20]. where: `test` or `training`."""
    offset, scale = POSE[where]
    return torch.cat([(raw[:, :POSE_NUMBERS] + offset) / scale, raw[:, POSE_NUMBERS:] / 5], 1)


def neutral(wanted: Tensor, where: str = "test") -> Tensor:
    """The neutral condition [N, 20] of a frame with the condition `wanted`."""
    none = wanted / NEUTRAL[where]
    return torch.cat([torch.full_like(none[:, :POSE_NUMBERS], 0.5), none[:, POSE_NUMBERS:]], 1)


class _Block(nn.Module):
    """conv_block, with its dropout: the names of the second half depend on its being there."""

    def __init__(self, width: int, dropout: bool):
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=False), nn.BatchNorm2d(width)]
        second = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=False), nn.BatchNorm2d(width)]
        self.conv_block = nn.Sequential(*half, nn.ReLU(), *([nn.Dropout(0.5)] if dropout else []), *second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class Generator(nn.Module):
    """Neutraliser or animator: pictures and a condition become pictures."""

    def __init__(self, width: int = 128, blocks: int = 6, conditions: int = CONDITION, dropout: bool = True):
        super().__init__()

        def halved(inputs: int) -> list[nn.Module]:
            outputs = 2 * inputs
            return [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

        def doubled(inputs: int) -> list[nn.Module]:
            outputs = inputs // 2
            up = nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1, bias=False)
            return [up, nn.BatchNorm2d(outputs), nn.ReLU()]

        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(3 + conditions, width, 7, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *halved(width),
            *halved(2 * width),
            *(_Block(4 * width, dropout) for _ in range(blocks)),
            *doubled(4 * width),
            *doubled(2 * width),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, 3, 7),
            nn.Tanh(),
        )

    def forward(self, pictures: Tensor, wanted: Tensor) -> Tensor:
        """[N, 3, S, S] in [-1, 1] and conditions [N, 20] -> [N, 3, S, S] in [-1, 1]; S a multiple of 4."""
        planes = wanted[:, :, None, None].expand(-1, -1, *pictures.shape[2:])
        return self.model(torch.cat([pictures, planes], 1))


class Discriminator(nn.Module):
    """How real a picture of 128 pixels is, which condition it shows, and who it is."""

    def __init__(self, width: int = 256, people: int = PEOPLE):
        super().__init__()

        def conv(inputs: int, outputs: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)

        self.model = nn.Sequential(
            *(conv(3, width, bias=True), conv(width, width, 2, bias=True), nn.ReLU()),
            *(conv(width, 2 * width), conv(2 * width, 2 * width, 2), nn.ReLU()),
            *(conv(2 * width, 4 * width), conv(4 * width, 4 * width, 2), nn.ReLU()),
            *(conv(4 * width, 8 * width), nn.ReLU()),
            *(conv(8 * width, 8 * width, bias=True), conv(8 * width, 128, 2, bias=True)),
        )
        self.conv1 = nn.Conv2d(128, 1, 4, 1, 1)
        self.conv2 = nn.Linear(128 * 8 * 8, CONDITION)
        self.aux_layer = nn.Sequential(nn.Linear(128 * 8 * 8, people), nn.Softmax(1))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, 3, 128, 128] -> scores [N, 1, 7, 7], conditions [N, 20] in 0..1, shares of the people [N, P]."""
        x = self.model(pictures)
        flat = x.flatten(1)
        return self.conv1(x), torch.sigmoid(self.conv2(flat)), self.aux_layer(flat)


def load_released(network: Generator, path: str | Path) -> Generator:
    """Fill a neutraliser (`latest_net_GN.pth`) or an animator (`latest_net_G.pth`) with the authors' weights, in eval mode.

    The file holds `state_dict` and `optimizer`, names have DataParallel's `module.`; it is read as tensors alone.
    Raises FileNotFoundError, or ValueError that says which names or shapes differ.
    """
    load_exactly(network, read_tensors(path), str(path))
    return network.eval()


def _towards(score: Tensor, target: float) -> Tensor:
    return (score - target).square().mean()


def _identity(shares: Tensor, who: Tensor) -> Tensor:
    """Cross-entropy that takes a softmax of shares, as published."""
    return WEIGHT * F.cross_entropy(shares, who)


def _units(found: Tensor, wanted: Tensor) -> Tensor:
    return WEIGHT * F.l1_loss(found, wanted) / len(found)


def discriminator_losses(
    discriminator: Discriminator, real: Tensor, shown: Tensor, who: Tensor, animated: Tensor, calm: Tensor
) -> dict[str, Tensor]:
    """Losses by name of `real` frames [N, 3, 128, 128] with conditions `shown` and people `who`, and of what was made of them."""
    real = real.detach().requires_grad_()
    score, found, shares = discriminator(real)
    (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
    return {
        "real": _towards(score, 1),
        "identity": _identity(shares, who),
        "units": _units(found, shown),
        "gradient": GRADIENT_PENALTY * slope.square().sum((1, 2, 3)).mean(),
        "animated": _towards(discriminator(animated.detach())[0], 0),
        "neutral": _towards(discriminator(calm.detach())[0], 0),
    }


def animator_losses(
    discriminator: Discriminator, animated: Tensor, frame: Tensor, wanted: Tensor, who: Tensor
) -> dict[str, Tensor]:
    """Losses by name of `animated` pictures, which shall be the driving `frame` with the condition `wanted`."""
    score, found, shares = discriminator(animated)
    return {
        "adversarial": _towards(score, 1),
        "reconstruction": WEIGHT * F.l1_loss(animated, frame),
        "units": _units(found, wanted),
        "identity": _identity(shares, who),
    }


def neutraliser_losses(
    discriminator: Discriminator,
    animator: Generator,
    calm: Tensor,
    shown: Tensor,
    frame: Tensor,
    wanted: Tensor,
    who: Tensor,
) -> dict[str, Tensor]:
    """Losses by name of neutral pictures `calm` of frames with conditions `shown`; without the distance in VGG-19's layers.

    frame, wanted: the driving frame, and its condition.
    """
    score, found, shares = discriminator(calm)
    kept = animator(calm, neutral(shown, "training")).detach()
    return {
        "adversarial": _towards(score, 1),
        "units": _units(found, shown / NEUTRAL_TARGET),
        "keeps_neutral": WEIGHT * F.l1_loss(calm, kept),
        "cycle": WEIGHT * F.l1_loss(animator(calm, wanted), frame),
        "identity": _identity(shares, who),
    }
