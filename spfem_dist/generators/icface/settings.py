"""Settings of ICface, the two jobs of a stage-2 run: both generators alone on pairs of frames, then under the priors."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import Field, model_validator

from spfem_dist.job_settings import GuidedSettings, JobSettings, Optimizer, Positive, Weight


class Reenactment(JobSettings):
    """What both jobs have: a neutraliser, an animator, and the discriminator that judges them."""

    kind: Annotated[Literal["icface"], tyro.conf.Suppress] = Field(
        "icface", description="The method: a room of generators."
    )
    network: Literal["small", "paper"] = Field(
        "small", description="small trains on a laptop; paper has the published widths."
    )
    units: Literal["landmarks", "head"] = Field(
        "landmarks",
        description="The action units. landmarks: 13 distances between landmarks, what each moves learnt from the training part; head: the 52 "
        "units of the package's 3-D head, fitted to landmarks, which drawn faces do not have.",
    )
    critic: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=5e-4, betas=(0.5, 0.99), warmup_steps=20),
        description="Of the discriminator with its heads.",
    )
    picture_weight: Weight = Field(10.0, description="Weight of the absolute error to the driving frame.")
    squared_weight: Weight = Field(
        20.0,
        description="Weight of the squared error to it: of a line that may be a pixel off it keeps the mean, not nothing.",
    )
    adversarial_weight: Weight = Field(0.1, description="Weight of the discriminator's word on what is made.")
    units_weight: Weight = Field(1.0, description="Weight of the units that its head reads off what is made.")
    identity_weight: Weight = Field(0.1, description="Weight of the speaker whom its head takes what is made for.")
    gradient_penalty: Weight = Field(0.05, description="Weight of the discriminator's squared slope at real frames.")
    across: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="Share of pairs whose driving frame is of another recording of the speaker, laid over the source by its still points "
        "and given its colours; the others are of the same recording, as published.",
    )
    speakers: Positive = Field(
        256, description="Speakers of the training part from which face model and units come, at most."
    )
    clips_per_speaker: Positive = Field(
        64, description="Recordings of each speaker from which face model and units come, at most."
    )

    @model_validator(mode="after")
    def _clean_form(self) -> Reenactment:
        if self.form == "released":
            raise ValueError(
                "form released cannot be trained: it wants intensities of action units from OpenFace, whose models need a licence; its "
                "networks, losses and the loading of the authors' weights are in generators/icface/released.py. Leave form clean"
            )
        return self


class Pretraining(Reenactment):
    """Both generators without priors: pairs of frames of one speaker, no frame is edited."""

    settings_class: Annotated[Literal["Pretraining"], tyro.conf.Suppress] = Field(
        "Pretraining", description="This class, for who reads the run's configuration."
    )
    steps: Positive = Field(1000, description="Optimiser steps.")
    global_batch: Positive = Field(
        8,
        description="Samples (a frame and a driving frame) for each optimiser step, over all workers: the run's constant.",
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=5e-4, betas=(0.5, 0.99), warmup_steps=50),
        description="Of neutraliser and animator.",
    )


class Settings(Reenactment, GuidedSettings):
    """ICface: a neutraliser and an animator of action units, under frozen priors."""

    settings_class: Annotated[Literal["Settings"], tyro.conf.Suppress] = Field(
        "Settings", description="This class, for who reads the run's configuration."
    )
    steps: Positive = Field(200, description="Optimiser steps.")
    global_batch: Positive = Field(
        8,
        description="Samples (a pair of frames and an edit) for each optimiser step, over all workers: the run's constant.",
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=3e-4, betas=(0.5, 0.99), warmup_steps=20),
        description="Of neutraliser and animator.",
    )
