"""What STCCL-CM learns with."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro
from pydantic import Field, field_validator

from spfem_dist.priors._stccl.settings import WindowSettings


class Settings(WindowSettings):
    """Spatial-temporal coherent correlation learning by correlation matrices: a metric between windows of one speaker (STCCL-CM)."""

    kind: Annotated[Literal["stccl_cm"], tyro.conf.Suppress] = Field(
        "stccl_cm", description="The method: a room of spfem_dist/priors."
    )

    @field_validator("form")
    @classmethod
    def _clean_alone(cls, form: str) -> str:
        if form == "released":
            raise ValueError("no code of STCCL's correlation matrix was published: leave stccl_cm.form clean")
        return form
