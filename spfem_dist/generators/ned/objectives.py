"""What each network of NED learns in the clean form: losses by name, every one a mean over the samples of the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.generators.ned.manipulator import JAW, correlation
from spfem_dist.generators.ned.networks import Manipulator
from spfem_dist.generators.ned.renderer import feature_matching
from spfem_dist.generators.ned.settings import Settings
from spfem_dist.generators.ned.windows import MATCHED, REFERENCE, SOURCE, Prepared, Scene, slow
from spfem_dist.nets.vgg import VGG19
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.stage import called

#: Added to variances, so that a jaw that does not move has no correlation instead of none that is a number.
EPSILON = 1e-6
#: How much more an error within eyes and mouth counts than one elsewhere in the face.
FEATURES = 2.0


def edited_windows(manipulator: Manipulator | nn.Module, prepared: Prepared) -> tuple[Tensor, Tensor]:
    """Edited source windows [B, T, 51] and the styles [B, S] behind them."""
    read = called(manipulator, "style_of", prepared.windows[:, REFERENCE])
    drawn = called(manipulator, "style_for", prepared.target, prepared.noise)
    style = torch.where(prepared.by_reference[:, None], read, drawn)
    return manipulator(prepared.windows[:, SOURCE], style), style


def manipulator_losses(
    settings: Settings, manipulator: nn.Module, critic: nn.Module, prepared: Prepared, edited: Tensor, style: Tensor
) -> dict[str, Tensor]:
    """NED's losses, and the distance to the same words as the speaker said them in the target emotion.

    The style of an edit is only asked to be found again where it was drawn: read from a reference, encoder and generator
    would agree on a constant.
    """
    source = prepared.windows[:, SOURCE]
    back = manipulator(edited, called(manipulator, "style_of", source))
    read_back = called(manipulator, "style_of", edited)
    drawn = (~prepared.by_reference).to(source.dtype)
    distance = (edited - prepared.windows[:, MATCHED]).abs().mean(-1)
    jaw = edited[..., JAW]
    rhythm = correlation(source[..., JAW], jaw, EPSILON) + correlation(jaw, back[..., JAW], EPSILON)
    return {
        "ned/window_adversarial": settings.window_adversarial_weight
        * F.softplus(-critic(edited, prepared.target)).mean(),
        "ned/pair": settings.pair_weight * (distance * prepared.paired).mean(),
        "ned/style": settings.style_weight * ((read_back - style.detach()).abs().mean(-1) * drawn).mean(),
        "ned/cycle": settings.cycle_weight * F.l1_loss(back, source),
        "ned/mouth": settings.mouth_weight * (2 - rhythm).mean(),
        "ned/jaw": settings.jaw_weight * F.l1_loss(jaw, source[..., JAW]),
    }


def window_critic_losses(
    settings: Settings, critic: nn.Module, prepared: Prepared, edited: Tensor
) -> dict[str, Tensor]:
    """Real windows of their own emotion against edits, and against real windows called by another emotion."""
    real = prepared.windows[:, SOURCE]
    losses = {}
    if settings.r1_weight:
        real = real.detach().requires_grad_()
    scores = critic(real, prepared.emotion)
    if settings.r1_weight:
        losses["ned/window_r1"] = settings.r1_weight * gradient_penalty(scores, real)
    differs = (prepared.emotion != prepared.target).to(real.dtype)
    return losses | {
        "ned/window_real": F.softplus(-scores).mean(),
        "ned/window_edited": F.softplus(critic(edited, prepared.target)).mean(),
        "ned/window_misnamed": (F.softplus(critic(real, prepared.target)) * differs).mean(),
    }


def reconstruction_error(prepared: Prepared, picture: Tensor) -> Tensor:
    """How far redrawn frames are from the real ones: mean over the face, eyes and mouth counting more.

    Across recordings without the slow part, which another light explains.
    """
    scene = prepared.redrawn
    error = picture - prepared.wanted
    error = torch.where(prepared.across[:, None, None, None] > 0, error - slow(error, scene.soft), error)
    features = F.max_pool2d(scene.maps[:, 3:6].sum(1, keepdim=True).clamp(max=1), 5, 1, 2)
    weight = scene.soft * (1 + FEATURES * features)
    each = (error.abs() * weight).mean(1).sum((1, 2)) / weight[:, 0].sum((1, 2)).clamp(min=1e-6)
    return each.mean()


def renderer_losses(
    settings: Settings, critic: nn.Module, prepared: Prepared, picture: Tensor, perceptual: VGG19 | None = None
) -> dict[str, Tensor]:
    """Redraw real frames as they are, and so that they look real."""
    whole = prepared.redrawn.composed(picture, prepared.wanted)
    redrawn = critic(prepared.redrawn.maps, whole)
    losses = {
        "ned/picture": settings.picture_weight * reconstruction_error(prepared, picture),
        "ned/picture_adversarial": settings.picture_adversarial_weight * _looks_real(redrawn),
    }
    if perceptual is not None:
        alike = (1 - prepared.across) * perceptual.distance(whole, prepared.wanted)
        losses["ned/perceptual"] = settings.perceptual_weight * alike.mean()
    if settings.feature_weight:
        with torch.no_grad():
            real = critic(prepared.redrawn.maps, prepared.wanted)
        losses["ned/features"] = settings.feature_weight * feature_matching(real, redrawn)
    return losses


def edit_adversarial(settings: Settings, critic: nn.Module, scene: Scene, edited: Tensor) -> dict[str, Tensor]:
    """Edited frames [B, 3, S, S] look real."""
    return {
        "ned/edit_adversarial": settings.picture_adversarial_weight * _looks_real(critic(scene.maps.detach(), edited))
    }


def edit_tone(settings: Settings, scene: Scene, painted: Tensor) -> dict[str, Tensor]:
    """An emotion draws lines and moves features; it lays no patches of light or colour on a face.

    Without this the renderer paints whatever pleases the emotion prior: bright foreheads, white lids.
    """
    patches = slow(painted - scene.source[:, 3:6], scene.soft) * scene.soft
    share = scene.soft.mean((1, 2, 3)).clamp(
        min=1e-3
    )  # of each sample: a mean over samples is the same for any number of workers
    return {"ned/edit_tone": settings.tone_weight * (patches.abs().mean((1, 2, 3)) / share).mean()}


def picture_critic_losses(
    settings: Settings, critic: nn.Module, prepared: Prepared, picture: Tensor, edit: tuple[Scene, Tensor]
) -> dict[str, Tensor]:
    """Real frames against redrawn and edited ones."""
    scene, edited = edit
    real, losses = prepared.wanted, {}
    if settings.r1_weight:
        real = real.detach().requires_grad_()
    scores = critic(prepared.redrawn.maps, real)
    if settings.r1_weight:
        total = torch.stack([scale[-1].mean((1, 2, 3)) for scale in scores]).sum(0)
        losses["ned/picture_r1"] = settings.r1_weight * gradient_penalty(total, real)
    redrawn = critic(prepared.redrawn.maps, prepared.redrawn.composed(picture, prepared.wanted))
    return losses | {
        "ned/picture_real": _looks_real(scores),
        "ned/picture_redrawn": 0.5 * _looks_drawn(redrawn),
        "ned/picture_edited": 0.5 * _looks_drawn(critic(scene.maps, edited)),
    }


def gradient_penalty(scores: Tensor, real: Tensor) -> Tensor:
    """R1: half the squared gradient of the scores [N] at real samples [N, ...], mean over samples (Mescheder et al. 2018)."""
    (gradient,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    return 0.5 * gradient.square().flatten(1).sum(1).mean()


def edited_frames(prepared: Prepared, generated: Tensor) -> EditedFrames:
    """The generated frames [B, 3, S, S] beside the frames that they were made from, as the priors are shown them."""
    each = torch.arange(len(generated), device=generated.device)
    source, reference = (prepared.frames[each, row, prepared.edited] for row in (SOURCE, REFERENCE))
    return EditedFrames(
        source=source[:, None],
        reference=reference[:, None],
        generated=generated[:, None],
        speech=prepared.speech[each, SOURCE, prepared.edited][:, None],
        source_emotion=prepared.emotion,
        emotion=prepared.target,
    )


def redrawn_frames(prepared: Prepared, picture: Tensor) -> EditedFrames:
    """Frames redrawn from another moment of their recording beside the frames themselves: nothing is edited."""
    wanted = prepared.wanted[:, None]
    return EditedFrames(
        source=wanted,
        reference=wanted,
        generated=prepared.redrawn.composed(picture, prepared.wanted)[:, None],
        speech=prepared.wanted_speech[:, None],
        source_emotion=prepared.emotion,
        emotion=prepared.target,
    )


def measured(
    judged: Callable[[Tensor], Mapping[str, Tensor]], generated: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses `judged` of generated frames, by name, and for each `gradient/NAME` (without the first part of its name): the norm of its gradient there.

    The gradients are taken once, at the frames, and handed on to whatever made them; the sum is the same as without this.
    """
    leaf = generated.detach().requires_grad_()
    losses, norms = {}, {}
    for name, value in judged(leaf).items():
        (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True)
        losses[name] = value.detach() + ((generated - generated.detach()) * gradient).sum()
        norms[f"gradient/{name.split('/', 1)[1]}"] = gradient.flatten(1).norm(dim=1).mean() * len(generated)
    return losses, norms


def _looks_real(scores: list[list[Tensor]]) -> Tensor:
    return torch.stack([(scale[-1] - 1).square().mean() for scale in scores]).sum()


def _looks_drawn(scores: list[list[Tensor]]) -> Tensor:
    return torch.stack([scale[-1].square().mean() for scale in scores]).sum()
