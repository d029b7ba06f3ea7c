"""The settings of CERL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from spfem_dist.job_settings import CachedSettings, Optimizer, Positive, Share

#: Our descriptions of the emotions. The authors' checkpoints were trained on their own texts: give those, word for word, to load them.
DESCRIPTORS = Path(__file__).with_name("descriptors.json")


class Settings(CachedSettings):
    """Contrastive emotion representation learning with learned emotion priors (CDRL, CERL)."""

    kind: Annotated[Literal["cerl"], tyro.conf.Suppress] = Field(
        "cerl", description="The method: a room of spfem_dist/priors."
    )
    steps: Positive = Field(900, description="Optimiser steps.")
    global_batch: Positive = Field(
        4, description="Samples (utterance groups) for each optimiser step, over all workers: the run's constant."
    )
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=1e-3, warmup_steps=20))
    embedding: Positive = Field(128, description="Width of the emotion embedding (small network).")
    descriptors: str = Field(
        "",
        description="Descriptions of the emotions in CERL's prompts (released form): empty for ours, 'authors' for the weights "
        "entry cdrl-descriptors, or a JSON file {emotion name: text}.",
    )
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="Temperature of the image-to-prior contrast.")
    mouth_mixing: Share = Field(1.0, description="Share of images whose mouth is taken from another frame.")
    mouth_source: Literal["sample", "recording"] = Field(
        "sample",
        description="Where that mouth comes from: any recording of the sample, or another moment of the same one.",
    )
    consistency_weight: Annotated[float, Field(ge=0)] = Field(
        4.0, description="Weight of the agreement between an image and its mouth-mixed twin."
    )
