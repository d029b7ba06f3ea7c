"""STCCL-VD, spatial-temporal coherent correlation learning by visual differences (TPAMI 2026): do two windows say the same?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spfem_dist.config import Data
from spfem_dist.priors.stccl_vd.card import CARD
from spfem_dist.priors.stccl_vd.settings import Settings

if TYPE_CHECKING:  # the networks are imported when one is built
    from torch import nn

__all__ = ["CARD", "Settings", "build"]


def build(settings: Settings, data: Data, feature_dim: int, *, pretrained: bool = True) -> nn.Module:
    """See `priors.prior.build_prior`. It does not listen: feature_dim is not used."""
    if settings.form == "released":
        from spfem_dist.priors._stccl.released import ReleasedSTCCL

        paper = settings.network == "paper"
        return ReleasedSTCCL(settings.kind, settings.published, settings.window, paper, pretrained)
    from spfem_dist.priors._stccl.clean import CleanSTCCL, trunk_of
    from spfem_dist.priors._stccl.relations import Differences

    trunk = trunk_of(settings, pretrained)
    return CleanSTCCL(settings, trunk, Differences(trunk.channels, settings.window))
