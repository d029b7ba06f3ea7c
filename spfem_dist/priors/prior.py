"""What a prior is: a representation that learns in stage 1 and supervises in stage 2.

A prior's method is a package `spfem_dist.priors.<kind>`, its room, which exports

    Settings                                              a `PriorSettings` whose `kind` is the package's name
    build(settings, data, feature_dim, pretrained=True)   an `nn.Module` that answers `Prior`
    CARD                                                  a `PriorCard`, what a model card says of it
    scores                                                where it has them: figures on held-out clips, their targets and meanings

`find` gives the room. `save_prior` and `load_prior` move a trained prior to and from a folder (safetensors and a config.json
that holds everything needed to rebuild it).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from spfem_dist import rooms
from spfem_dist.config import Data
from spfem_dist.job_settings import PriorSettings
from spfem_dist.records import Batch
from spfem_dist.saved import load_weights, misfit, read_config, save_model
from spfem_dist.streaming.views import View


@dataclass(frozen=True)
class EditedFrames:
    """N edited windows of T consecutive frames each (T may be 1), with everything that a prior may want to judge them by.

    source, reference, generated: frames [N, T, 3, S, S], uint8 or float in [-1, 1]. source: what shall be said, and who says it.
    reference: the emotion that shall be shown. Gradients reach `generated` alone.
    speech: the source's windows of speech features around each frame, float [N, T, W, F]; None where there are none.
    source_emotion, emotion: int64 [N], index into `list(Emotion)`: what the source shows, and the target.
    valid: bool [N, T], which frames count; None counts all. neutral: frames [N, T, 3, S, S] of the source's speaker without
    emotion that match the source's frames in time; None where there are none.
    """

    source: Tensor
    reference: Tensor
    generated: Tensor
    emotion: Tensor
    speech: Tensor | None = None
    source_emotion: Tensor | None = None
    valid: Tensor | None = None
    neutral: Tensor | None = None

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the frames that count of one value for each frame; values: [N, T] or [N * T]."""
        if self.valid is None:
            return values.mean()
        counted = self.valid.to(values.dtype)
        return (values.view_as(counted) * counted).sum() / counted.sum().clamp(min=1)

    def with_frames(self, change: Any) -> EditedFrames:
        """The same with every picture [N * T, 3, S, S] changed by `change`, a function of pictures."""

        def changed(frames: Tensor) -> Tensor:
            return change(frames.flatten(0, 1)).view_as(frames)

        pictures = {"source": self.source, "reference": self.reference, "generated": self.generated}
        if self.neutral is not None:
            pictures["neutral"] = self.neutral
        return replace(self, **{name: changed(frames) for name, frames in pictures.items()})


@runtime_checkable
class Prior(Protocol):
    """What the training loop, the scores and a generator's guidance ask of a prior; every room's `build` returns such a module.

    view: how it draws its training samples from utterance groups. hears: whether it listens to speech. frames: how many
    consecutive frames one judgement needs (`EditedFrames` has as many or more). softened: whether generators show it pictures without their
    finest detail (see `frozen.softened`). compares_with: which frames it holds generated ones against.

    A prior that is an embedding also has `embed(frames, speech)`: unit vectors [N, D] of frames uint8 [N, 3, S, S] and speech
    [N, W, F] (None: without speech). A metric between two pictures has none.
    """

    view: View
    hears: bool
    frames: int
    softened: bool
    compares_with: Literal["source", "reference"]

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses (already weighted: their sum is minimised) and monitors (only logged), scalars by name (`<kind>/...`).

        Every loss is a mean over the batch's samples; samples meet only in the synchronised batch norm.
        """
        ...

    def guidance(self, edit: EditedFrames) -> dict[str, Tensor]:
        """Stage 2: how far generated frames are from what they should be, scalars by name (`<kind>/...`), means over frames.

        Called on a frozen prior (`nets.frozen.freeze`); gradients reach `edit.generated` alone.
        """
        ...

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """Pictures by name, uint8 [H, W, 3] RGB, that show what the prior does with the batch."""
        ...


def find(kind: str) -> ModuleType:
    """The room of the priors of this kind: `spfem_dist.priors.<kind>`. ValueError lists the rooms there are."""
    return rooms.find("priors", kind)


def build_prior(settings: PriorSettings, data: Data, feature_dim: int, *, pretrained: bool = True) -> nn.Module:
    """A fresh prior: what it learns is random, the trunks of the paper's network come with their weights.

    feature_dim: numbers in one row of speech features, as the shards' index says. pretrained: False leaves trunks random too
    (dry runs, tests, and where a saved prior brings its own).
    Raises MissingWeights where a trunk's weights are not there, ValueError where no room has these settings.
    """
    return find(settings.kind).build(settings, data, feature_dim, pretrained=pretrained)


def save_prior(
    folder: Path | str,
    prior: nn.Module,
    *,
    settings: PriorSettings,
    data: Data,
    feature_dim: int,
    facts: dict[str, Any] | None = None,
) -> Path:
    """Writes `model.safetensors` and `config.json` into `folder` (made if missing) and returns the folder.

    facts: JSON values that say where the prior comes from (run name, samples seen, figures); `load_prior` returns them.
    """
    described = {
        "hears": prior.hears,
        "settings": settings.model_dump(mode="json"),
        "data": data.model_dump(mode="json"),
        "feature_dim": feature_dim,
        "facts": facts or {},
    }
    return save_model(folder, "prior", settings.kind, prior, described)


def load_prior(folder: Path | str) -> tuple[nn.Module, dict[str, Any]]:
    """The prior saved in `folder`, frozen (eval mode, no gradients on parameters), and its config.json.

    Raises FileNotFoundError where a file is missing, ValueError where one is damaged or of another version.
    """
    config = read_config(folder, "prior")
    try:
        settings = find(config["kind"]).Settings(**config["settings"])
        prior = build_prior(settings, Data(**config["data"]), config["feature_dim"], pretrained=False)
    except (KeyError, TypeError, ValueError) as error:
        raise misfit(folder, "prior", error) from None
    load_weights(prior, folder, "prior")
    return prior.eval().requires_grad_(False), config
