"""The settings of the jobs: what each network learns with. `config` has the run that they are parts of."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from spfem_dist.rooms import KIND, kinds

Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
#: A weight for each kind of prior.
Guidance = dict[Annotated[str, StringConstraints(pattern=KIND)], Annotated[float, Field(ge=0.0)]]


class Section(BaseModel):
    """A part of a Run: unknown fields are refused, values are checked again on assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


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
    enabled: bool = Field(True, description="Train this job in the run.")
    form: Literal["clean", "released"] = Field(
        "clean", description="clean is the corrected method; released computes what the published code does."
    )
    steps: Positive = Field(600, description="Optimiser steps.")
    global_batch: Positive = Field(
        12, description="Samples (utterance groups) for each optimiser step, over all workers: the run's constant."
    )
    micro_batch: Positive | None = Field(
        None, description="Largest number of samples that a worker holds at once; empty means its whole share."
    )
    optimizer: Optimizer = Field(default_factory=Optimizer)


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


class NED(JobSettings):
    """Neural Emotion Director: a manipulator of expression coefficients and a renderer of faces."""

    kind: Annotated[Literal["ned"], tyro.conf.Suppress] = Field("ned", description="The method: a room of generators.")
    network: Literal["small", "paper"] = Field(
        "small", description="small trains on a laptop; paper has the published widths, for 256 pixels."
    )
    steps: Positive = Field(400, description="Optimiser steps.")
    global_batch: Positive = Field(
        16, description="Samples (pairs of windows) for each optimiser step, over all workers: the run's constant."
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=2e-3, betas=(0.5, 0.99), warmup_steps=20), description="Of the renderer."
    )
    renderer_critic: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=1e-3, betas=(0.5, 0.99), warmup_steps=20),
        description="Of the discriminator of pictures.",
    )
    manipulator: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=2e-3, betas=(0.0, 0.99), warmup_steps=20),
        description="Of the manipulator with its style encoder and mapping network.",
    )
    manipulator_critic: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=5e-4, betas=(0.0, 0.99)), description="Of the discriminator of windows."
    )
    guidance: Guidance = Field(
        default_factory=lambda: dict.fromkeys(kinds("priors"), 1.0),
        description="Weight of each kind of frozen prior in what guides the generator; counts where --priors gives one, 0 leaves it out.",
    )
    guidance_placement: Literal["clean", "released"] = Field(
        "clean",
        description="clean: every prior judges edited frames and guides manipulator and renderer; released: priors that compare with "
        "the reference (emotion) guide the manipulator alone, those that compare with the source (content) the renderer alone, and that "
        "on reconstructed frames.",
    )
    pair_weight: Annotated[float, Field(ge=0)] = Field(
        20.0,
        description="Weight of the distance to the time-warped recording of the same words in the target emotion, where there is one.",
    )
    cycle_weight: Annotated[float, Field(ge=0)] = Field(0.1, description="Weight of the way back to the source window.")
    style_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of finding the style in what it made.")
    mouth_weight: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Weight of the jaw's correlation with the source's."
    )
    jaw_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of the jaw's distance to the source's.")
    window_adversarial_weight: Annotated[float, Field(ge=0)] = Field(
        0.02, description="Weight of the discriminator of windows."
    )
    picture_weight: Annotated[float, Field(ge=0)] = Field(10.0, description="Weight of the reconstruction's L1 error.")
    picture_adversarial_weight: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Weight of the discriminator of pictures."
    )
    feature_weight: Annotated[float, Field(ge=0)] = Field(
        0.5, description="Weight of matching the discriminator's features on reconstructed pictures."
    )
    perceptual_weight: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Weight of VGG-19's distance on frames redrawn within a recording (published: 10); needs the weights vgg19-imagenet.",
    )
    tone_weight: Annotated[float, Field(ge=0)] = Field(
        10.0, description="Weight of keeping light and skin tone of edited faces."
    )
    r1_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Weight of the gradient penalty R1 on both discriminators' real samples; 0 leaves it out."
    )
    speakers: Positive = Field(
        256, description="Speakers of the training part from which the face model learns, at most."
    )
    clips_per_speaker: Positive = Field(
        64, description="Recordings of each speaker from which the face model learns, at most."
    )

    @model_validator(mode="after")
    def _clean_form(self) -> NED:
        if self.form == "released":
            raise ValueError(
                "ned.form released cannot be trained: it wants FLAME and DECA, whose files need a licence; its networks and losses are in "
                "generators/ned/manipulator.py and renderer.py. Leave --ned.form clean (--ned.guidance-placement released guides where the "
                "published code does)"
            )
        return self
