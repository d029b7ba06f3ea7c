"""Settings of SSERD's two jobs: generator and encoder alone, then the emotion's residual on pairs, unpaired frames and priors."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import Field, model_validator

from spfem_dist.job_settings import GuidedSettings, JobSettings, Optimizer, Positive, Share, Weight


def _optimizer(lr: float, warmup: int, beta: float = 0.5) -> Optimizer:
    return Optimizer(lr=lr, betas=(beta, 0.99), warmup_steps=warmup, clip=10.0)


class Portraits(JobSettings):
    """What both jobs have: a StyleGAN2, its encoder, and a discriminator."""

    kind: Annotated[Literal["sserd"], tyro.conf.Suppress] = Field(
        "sserd", description="The method: a room of generators."
    )
    network: Literal["small", "paper"] = Field(
        "small", description="small trains on a laptop; paper has the published widths (configuration f)."
    )
    critic: Optimizer = Field(
        default_factory=lambda: _optimizer(2e-3, 20), description="Of the discriminator, which judges what is drawn."
    )
    gradient_penalty: Weight = Field(1.0, description="Weight of R1: the discriminator's squared slope at real frames.")
    penalty_every: Positive = Field(16, description="Steps from one R1 to the next; it weighs as many times more.")
    speakers: Positive = Field(
        256, description="Speakers of the training part from which face model, codes and boundaries come, at most."
    )
    clips_per_speaker: Positive = Field(
        64, description="Recordings of each speaker from which face model, codes and boundaries come, at most."
    )

    @model_validator(mode="after")
    def _clean_form(self) -> Portraits:
        if self.form == "released":
            raise ValueError(
                "form released cannot be trained: it begins from a StyleGAN2 of FFHQ, ArcFace and LPIPS, whose weights are not to be had "
                "freely; its networks, losses, optimiser and the loading of the authors' weights are in generators/sserd/released/. "
                "Leave form clean"
            )
        return self


class Pretraining(Portraits):
    """Generator and encoder alone: pictures of the training part, drawn from noise and drawn again from their codes."""

    settings_class: Annotated[Literal["Pretraining"], tyro.conf.Suppress] = Field(
        "Pretraining", description="This class, for who reads the run's configuration."
    )
    steps: Positive = Field(3000, description="Optimiser steps.")
    global_batch: Positive = Field(
        8,
        description="Samples (two frames, and a drawing) for each optimiser step, over all workers: the run's constant.",
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: _optimizer(2e-3, 20), description="Of generator, mapping and encoder."
    )
    adversarial_weight: Weight = Field(0.3, description="Weight of the discriminator's word on what is drawn.")
    adversarial_every: Positive = Field(
        1, description="Steps from one update by the discriminator, and of it, to the next; more spares time."
    )
    picture_weight: Weight = Field(
        20.0,
        description="Weight of the squared error of what is drawn from a frame's code; eyes, brows and mouth count more.",
    )
    absolute_weight: Weight = Field(2.0, description="Weight of the absolute error, in the same way.")
    path_weight: Weight = Field(
        2.0,
        description="Weight of the path length: equal steps of a code should change a picture equally. 0 leaves it out.",
    )
    path_every: Positive = Field(4, description="Steps from one path length to the next; it weighs as many times more.")
    mixing: Share = Field(0.9, description="Share of drawings whose coarse and fine layers have codes of their own.")
    half_life: Weight = Field(
        2000.0,
        description="Pictures after which the kept average has forgotten half of the weights that were; 0 keeps none.",
    )

    @property
    def half_life_samples(self) -> float:
        """None: this job's network holds its average itself (`networks.Averaged`), and in its checkpoints."""
        return 0.0


class Settings(Portraits, GuidedSettings):
    """SSERD: the residual that an emotion adds to a picture's code, learnt on pairs and on unpaired frames, under frozen priors."""

    settings_class: Annotated[Literal["Settings"], tyro.conf.Suppress] = Field(
        "Settings", description="This class, for who reads the run's configuration."
    )
    steps: Positive = Field(1000, description="Optimiser steps.")
    global_batch: Positive = Field(
        8,
        description="Samples (a source and a reference) for each optimiser step, over all workers: the run's constant.",
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: _optimizer(5e-4, 50, beta=0.9), description="Of the attention that makes the residual."
    )
    pairs: Literal["boundary", "mean", "warp"] = Field(
        "boundary",
        description="What a source is paired with: itself, moved along the normal of an SVM's boundary, as published; moved by the difference "
        "of mean codes; or the recorded frame of the other emotion that a time-warp matches it with.",
    )
    step: Weight = Field(
        1.0,
        description="How far pairs go along a direction, as a share of the distance between the emotions' mean codes on it.",
    )
    paired_share: Share = Field(
        0.5,
        description="Share of samples with a pair; the others have none to equal. 1 is paired training alone, 0 unpaired.",
    )
    picture_weight: Weight = Field(
        20.0, description="Weight of the squared error to the pair; eyes, brows and mouth count more."
    )
    absolute_weight: Weight = Field(2.0, description="Weight of the absolute error, in the same way.")
    kept_weight: Weight = Field(
        10.0, description="Weight of the squared error to the source where the reference shows its own emotion."
    )
    adversarial_weight: Weight = Field(0.1, description="Weight of the discriminator's word on edits.")
    contrast_weight: Weight = Field(
        0.1, description="Weight of the contrast: residuals of an emotion lie near what it adds to people's codes."
    )
    temperature: Annotated[float, Field(gt=0)] = Field(0.1, description="Of the contrast.")
