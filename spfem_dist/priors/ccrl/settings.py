"""The settings of CCRL."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import Field

from spfem_dist.job_settings import Optimizer, Positive, PriorSettings, Share


class Settings(PriorSettings):
    """Contrastive content representation learning, guided by speech (CDRL, CCRL)."""

    kind: Annotated[Literal["ccrl"], tyro.conf.Suppress] = Field(
        "ccrl", description="The method: a room of spfem_dist/priors."
    )
    steps: Positive = Field(700, description="Optimiser steps.")
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=3e-3, warmup_steps=20))
    embedding: Positive = Field(128, description="Width of the content embedding (small network).")
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="Temperature of the audio-visual contrast.")
    image_temperature: Annotated[float, Field(gt=0)] = Field(0.1, description="Temperature of the image-only contrast.")
    image_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of the image-only contrast.")
    sync_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of the image-to-speech synchrony contrast."
    )
    same_speech_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of the contrast in which every candidate is given the query's speech, as stage 2 does."
    )
    wrong_speech: bool = Field(True, description="Use the right image under the wrong speech as a negative.")
    speech_dropout: Share = Field(0.3, description="Share of frames whose speech is hidden during training.")
    spatial_bias: Annotated[float, Field(ge=0)] = Field(
        1.5,
        description="Standard deviation of the attention's spatial bias at the start; with 0 it begins as an average.",
    )
    heads: Positive = Field(8, description="Attention heads: queries that the speech puts to the face.")
    erase_emotion: bool = Field(
        True,
        description="Take out of the finished embedding what a linear classifier could know of the emotion (LEACE).",
    )
