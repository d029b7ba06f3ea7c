"""The settings of the jobs: what each network learns with. `config` has the run that they are parts of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from spfem_dist.rooms import KIND, kinds

#: The largest number that JSON, and whoever reads it, keeps as it is; torch and numpy count no further than 2**63.
_LARGEST = 2**53
Positive = Annotated[int, Field(ge=1, le=_LARGEST)]
Natural = Annotated[int, Field(ge=0, le=_LARGEST)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
#: A weight for each kind of prior.
Guidance = dict[Annotated[str, StringConstraints(pattern=KIND)], Weight]


class Section(BaseModel):
    """A part of a Run: unknown fields are refused, values are checked again on assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class _Operational:
    """See `Operational`."""


#: Marks a setting that does not enter the losses: it may change between two starts of one run.
Operational = _Operational()


class Operations(Section):
    """A section whose settings are all `Operational`."""


@dataclass(frozen=True)
class Place:
    """Marks a setting that is a path, or a tuple of them: relative ones start where the run was started (see `Run.absolute`).

    prefix, suffix: only what begins and ends so is a path. names: values that are no paths but something's name.
    """

    prefix: str = ""
    suffix: str = ""
    names: tuple[str, ...] = ()

    def absolute(self, value: Any, full: Callable[[str], str]) -> Any:
        """`value` with `full` called on its path, or on each of them."""
        if isinstance(value, tuple):
            return tuple(self.absolute(one, full) for one in value)
        if value in self.names or not (value.startswith(self.prefix) and value.endswith(self.suffix)):
            return value
        return self.prefix + full(value.removeprefix(self.prefix))


def places(section: Section) -> Iterator[tuple[Section, str, Place]]:
    """Every setting below `section` that is a `Place`: its section, its name there, and the mark."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from places(value)
        yield from ((section, name, mark) for mark in field.metadata if isinstance(mark, Place))


def is_operational(section: Section, name: str) -> bool:
    """Whether the setting `name` (dotted) below `section` may change between two starts of one run."""
    for part in name.split("."):
        field = type(section).model_fields.get(part)
        if field is None:
            return False
        if isinstance(section, Operations) or Operational in field.metadata:
            return True
        section = getattr(section, part)
        if not isinstance(section, Section):
            return False
    return isinstance(section, Operations)


class Optimizer(Section):
    """Optimiser and learning-rate schedule of one trainable network."""

    name: Literal["adam", "adamw", "sgd"] = Field("adam", description="Update rule.")
    lr: Annotated[float, Field(gt=0)] = Field(1e-3, description="Peak learning rate.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's running-average factors.")
    eps: Annotated[float, Field(gt=0)] = Field(1e-8, description="Adam's term in the denominator.")
    momentum: float = Field(0.0, description="SGD momentum.")
    weight_decay: float = Field(0.0, description="Weight decay (decoupled for adamw).")
    warmup_steps: Natural = Field(0, description="Steps of linear warm-up.")
    schedule: Literal["constant", "cosine", "multistep"] = Field("cosine", description="Shape after the warm-up.")
    milestones: tuple[int, ...] = Field((), description="Steps at which multistep multiplies the rate by 0.1.")
    clip: Annotated[float, Field(ge=0)] = Field(1.0, description="Largest gradient norm; 0 leaves gradients alone.")


class JobSettings(Section):
    """What the training loop asks of every job."""

    kind: Annotated[str, tyro.conf.Suppress] = Field("", description="The method: a room of priors or generators.")
    enabled: Annotated[bool, Operational] = Field(True, description="Train this job in the run.")
    form: Literal["clean", "released"] = Field(
        "clean", description="clean is the corrected method; released computes what the published code does."
    )
    steps: Positive = Field(600, description="Optimiser steps.")
    global_batch: Positive = Field(
        12, description="Samples (utterance groups) for each optimiser step, over all workers: the run's constant."
    )
    micro_batch: Annotated[Positive | None, Operational] = Field(
        None, description="Largest number of samples that a worker holds at once; empty means its whole share."
    )
    optimizer: Optimizer = Field(default_factory=Optimizer)
    half_life: Weight = Field(
        0.0,
        description="Samples after which an average of the weights, kept beside them, has forgotten half of those that were (at most 0.05 "
        "of the samples seen); it is what is validated and exported. 0 keeps none.",
    )

    @property
    def half_life_samples(self) -> float:
        """The half-life of the average in samples; 0: there is none."""
        return self.half_life


class PriorSettings(JobSettings):
    """What the settings of priors have in common."""

    network: Literal["small", "paper"] = Field(
        "small", description="small trains on a laptop; paper has the published sizes and needs their weights."
    )
    crop: Share = Field(0.75, description="Side of the square that is used, as a share of the frame's side.")
    crop_row: Share = Field(
        0.6, description="Row of that square's centre, as a share of the frame's height; below 0.5 is up."
    )
    shift: Share = Field(
        0.03, description="Largest random shift of the crop in training, as a share of the frame's side."
    )
    colour_jitter: Share = Field(0.1, description="Strength of the colour jitter, as a share of full range.")


class CachedSettings(PriorSettings):
    """Of priors that stand on a frozen trunk, whose features of the frames can be computed once for all steps."""

    feature_cache: Annotated[str, Place()] = Field(
        "",
        description="Folder or s3://bucket/prefix in which the frozen trunk's features of all training frames are kept: computed before "
        "the first step, where they are not there yet. Empty: the trunk looks at the frames of every step.",
    )
    feature_views: Natural = Field(
        4,
        description="With feature_cache, augmented views of each frame that are drawn once and kept; a step takes one of these where it "
        "would have drawn shift, mirror, colours and the other mouth anew. 0 keeps the plain frame alone: nothing is augmented but the "
        "other mouth.",
    )


class GuidedSettings(JobSettings):
    """What the settings of generators have in common that frozen priors guide. A room's own base class stands before it."""

    guidance: Guidance = Field(
        default_factory=lambda: dict.fromkeys(kinds("priors"), 1.0),
        description="Share of each kind of frozen prior in the pull of its like (see content_pull, emotion_pull); counts where --priors "
        "gives one, 0 leaves it out.",
    )
    content_pull: Weight = Field(
        0.05,
        description="How hard the priors that compare with the source pull at the edited picture when training begins, together: the norm "
        "of their gradient there for one sample, measured on held-out speakers; their weights are chosen so. 0: shares are weights.",
    )
    emotion_pull: Weight = Field(
        0.05, description="The same of the priors that compare with the reference. 0: their shares are weights."
    )
