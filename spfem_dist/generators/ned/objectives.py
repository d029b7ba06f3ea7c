"""What each network of NED learns in the clean form: losses by name, every one a mean over the samples of the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.emotions import class_of
from spfem_dist.generators.face.light import LIGHT, slow
from spfem_dist.generators.ned.manipulator import correlation
from spfem_dist.generators.ned.settings import Manipulation, Settings
from spfem_dist.generators.ned.windows import Coefficients, Prepared, Scene
from spfem_dist.nets.vgg import VGG19
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.stage import called
from spfem_dist.streaming.views import MATCHED, REFERENCE, SOURCE

#: Added to variances, so that a jaw that does not move has no correlation instead of none that is a number.
EPSILON = 1e-6
#: How much more an error within eyes and mouth counts than one elsewhere in the face.
FEATURES = 2.0


def styles(manipulator: nn.Module, reference: Tensor, target: Tensor, noise: Tensor, by_reference: Tensor) -> Tensor:
    """Styles [B, S]: read from the reference windows [B, T, C] where `by_reference` [B], else drawn for the emotions `target` [B]."""
    read = called(manipulator, "style_of", reference)
    drawn = called(manipulator, "style_for", target, noise)
    return torch.where(by_reference[:, None], read, drawn)


def edited_windows(manipulator: nn.Module, prepared: Prepared) -> Tensor:
    """Edited source windows [B, T, C] of the samples whose frames are there."""
    target = class_of(prepared.emotion[:, REFERENCE])
    reference = prepared.windows[:, REFERENCE]
    style = styles(manipulator, reference, target, prepared.noise, prepared.by_reference)
    return manipulator(prepared.windows[:, SOURCE], style)


def learnt_windows(manipulator: nn.Module, learnt: Coefficients) -> tuple[Tensor, Tensor]:
    """The windows that the manipulator learns from, edited [N, T, C], and the styles [N, S] behind them."""
    style = styles(manipulator, learnt.reference, learnt.target, learnt.noise, learnt.by_reference)
    return manipulator(learnt.source, style), style


def manipulator_losses(
    settings: Manipulation,
    manipulator: nn.Module,
    critic: nn.Module,
    learnt: Coefficients,
    edited: Tensor,
    style: Tensor,
    speech: tuple[int, ...],
) -> dict[str, Tensor]:
    """NED's losses on windows, and where pairs count the distance to the same words in the target emotion.

    speech: columns of what words move.

    The style of an edit is only asked to be found again where it was drawn: read from a reference, encoder and generator
    would agree on a constant.
    """
    source = learnt.source
    back = manipulator(edited, called(manipulator, "style_of", source))
    read_back = called(manipulator, "style_of", edited)
    drawn = (~learnt.by_reference).to(source.dtype)
    said, kept, kept_back = (window[..., list(speech)] for window in (source, edited, back))
    rhythm = together(said, kept) + together(kept, kept_back)
    losses = {
        "ned/adversarial": settings.adversarial_weight * F.softplus(-critic(edited, learnt.target)).mean(),
        "ned/style": settings.style_weight * ((read_back - style.detach()).abs().mean(-1) * drawn).mean(),
        "ned/cycle": settings.cycle_weight * F.l1_loss(back, source),
        "ned/mouth": settings.mouth_weight * (2 - rhythm).mean(),
    }
    if settings.pairs:
        distance = (edited - learnt.matched).abs().mean(-1)
        losses["ned/pair"] = settings.pairs * (distance * learnt.paired).mean()
    if settings.jaw_weight:
        losses["ned/jaw"] = settings.jaw_weight * F.l1_loss(kept, said)
    return losses


def together(a: Tensor, b: Tensor) -> Tensor:
    """Correlation [B] of how columns of two windows [B, T, K] move around their means: those that move more count more."""
    a, b = ((window - window.mean(1, keepdim=True)).flatten(1) for window in (a, b))
    return correlation(a, b, EPSILON)


def critic_losses(critic: nn.Module, learnt: Coefficients, edited: Tensor) -> dict[str, Tensor]:
    """Real windows of their own emotion against edits, and against real windows called by another emotion."""
    real = learnt.source
    differs = (learnt.emotion != learnt.target).to(real.dtype)
    return {
        "ned/window_real": F.softplus(-critic(real, learnt.emotion)).mean(),
        "ned/window_edited": F.softplus(critic(edited, learnt.target)).mean(),
        "ned/window_misnamed": (F.softplus(critic(real, learnt.target)) * differs).mean(),
    }


def pair_distance(prepared: Prepared, edited: Tensor) -> Tensor:
    """Distance of edited windows to the same words as the speaker said them in the target emotion, where they were recorded."""
    distance = (edited - prepared.windows[:, MATCHED]).abs().mean(-1)
    return (distance * prepared.paired).mean()


def reconstruction_errors(prepared: Prepared, picture: Tensor) -> tuple[Tensor, Tensor]:
    """How far redrawn frames are from the real ones, absolute and squared: means over the face, eyes and mouth counting more.

    Across recordings mostly without the slow part, which another light explains.
    """
    scene = prepared.redrawn
    error = picture - prepared.wanted
    error = error - LIGHT * prepared.across[:, None, None, None] * slow(error, scene.soft)
    features = F.max_pool2d(scene.maps[:, 3:6].sum(1, keepdim=True).clamp(max=1), 5, 1, 2)
    weight = scene.soft * (1 + FEATURES * features)
    whole = weight[:, 0].sum((1, 2)).clamp(min=1e-6)

    def mean(each: Tensor) -> Tensor:
        return ((each * weight).mean(1).sum((1, 2)) / whole).mean()

    return mean(error.abs()), mean(error.square())


def renderer_losses(
    settings: Settings, prepared: Prepared, picture: Tensor, perceptual: VGG19 | None = None
) -> dict[str, Tensor]:
    """Redraw real frames as they are."""
    absolute, squared = reconstruction_errors(prepared, picture)
    losses = {"ned/picture": settings.picture_weight * absolute, "ned/squared": settings.squared_weight * squared}
    if perceptual is not None:
        whole = prepared.redrawn.composed(picture, prepared.wanted)
        alike = (1 - prepared.across) * perceptual.distance(whole, prepared.wanted)
        losses["ned/perceptual"] = settings.perceptual_weight * alike.mean()
    return losses


def edit_tone(settings: Settings, scene: Scene, painted: Tensor) -> dict[str, Tensor]:
    """What is painted over an edit lays no patches of light or colour on a face: lines and moved features are all an emotion is."""
    patches = slow(painted - scene.moved, scene.soft) * scene.soft
    share = scene.soft.mean((1, 2, 3)).clamp(
        min=1e-3
    )  # of each sample: a mean over samples is the same for any number of workers
    return {"ned/edit_tone": settings.tone_weight * (patches.abs().mean((1, 2, 3)) / share).mean()}


def redrawn_frames(prepared: Prepared, picture: Tensor) -> EditedFrames:
    """Frames redrawn from another moment of their recording beside the frames themselves: nothing is edited."""
    wanted = prepared.wanted[:, None]
    return EditedFrames(
        source=wanted,
        reference=wanted,
        generated=prepared.redrawn.composed(picture, prepared.wanted)[:, None],
        emotion=prepared.emotion[:, REFERENCE],
        speech=prepared.wanted_speech[:, None],
        source_emotion=prepared.emotion[:, SOURCE],
    )
