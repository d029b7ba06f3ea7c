"""What both ways of STCCL learn with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from spfem_dist.job_settings import Optimizer, Positive, PriorSettings, Share


class WindowSettings(PriorSettings):
    """Spatial-temporal coherent correlation learning: a metric between windows of frames of one speaker (STCCL)."""

    steps: Positive = Field(150, description="Optimiser steps.")
    global_batch: Positive = Field(
        4, description="Samples (utterance groups) for each optimiser step, over all workers: the run's constant."
    )
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=3e-3, warmup_steps=20))
    window: Annotated[int, Field(ge=2)] = Field(5, description="Consecutive frames that one judgement needs (T).")
    stretch: Annotated[int, Field(ge=2)] = Field(
        10, description="Consecutive frames of each recording in a sample; all windows of it are compared (clean form)."
    )
    window_gap: Positive = Field(
        3, description="Smallest shift of a window that is told from the matching one, frames (clean form)."
    )
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="Temperature of the contrasts.")
    spatial_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of relations within a frame.")
    temporal_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of relations between frames (mu).")
    moment_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of telling the matching window from shifted ones (clean form)."
    )
    mouth_share: Share = Field(
        0.5, description="Share of the places that are drawn around the mouth, the rest anywhere (clean form)."
    )

    @model_validator(mode="after")
    def _stretch_holds_other_windows(self) -> WindowSettings:
        if self.form == "clean" and self.stretch < (least := self.window + self.window_gap):
            raise ValueError(
                f"{self.kind}.stretch {self.stretch} holds no window of {self.window} frames that is shifted by window_gap "
                f"{self.window_gap}: use {least} or more"
            )
        return self
