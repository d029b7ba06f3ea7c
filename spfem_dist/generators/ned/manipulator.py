"""NED's manipulator: windows of expression coefficients of one emotion become windows of another.

A window is [B, T, C]: C coefficients in each of T (10) frames, published 51, the jaw's opening and 50 of the expression. Four networks of the
StarGAN-v2 family (NED, CVPR 2022, section 3.2): a generator under a style vector, a style encoder that reads the style of a
reference window, a mapping network that draws one from noise, and a discriminator with one head for each emotion.
Names of layers are the authors', so that their state_dicts load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.face.model import COEFFICIENTS, JAW
from spfem_dist.nets.iresnet import load_exactly


def _linear_relu(*widths: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return layers


class WindowNetwork(nn.Module):
    """Linear layers for each frame, a bidirectional LSTM over the window, linear layers for each frame: [B, T, I] -> [B, T, O]."""

    def __init__(self, before: tuple[int, ...], hidden: int, after: tuple[int, ...]):
        super().__init__()
        self.seq1 = nn.Sequential(*_linear_relu(*before))
        self.LSTM = nn.LSTM(before[-1], hidden, num_layers=2, batch_first=True, bidirectional=True)
        self.seq2 = nn.Sequential(*_linear_relu(2 * hidden, *after[:-1]), nn.Linear(after[-2], after[-1]))

    def forward(self, window: Tensor) -> Tensor:
        """Frames [B, T, I] -> [B, T, O]."""
        return self.seq2(self.LSTM(self.seq1(window))[0])


class Generator(WindowNetwork):
    """Rewrites a window under a style. The output is absolute, not a change of the input."""

    def __init__(self, style: int = 16, coefficients: int = COEFFICIENTS, width: int = 512):
        super().__init__((coefficients + style, width, width), width, (2 * width, 2 * width, coefficients))

    def forward(self, window: Tensor, style: Tensor) -> Tensor:  # type: ignore[override]
        """Window [B, T, C] and style [B, S] -> window [B, T, C]."""
        return super().forward(torch.cat([window, style[:, None].expand(-1, window.shape[1], -1)], -1))


class StyleEncoder(WindowNetwork):
    """The style of a window, the mean over its frames."""

    def __init__(self, style: int = 16, coefficients: int = COEFFICIENTS, width: int = 128):
        super().__init__((coefficients, 4 * width, 2 * width), width, (width, width // 2, style))

    def forward(self, window: Tensor) -> Tensor:
        """[B, T, C] -> [B, S]."""
        return super().forward(window).mean(1)


class Discriminator(WindowNetwork):
    """How real a window is as one of an emotion: a logit for each emotion, the mean over frames."""

    def __init__(self, emotions: int = len(SEVEN), coefficients: int = COEFFICIENTS, width: int = 128):
        super().__init__((coefficients, 4 * width, 2 * width), width, (width, width // 2, emotions))

    def forward(self, window: Tensor, emotion: Tensor) -> Tensor:  # type: ignore[override]
        """[B, T, C] and emotion indices [B] -> logits [B]."""
        return super().forward(window).mean(1).gather(1, emotion[:, None])[:, 0]


class MappingNetwork(nn.Module):
    """A style for an emotion from noise: layers that all emotions share, then a head for each."""

    def __init__(self, noise: int = 4, style: int = 16, emotions: int = len(SEVEN), width: int = 64):
        super().__init__()
        self.shared = nn.Sequential(*_linear_relu(noise, width, width, width))
        self.unshared = nn.ModuleList(
            nn.Sequential(*_linear_relu(width, width), nn.Linear(width, style)) for _ in range(emotions)
        )

    def forward(self, noise: Tensor, emotion: Tensor) -> Tensor:
        """Noise [B, Z] and emotion indices [B] -> styles [B, S]."""
        shared = self.shared(noise)
        styles = torch.stack([head(shared) for head in self.unshared], 1)
        return styles[torch.arange(len(noise), device=noise.device), emotion]


def load_released(
    network: nn.Module, tensors: Mapping[str, Tensor], origin: str, heads: Sequence[Emotion] = SEVEN
) -> None:
    """Fill one of the four networks from the authors' state_dict.

    heads: emotions in the order of the file's heads: `emotions.SEVEN` for NED's own files, `emotions.ALPHABETICAL` for those that
    CDRL trained on. They are brought into the order of SEVEN, so that index i means one emotion whoever trained. Names may
    bear DataParallel's `module.`.
    Raises ValueError where the order does not name the seven emotions or a tensor does not fit.
    """
    if sorted(heads) != sorted(SEVEN):
        raise ValueError(f"{origin}: heads {', '.join(heads)}; expected an order of {', '.join(SEVEN)}")
    found = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    order = [list(heads).index(emotion) for emotion in SEVEN]
    if isinstance(network, Discriminator):
        last = f"seq2.{len(network.seq2) - 1}"
        found |= {n: found[n][order] for n in (f"{last}.weight", f"{last}.bias") if len(found.get(n, ())) == len(order)}
    elif isinstance(network, MappingNetwork):
        moved = {f"unshared.{ours}.": f"unshared.{theirs}." for ours, theirs in enumerate(order)}
        found = {n: found.get(_renamed(n, moved), t) for n, t in found.items()}
    load_exactly(network, found, origin)


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    return next((new + name.removeprefix(old) for old, new in prefixes.items() if name.startswith(old)), name)


def initialise(network: nn.Module) -> nn.Module:
    """He initialisation of the linear layers, as the authors train from; recurrent layers keep PyTorch's."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return network


def correlation(a: Tensor, b: Tensor, epsilon: float = 0.0) -> Tensor:
    """Pearson correlation over the last axis, [...]. epsilon: added to both variances.

    With 0, as published, a constant row gives NaN; with a small number it gives 0.
    """
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) * torch.rsqrt(a.square().sum(-1) + epsilon) * torch.rsqrt(b.square().sum(-1) + epsilon)


def discriminator_losses(
    discriminator: Discriminator, real: Tensor, own: Tensor, fake: Tensor, target: Tensor
) -> dict[str, Tensor]:
    """Least-squares losses by name: `real` windows [B, T, C] of emotions `own` [B], `fake` ones as emotions `target` [B]."""
    return {
        "real": (discriminator(real, own) - 1).square().mean(),
        "fake": discriminator(fake, target).square().mean(),
    }


def generator_losses(
    generator: Generator,
    encoder: StyleEncoder,
    discriminator: Discriminator,
    window: Tensor,
    style: Tensor,
    target: Tensor,
    epsilon: float = 0.0,
) -> tuple[dict[str, Tensor], Tensor]:
    """The generator's losses by name, and the window it made [B, T, C].

    window: [B, T, C]. style: [B, S] of the target emotion. target: emotion indices [B].
    `mouth` is a similarity (the jaw keeps its rhythm): the total is adversarial + style + cycle - mouth.
    """
    fake = generator(window, style)
    back = generator(fake, encoder(window))
    jaw, jaw_fake, jaw_back = (w[..., JAW] for w in (window, fake, back))
    losses = {
        "adversarial": (discriminator(fake, target) - 1).square().mean(),
        "style": F.l1_loss(encoder(fake), style),
        "cycle": F.l1_loss(back, window),
        "mouth": correlation(jaw, jaw_fake, epsilon).mean() + correlation(jaw_fake, jaw_back, epsilon).mean(),
    }
    return losses, fake
