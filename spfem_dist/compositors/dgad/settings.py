"""Settings of DGAD, the two jobs of a run: geometry first, then appearance with the geometry frozen."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import Field, model_validator

from spfem_dist.job_settings import JobSettings, Optimizer, Place, Positive, Share


class Composition(JobSettings):
    """What both jobs have: how a head is displaced that is to be put back, and how noise is added and taken away."""

    kind: Annotated[Literal["dgad"], tyro.conf.Suppress] = Field(
        "dgad", description="The method: a room of compositors."
    )
    network: Literal["small", "paper"] = Field(
        "small",
        description="small draws pixels and trains on a laptop; paper draws Stable Diffusion's latents with the published widths.",
    )
    weights: Annotated[str, Place()] = Field(
        "",
        description="For paper: folder of Stable Diffusion 1.5 (inpainting) as diffusers keeps it, of which vae/ is used frozen and unet/ is "
        "begun from.",
    )
    clip: Annotated[str, Place()] = Field(
        "", description="For paper: folder of CLIP's image tower (ViT-H) as transformers keeps it, used frozen."
    )
    grow: Share = Field(
        0.06, description="How far the hole reaches beyond the face's landmarks, as a share of the frame's side."
    )
    shift: Share = Field(0.06, description="Largest shift of the head that is put in, as a share of the frame's side.")
    roll: Annotated[float, Field(ge=0, le=180)] = Field(10.0, description="Its largest roll, degrees.")
    scale: Share = Field(0.08, description="By how much it is larger or smaller, at most.")
    light: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.35, description="By how much it is brighter or darker, at most."
    )
    noise_steps: Positive = Field(200, description="Steps from a picture to noise.")
    prediction: Literal["sample", "v_prediction", "epsilon"] = Field(
        "sample", description="What the network predicts: the picture, the velocity, or (as published) the noise."
    )
    sampling_steps: Positive = Field(
        20, description="Steps from noise to a picture when a head is put in (DDIM); at most noise_steps."
    )
    outside: Share = Field(0.1, description="Weight of the error outside the hole; that inside has 1.")

    @model_validator(mode="after")
    def _trainable(self) -> Composition:
        if self.form == "released":
            raise ValueError(
                "form released cannot be trained: its gate depends on the whole batch, so that losses would depend on the number of workers, "
                "and it wants weights that cannot be had; its block is in compositors/dgad/attention.py. Leave form clean"
            )
        if self.sampling_steps > self.noise_steps:
            raise ValueError(
                f"sampling_steps {self.sampling_steps} are more than noise_steps {self.noise_steps}: give at most as many"
            )
        return self


class Geometry(Composition):
    """The first job: a diffusion network fills the hole by what a compact vector says of the head."""

    settings_class: Annotated[Literal["Geometry"], tyro.conf.Suppress] = Field(
        "Geometry", description="This class, for who reads the run's configuration."
    )
    steps: Positive = Field(4000, description="Optimiser steps.")
    global_batch: Positive = Field(
        8,
        description="Samples (a frame with its head displaced) for each optimiser step, over all workers: the run's constant.",
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer(name="adamw", lr=8e-4, warmup_steps=100),
        description="Of the diffusion network.",
    )


class Settings(Composition):
    """The second job: a reference network and dense cross-attention bring the head's looks, the first job's network standing still."""

    settings_class: Annotated[Literal["Settings"], tyro.conf.Suppress] = Field(
        "Settings", description="This class, for who reads the run's configuration."
    )
    steps: Positive = Field(2000, description="Optimiser steps.")
    global_batch: Positive = Field(
        8,
        description="Samples (a frame with its head displaced) for each optimiser step, over all workers: the run's constant.",
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer(name="adamw", lr=8e-4, warmup_steps=100),
        description="Of the reference network and the dense cross-attention.",
    )
