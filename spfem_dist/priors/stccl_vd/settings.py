"""What STCCL-VD learns with."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import Field

from spfem_dist.priors._stccl.settings import WindowSettings


class Settings(WindowSettings):
    """Spatial-temporal coherent correlation learning by visual differences: a metric between windows of one speaker (STCCL-VD)."""

    kind: Annotated[Literal["stccl_vd"], tyro.conf.Suppress] = Field(
        "stccl_vd", description="The method: a room of spfem_dist/priors."
    )
    published: Literal["temporal", "spatial", "joint"] = Field(
        "temporal",
        description="Which of the published models: temporal is the one that was trained; joint needs much memory (released form).",
    )
