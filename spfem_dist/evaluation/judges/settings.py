"""The configuration of the judges' training: one job for each judge."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from spfem_dist.config import Data, JobSettings, Optimizer, Positive, Run, Scaling, Share, Tracking, Validation


class JudgeSettings(JobSettings):
    """What all judges have in common: the part of the frame they see, and how it is disturbed while they learn."""

    side: Positive = Field(48, description="Side of the crop that the judge sees, pixels; a multiple of 8.")
    crop: Share = Field(0.75, description="Side of the square that is used, as a share of the frame's side.")
    crop_row: Share = Field(
        0.5625, description="Row of that square's centre, as a share of the frame's height; below 0.5 is up."
    )
    shift: Share = Field(0.03, description="Largest random shift in training, as a share of the frame's side.")
    zoom: Share = Field(0.06, description="Largest random change of scale in training.")
    turn: Annotated[float, Field(ge=0)] = Field(4.0, description="Largest random rotation in training, degrees.")
    colour_jitter: Share = Field(0.15, description="Strength of the colour jitter, as a share of full range.")
    blur: Share = Field(0.8, description="Largest share of a blurred copy mixed into the crop in training.")
    noise: Share = Field(0.04, description="Largest noise added in training, as a share of full range.")
    coding: Share = Field(
        0.08, description="Largest step of the 8 x 8 block coding in training, as a share of full range."
    )

    @model_validator(mode="after")
    def _side_fits(self) -> JudgeSettings:
        if self.side % 8:
            raise ValueError(f"side is {self.side}; it is halved three times: use {max(8, round(self.side / 8) * 8)}")
        return self


class Oracle(JudgeSettings):
    """Reads the emotion, the mouth opening and the landmarks off one frame."""

    steps: Positive = Field(700, description="Optimiser steps.")
    global_batch: Positive = Field(
        8, description="Samples (utterance groups) for each optimiser step, over all workers: the run's constant."
    )
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=2e-3, warmup_steps=40))
    embedding: Positive = Field(128, description="Width of the pooled features, the features of CSIM.")
    landmark_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of the landmarks' regression.")
    opening_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of the mouth opening's regression.")


class Identity(JudgeSettings):
    """Says who it is, from the face alone: background, clothes and light are hidden or varied."""

    steps: Positive = Field(400, description="Optimiser steps.")
    global_batch: Positive = Field(
        6, description="Samples (utterance groups) for each optimiser step, over all workers: the run's constant."
    )
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=2e-3, warmup_steps=40))
    embedding: Positive = Field(64, description="Width of the unit features, the features of FAD.")
    temperature: Annotated[float, Field(gt=0)] = Field(0.06, description="Temperature of the speakers' cosines.")
    colour_jitter: Share = Field(0.25, description="Strength of the colour jitter, as a share of full range.")


class Synchrony(JudgeSettings):
    """Says whether a moving mouth and speech belong together (after SyncNet, Chung and Zisserman 2016)."""

    steps: Positive = Field(350, description="Optimiser steps.")
    global_batch: Positive = Field(
        4, description="Samples (utterance groups) for each optimiser step, over all workers: the run's constant."
    )
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=2e-3, warmup_steps=40))
    side: Positive = Field(32, description="Side of the crop that the judge sees, pixels; a multiple of 8.")
    crop: Share = Field(0.5, description="Side of the square that is used, as a share of the frame's side.")
    crop_row: Share = Field(0.7, description="Row of that square's centre, as a share of the frame's height.")
    window: Positive = Field(5, description="Frames of a moving mouth that are judged together.")
    embedding: Positive = Field(128, description="Width of both embeddings.")
    temperature: Annotated[float, Field(gt=0)] = Field(0.1, description="Temperature of the contrast within a clip.")


class JudgesRun(Run):
    """The judges: networks that score generated frames."""

    name: str = Field("judges", description="Run name; the same name and storage resumes, a new name starts anew.")
    recipe: str = Field("metric_nets", description="Recipe that made this configuration.")
    # A seed of their own, so that they share no draw with the priors of a run with the usual seeds.
    seed: int = Field(1000, ge=0, description="Seed of initial weights, data order and augmentation.")
    data: Data = Field(default_factory=lambda: Data(frames_per_recording=25))
    scaling: Scaling = Field(default_factory=Scaling)
    tracking: Tracking = Field(default_factory=lambda: Tracking(experiment="judges", register_models=False))
    validation: Validation = Field(default_factory=lambda: Validation(every_steps=250))
    oracle: Oracle = Field(default_factory=Oracle)
    identity: Identity = Field(default_factory=Identity)
    synchrony: Synchrony = Field(default_factory=Synchrony)
