"""Settings of NED, the two jobs of a stage-2 run: a manipulator alone on coefficients, then both networks under the priors."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import Field, model_validator

from spfem_dist.job_settings import GuidedSettings, JobSettings, Optimizer, Positive, Weight


class Manipulation(JobSettings):
    """What both jobs have: a manipulator of windows of coefficients, and who judges it."""

    kind: Annotated[Literal["ned"], tyro.conf.Suppress] = Field("ned", description="The method: a room of generators.")
    network: Literal["small", "paper"] = Field(
        "small", description="small trains on a laptop; paper has the published widths, for 256 pixels."
    )
    regime: Literal["residual", "absolute"] = Field(
        "residual",
        description="residual: the manipulator adds to the source's coefficients, so the mouth's movement is kept by itself; absolute: it "
        "makes them anew, as published, and loses that movement where no prior holds it.",
    )
    coefficients: Literal["linear", "units"] = Field(
        "linear",
        description="What a window's frames are told in. linear: the jaw and 50 components of a face model that is learnt from the training "
        "part; units: the 52 named units of the package's 3-D head, fitted to landmarks, which drawn faces do not have.",
    )
    manipulator_critic: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=5e-4, betas=(0.0, 0.99), warmup_steps=50),
        description="Of the discriminator of windows.",
    )
    adversarial_weight: Weight = Field(1.0, description="Weight of the discriminator of windows.")
    style_weight: Weight = Field(1.0, description="Weight of finding the style in what it made.")
    cycle_weight: Weight = Field(1.0, description="Weight of the way back to the source window.")
    mouth_weight: Weight = Field(
        1.0,
        description="Weight of the correlation with the source's of what words move: the jaw, or the units of speech.",
    )
    jaw_weight: Weight = Field(0.0, description="Weight of its distance to the source's.")
    pairs: Weight = Field(
        0.0,
        description="Weight of the distance to the time-warped recording of the same words in the target emotion, where there is one "
        "(20 where it is wanted); 0 learns unpaired, as the papers do.",
    )
    speakers: Positive = Field(
        256, description="Speakers of the training part from which face model, texture and windows come, at most."
    )
    clips_per_speaker: Positive = Field(
        64, description="Recordings of each speaker from which face model, texture and windows come, at most."
    )

    @model_validator(mode="after")
    def _clean_form(self) -> Manipulation:
        if self.form == "released":
            raise ValueError(
                "form released cannot be trained: it wants FLAME and DECA, whose files need a licence; its networks and losses are in "
                "generators/ned/manipulator.py and renderer.py. Leave form clean (--ned.regime absolute is the published manipulator)"
            )
        return self


class Pretraining(Manipulation):
    """The manipulator alone, unpaired, on coefficients in memory; what it exports edits by warp and texture."""

    settings_class: Annotated[Literal["Pretraining"], tyro.conf.Suppress] = Field(
        "Pretraining", description="This class, for who reads the run's configuration."
    )
    steps: Positive = Field(1000, description="Optimiser steps.")
    global_batch: Positive = Field(
        64,
        description="Samples (a window and a reference) for each optimiser step, over all workers: the run's constant.",
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=1e-3, betas=(0.0, 0.99), warmup_steps=50),
        description="Of the manipulator with its style encoder and mapping network.",
    )


class Settings(Manipulation, GuidedSettings):
    """Neural Emotion Director: a manipulator of expression coefficients and a renderer of faces, under frozen priors."""

    settings_class: Annotated[Literal["Settings"], tyro.conf.Suppress] = Field(
        "Settings", description="This class, for who reads the run's configuration."
    )
    steps: Positive = Field(200, description="Optimiser steps.")
    global_batch: Positive = Field(
        16,
        description="Samples (pairs of windows with frames) for each optimiser step, over all workers: the run's constant.",
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=2e-3, betas=(0.5, 0.99), warmup_steps=20), description="Of the renderer."
    )
    manipulator: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=5e-4, betas=(0.0, 0.99), warmup_steps=50),
        description="Of the manipulator with its style encoder and mapping network.",
    )
    windows: Positive = Field(
        64,
        description="Windows of coefficients that the manipulator learns from in each optimiser step, shared out among the samples "
        "(rounded up).",
    )
    content_pull: Weight = Field(
        4.0,
        description="How hard the priors that compare with the source pull at the edited coefficients when training begins, together: the norm "
        "of their gradient there for one sample, measured on held-out speakers; their weights are chosen so. 0: shares are weights.",
    )
    emotion_pull: Weight = Field(
        0.8, description="The same of the priors that compare with the reference. 0: their shares are weights."
    )
    guidance_placement: Literal["clean", "released"] = Field(
        "clean",
        description="clean: every prior judges edited frames and guides the manipulator through warp and texture, and those that compare "
        "with the source (content) the renderer too; released: those that compare with the reference (emotion) guide the manipulator "
        "alone, those that compare with the source the renderer alone, and that on reconstructed frames.",
    )
    renderer: Literal["none", "residual"] = Field(
        "none",
        description="none: the moved and textured face is the edit; residual: a network paints over it, which shows what moving cannot "
        "(teeth), and at 64 pixels blurs the mouth.",
    )
    picture_weight: Weight = Field(3.0, description="Weight of the absolute error of redrawn frames.")
    squared_weight: Weight = Field(
        60.0,
        description="Weight of their squared error: of a line that may be a pixel off it keeps the mean, not nothing.",
    )
    perceptual_weight: Weight = Field(
        0.0,
        description="Weight of VGG-19's distance on frames redrawn within a recording (published: 10); needs the weights vgg19-imagenet.",
    )
    tone_weight: Weight = Field(3.0, description="Weight of keeping light and skin tone of edited faces.")
