"""What each network of ICface learns in the clean form: losses by name, every one a mean over the samples of the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.generators.face.light import LIGHT, slow
from spfem_dist.generators.icface.networks import neutral
from spfem_dist.generators.icface.pairs import Prepared, composed
from spfem_dist.generators.icface.settings import Reenactment


def drawn(reenactor: nn.Module, prepared: Prepared, edits: bool) -> dict[str, Tensor]:
    """What both generators make of a batch, within the face, the picture itself around it.

    made: [B, 3, S, S], pictures under the driving frames' conditions; plain: without expression. edits: with edited [B * F, 3, S, S], the
    source frames under their edits' conditions, and calm, those without expression.
    """
    found = _composed(reenactor, prepared, edits)
    n = len(prepared.picture)
    made = {"made": found[0][:n], "plain": found[1][:n]}
    return made | ({"edited": found[0][n:], "calm": found[1][n:]} if edits else {})


def _composed(reenactor: nn.Module, prepared: Prepared, edits: bool) -> tuple[Tensor, Tensor]:
    pictures, shown, wanted, soft = prepared.picture, prepared.shown, prepared.wanted, prepared.soft
    known = prepared.known
    if edits:  # one call for both: half the overhead of small layers
        pictures, soft = torch.cat([pictures, prepared.to_edit]), torch.cat([soft, prepared.edit_soft])
        shown, wanted = torch.cat([shown, prepared.own]), torch.cat([wanted, prepared.edit])
        known = known.joined(prepared.edit_known)
    made, plain, _ = reenactor(pictures, shown, wanted, known)
    return composed(made, pictures, soft), composed(plain, pictures, soft)


def reconstruction_errors(prepared: Prepared, made: Tensor) -> tuple[Tensor, Tensor]:
    """How far pictures [B, 3, S, S] are from their driving frames, absolute and squared: means over the face, eyes and mouth counting more.

    Across recordings mostly without the slow part, which another light explains.
    """
    error = made - prepared.driving
    error = error - LIGHT * prepared.across[:, None, None, None] * slow(error, prepared.soft)
    whole = prepared.weight[:, 0].sum((1, 2)).clamp(min=1e-6)

    def mean(each: Tensor) -> Tensor:
        return ((each * prepared.weight).mean(1).sum((1, 2)) / whole).mean()

    return mean(error.abs()), mean(error.square())


def reenactor_losses(
    settings: Reenactment, critic: nn.Module, prepared: Prepared, found: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Of neutraliser and animator: the distance to the driving frame, and the discriminator's word on all that they make.

    found: see `drawn`.
    """
    absolute, squared = reconstruction_errors(prepared, found["made"])
    pictures, wanted = [found["made"], found["plain"]], [prepared.wanted, neutral(prepared.shown)]
    people = [prepared.person] * 2
    if "edited" in found:
        frames = len(prepared.edit) // len(prepared.picture)
        pictures.append(found["edited"])
        wanted.append(prepared.edit)
        people.append(prepared.person.repeat_interleave(frames))
    score, units, who = critic(torch.cat(pictures))
    return {
        "icface/picture": settings.picture_weight * absolute,
        "icface/squared": settings.squared_weight * squared,
        "icface/adversarial": settings.adversarial_weight * (score - 1).square().mean(),
        "icface/units": settings.units_weight * F.l1_loss(units, torch.cat(wanted)),
        "icface/identity": settings.identity_weight * F.cross_entropy(who, torch.cat(people)),
    }


def critic_losses(
    settings: Reenactment, critic: nn.Module, prepared: Prepared, made: list[Tensor]
) -> dict[str, Tensor]:
    """Of the discriminator: real frames with their units and speakers, against what was made of them."""
    real = prepared.picture.detach().requires_grad_()
    score, units, who = critic(real)
    fake, _, _ = critic(torch.cat(made))
    losses = {
        "icface/real": (score - 1).square().mean(),
        "icface/made": fake.square().mean(),
        "icface/real_units": F.l1_loss(units, prepared.shown),
        "icface/real_identity": F.cross_entropy(who, prepared.person),
    }
    if settings.gradient_penalty:
        (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
        losses["icface/gradient"] = settings.gradient_penalty * slope.square().sum((1, 2, 3)).mean()
    return losses
