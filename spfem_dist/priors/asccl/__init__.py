"""ASCCL, adaptive spatial coherent correlation learning (Chen et al., CVPR 2024): do two faces say the same, place by place?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spfem_dist.config import Data
from spfem_dist.priors.asccl.card import CARD
from spfem_dist.priors.asccl.settings import Settings

if TYPE_CHECKING:  # the networks are imported when one is built
    from torch import nn

__all__ = ["CARD", "Settings", "build"]


def build(settings: Settings, data: Data, feature_dim: int, *, pretrained: bool = True) -> nn.Module:
    """See `priors.prior.build_prior`. It does not listen: feature_dim is not used."""
    if settings.form == "released":
        from spfem_dist.priors.asccl.released import ReleasedASCCL

        return ReleasedASCCL(settings, pretrained=pretrained)
    from spfem_dist.priors.asccl.clean import CleanASCCL

    return CleanASCCL(settings, data, pretrained=pretrained)
