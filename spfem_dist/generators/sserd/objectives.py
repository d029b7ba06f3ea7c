"""What SSERD's residual learns in the clean form: losses by name, every one a mean over the samples of the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.generators.sserd.networks import Portrait
from spfem_dist.generators.sserd.pairs import Prepared, picture_errors
from spfem_dist.generators.sserd.settings import Portraits, Settings
from spfem_dist.generators.sserd.stylegan2 import adversarial_loss, discriminator_loss, gradient_penalty


def asked(network: nn.Module, *given: Tensor) -> Tensor:
    """What a network says, computed in its own precision and given back in that of what it was given."""
    dtype = next(network.parameters()).dtype
    return network(*(tensor.to(dtype) for tensor in given)).to(given[0].dtype)


def drawn(residual: nn.Module, portrait: Portrait, prepared: Prepared) -> dict[str, Tensor]:
    """What is made of a batch: pictures [B * F, 3, S, S] of the source with the emotion of its own frame (`same`), of the reference (`own`),
    of another person (`other`); `residuals` [2 * B * F, L, D] of the last two."""
    count = len(prepared.codes) // len(prepared.own)
    references = torch.cat([getattr(prepared, name).repeat_interleave(count, 0) for name in ("same", "own", "other")])
    sources = prepared.codes.repeat(3, 1, 1)
    added = asked(residual, sources, references)
    same, own, other = portrait.draw(sources + added).chunk(3)
    return {"same": same, "own": own, "other": other, "residuals": added[len(prepared.codes) :]}


def residual_losses(
    settings: Settings, critic: nn.Module, prepared: Prepared, found: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Of the residual. found: see `drawn`.

    Pairs count by their usual share, so that a batch's own share of them changes nothing.
    """
    squared, absolute = (
        torch.stack(each).sum(0)
        for each in zip(
            *(picture_errors(found[name], prepared.target, prepared.weights) for name in ("own", "other")), strict=True
        )
    )
    paired = prepared.paired / max(settings.paired_share, 1e-6)
    kept, _ = picture_errors(found["same"], prepared.source, prepared.weights)
    made = torch.cat([found["own"], found["other"]])
    return {
        "sserd/pair_squared": settings.picture_weight * (paired * squared).mean(),
        "sserd/pair_absolute": settings.absolute_weight * (paired * absolute).mean(),
        "sserd/kept": settings.kept_weight * kept.mean(),
        "sserd/adversarial": settings.adversarial_weight * adversarial_loss(asked(critic, made)),
        "sserd/contrast": settings.contrast_weight * contrast(prepared, found["residuals"], settings.temperature),
    }


def contrast(prepared: Prepared, residuals: Tensor, temperature: float) -> Tensor:
    """InfoNCE of residuals [2 * B * F, L, D] with one key of each emotion, the wanted one first: cosines of tokens, mean over tokens."""
    keys = prepared.keys.repeat_interleave(len(prepared.codes) // len(prepared.own), 0).repeat(2, 1, 1, 1)
    meets = prepared.meets.repeat_interleave(len(residuals) // (2 * len(prepared.meets)), 0).repeat(2)
    scores = F.cosine_similarity(residuals[:, None], keys, dim=-1).mean(-1) / temperature
    each = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device), reduction="none")
    return (each * meets).mean()


def critic_losses(critic: nn.Module, prepared: Prepared) -> dict[str, Tensor]:
    """Of the discriminator: frames of the reference against edits."""
    real, made = asked(critic, prepared.reference), asked(critic, torch.cat(prepared.made))
    return {"sserd/critic": discriminator_loss(real, made)}


def penalty(settings: Portraits, critic: nn.Module, real: Tensor) -> dict[str, Tensor]:
    """R1 at real pictures, as heavy as if it came each step."""
    real = real.detach().requires_grad_()
    slope = gradient_penalty(asked(critic, real), real)
    return {"sserd/gradient": settings.gradient_penalty / 2 * settings.penalty_every * slope + 0 * of_all(critic)}


def of_all(network: nn.Module) -> Tensor:
    """The sum of all parameters that want gradients: of those that a loss does not reach the gradient is then 0 and not missing."""
    return torch.stack([p.sum() for p in network.parameters() if p.requires_grad]).sum()
