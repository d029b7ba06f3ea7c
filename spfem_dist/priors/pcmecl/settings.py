"""What PCMECL learns with."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import Field

from spfem_dist.job_settings import Optimizer, Positive, PriorSettings, Weight


class Settings(PriorSettings):
    """Personalised cross-modal emotional correlation learning: prompts made for the speaker (PCMECL, our design of its abstract)."""

    kind: Annotated[Literal["pcmecl"], tyro.conf.Suppress] = Field(
        "pcmecl", description="The method: a room of spfem_dist/priors."
    )
    form: Annotated[Literal["clean"], tyro.conf.Suppress] = Field(  # type: ignore[assignment]
        "clean", description="No code was published: there is no other form."
    )
    steps: Positive = Field(400, description="Optimiser steps.")
    global_batch: Positive = Field(
        8, description="Samples (utterance groups) for each optimiser step, over all workers: the run's constant."
    )
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=1e-3, warmup_steps=20))
    embedding: Positive = Field(128, description="Width of the emotion embedding (small network).")
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="Temperature of the contrasts.")
    generic_weight: Weight = Field(1.0, description="Weight of recognition by prompts that are nobody's.")
    direction_weight: Weight = Field(
        1.0, description="Weight of the agreement between changes of the face and changes of the prompt."
    )
    size_weight: Weight = Field(0.1, description="Weight of the mean square of what makes a prompt personal.")
