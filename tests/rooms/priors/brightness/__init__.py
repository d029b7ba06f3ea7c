"""The smallest prior that can do everything: does a frame have the brightness that it should?"""

from typing import Annotated, Literal

import tyro
from pydantic import Field

from spfem_dist.job_settings import Positive, PriorSettings
from spfem_dist.priors.card import PriorCard

CARD = PriorCard(title="a prior of brightness", about="Form {form}, {size} pixels.", figures=("brightness/error",))


class Settings(PriorSettings):
    """The settings of the prior of brightness."""

    kind: Annotated[Literal["brightness"], tyro.conf.Suppress] = Field("brightness", description="The method.")
    steps: Positive = Field(2, description="Optimiser steps.")


def build(settings, data, feature_dim, *, pretrained=True):
    """See `priors.prior.build_prior`."""
    from spfem_dist.priors.brightness.network import Brightness

    return Brightness()
