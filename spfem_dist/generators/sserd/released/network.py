"""SSERD's whole network as published, its losses, and the loading of the authors' files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.emotions import Emotion
from spfem_dist.generators.sserd.released.celcl import CrossAttention, LatentPool, Transformer, contrastive_loss
from spfem_dist.generators.sserd.released.encoder import Encoded, Encoder
from spfem_dist.generators.sserd.released.stylegan_ex import GeneratorEX
from spfem_dist.generators.sserd.stylegan2 import (
    Noise,
    adversarial_loss,
    discriminator_loss,
    gradient_penalty,
)
from spfem_dist.nets.iresnet import load_exactly, read_tensors

#: Side of the pictures that the encoder reads and that losses compare.
SIZE = 256
#: Parameters at 1024 pixels: of all, and of what the second stage trains (fusion, cross-attention, transformer).
PAPER_PARAMETERS, PAPER_TRAINED = 341_257_176, 43_354_377
ADVERSARIAL, RECONSTRUCTION = 0.1, 0.5
PENALTY, PENALTY_EVERY = 1.0, 16


class SSERD(nn.Module):
    """Encoder, emotion residual and generator. size: side of what the generator draws, 1024 as published.

    mean_code: [L, 512], which the authors keep beside the weights.
    """

    mean_code: Tensor

    def __init__(self, size: int = 1024):
        super().__init__()
        self.decoder = GeneratorEX(size)
        self.encoder = Encoder(self.decoder.codes)
        self.cross_attention, self.transformer = CrossAttention(), Transformer()
        self.register_buffer("mean_code", torch.zeros(self.decoder.codes, 512), persistent=False)

    def emotion(self, source: Encoded, reference: Encoded) -> Tensor:
        """The residual [N, L, 512]; the mean code is with the source's tokens alone."""
        crossed = self.cross_attention(source.codes + self.mean_code, reference.codes)
        return self.transformer(crossed.transpose(0, 1))

    def drawn(self, source: Encoded, emotion: Tensor | None = None, noise: Noise = "zero") -> Tensor:
        """Pictures [N, 3, S, S] of the source with an emotion's residual, or as it is."""
        codes = source.codes + self.mean_code
        codes = codes if emotion is None else codes + emotion

        def fuse(x: Tensor, block: int) -> Tensor:
            wanted = None if emotion is None else emotion[:, 2 * block + 1]
            return self.encoder.fusion[block](source.skips[block], x, wanted) if block < len(source.skips) else x

        return self.decoder(codes, noise, source.first, fuse)

    def forward(self, source: Tensor, reference: Tensor | None = None, noise: Noise = "zero") -> Tensor:
        """Pictures [N, 3, 256, 256] of `source` in the manner of `reference`, both [N, 3, 256, 256] in [-1, 1]; of itself without one."""
        encoded = self.encoder(source)
        emotion = None if reference is None else self.emotion(encoded, self.encoder(reference))
        return resized(self.drawn(encoded, emotion, noise))

    def trained(self) -> list[nn.Parameter]:
        """What the second stage trains."""
        parts = (self.encoder.fusion, self.cross_attention, self.transformer)
        return [parameter for part in parts for parameter in part.parameters()]


def resized(pictures: Tensor) -> Tensor:
    """At the side that losses compare."""
    return F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", align_corners=False)


def load_released(network: SSERD, path: str | Path) -> SSERD:
    """Fill the network with a checkpoint of the authors (`state_dict`, `latent_avg`), in eval mode; it is read as tensors alone.

    Raises FileNotFoundError, or ValueError that says which names or shapes differ.
    """
    load_exactly(network, read_tensors(path), str(path))
    mean = torch.load(path, map_location="cpu", weights_only=True).get("latent_avg")
    if not isinstance(mean, Tensor) or mean.shape != network.mean_code.shape:
        raise ValueError(
            f"{path} has no latent_avg of shape {tuple(network.mean_code.shape)}: give a checkpoint of SSERD as its authors save it"
        )
    network.mean_code.copy_(mean)
    return network.eval()


@dataclass(frozen=True)
class Edits:
    """What a step of the second stage made, [N, 3, S, S]: of the source itself (`same`), with the emotion of a reference of its person
    (`own`), of another person (`other`)."""

    same: Tensor
    own: Tensor
    other: Tensor


def inversion_losses(
    discriminator: nn.Module,
    pairs: Sequence[tuple[Tensor, Tensor]],
    codes: Tensor,
    actors: Sequence[str],
    emotions: Sequence[Emotion],
    pool: LatentPool,
) -> dict[str, Tensor]:
    """Of the first stage, without LPIPS and identity, whose weights are not at hand. pairs: (made, wanted): reconstruction, and the edit."""
    return {
        "pixels": torch.stack([F.mse_loss(made, wanted) for made, wanted in pairs]).sum(),
        "adversarial": ADVERSARIAL * adversarial_loss(_judged(discriminator, [made for made, _ in pairs])),
        "contrast": contrastive_loss(codes, actors, emotions, pool),
    }


def hybrid_losses(
    discriminator: nn.Module,
    edits: Edits,
    source: Tensor,
    target: Tensor,
    paired: Tensor,
    codes: Tensor,
    actors: Sequence[str],
    emotions: Sequence[Emotion],
    pool: LatentPool,
) -> dict[str, Tensor]:
    """Of the second stage, without LPIPS and identity. target: [N, 3, S, S], of the items that are `paired` [N]; others have none.

    The reconstruction of the whole batch counts where any item is paired, and not at all where none is.
    """
    each = [(made - target).square().flatten(1).mean(1) for made in (edits.own, edits.other)]
    pixels = (each[0] + each[1])[paired].mean() if paired.any() else source.new_zeros(())
    whole = F.mse_loss(edits.same, source) if paired.any() else source.new_zeros(())
    return {
        "pixels": pixels,
        "reconstruction": RECONSTRUCTION * whole,
        "adversarial": ADVERSARIAL * adversarial_loss(_judged(discriminator, (edits.same, edits.own, edits.other))),
        "contrast": contrastive_loss(codes, actors, emotions, pool),
    }


def _judged(discriminator: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    """Scores of several batches, each judged on its own: the discriminator takes deviations within it."""
    return torch.cat([discriminator(batch) for batch in batches])


def critic_loss(discriminator: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """Of the discriminator in both stages."""
    return ADVERSARIAL * discriminator_loss(discriminator(real), discriminator(made))


def penalty_step(discriminator: nn.Module, real: Tensor) -> Tensor:
    """What every `PENALTY_EVERY`-th step adds for the discriminator."""
    real = real.detach().requires_grad_()
    return PENALTY / 2 * PENALTY_EVERY * gradient_penalty(discriminator(real), real)
