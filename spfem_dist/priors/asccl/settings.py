"""What ASCCL learns with."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import Field

from spfem_dist.job_settings import Optimizer, Positive, PriorSettings, Share


class Settings(PriorSettings):
    """Adaptive spatial coherent correlation learning: a metric between pictures of one speaker (ASCCL)."""

    kind: Annotated[Literal["asccl"], tyro.conf.Suppress] = Field(
        "asccl", description="The method: a room of spfem_dist/priors."
    )
    steps: Positive = Field(400, description="Optimiser steps.")
    global_batch: Positive = Field(
        8, description="Samples (utterance groups) for each optimiser step, over all workers: the run's constant."
    )
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=3e-3, warmup_steps=20))
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="Temperature of the contrasts.")
    moment_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of telling the matching frame from other moments of the clip (clean form)."
    )
    mouth_share: Share = Field(
        0.5, description="Share of the places that are drawn around the mouth, the rest anywhere (clean form)."
    )
