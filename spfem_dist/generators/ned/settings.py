"""Settings of NED, a job of a stage-2 run."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import Field, model_validator

from spfem_dist.job_settings import Guidance, JobSettings, Optimizer, Positive
from spfem_dist.rooms import kinds


class Settings(JobSettings):
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
    def _clean_form(self) -> Settings:
        if self.form == "released":
            raise ValueError(
                "ned.form released cannot be trained: it wants FLAME and DECA, whose files need a licence; its networks and losses are in "
                "generators/ned/manipulator.py and renderer.py. Leave --ned.form clean (--ned.guidance-placement released guides where the "
                "published code does)"
            )
        return self
