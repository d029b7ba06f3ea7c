"""CCRL, contrastive content representation learning (CDRL, Chen et al., IJCV 2025): do two faces say the same thing?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spfem_dist.config import Data
from spfem_dist.priors.ccrl.card import CARD
from spfem_dist.priors.ccrl.settings import Settings

if TYPE_CHECKING:  # the networks are imported when one is built
    from torch import nn

__all__ = ["CARD", "Settings", "build"]


def build(settings: Settings, data: Data, feature_dim: int, *, pretrained: bool = True) -> nn.Module:
    """See `priors.prior.build_prior`."""
    if settings.form == "released":
        from spfem_dist.priors.ccrl.released import ReleasedCCRL

        return ReleasedCCRL(settings, data, feature_dim, pretrained=pretrained)
    from spfem_dist.priors.ccrl.clean import CleanCCRL

    return CleanCCRL(settings, data, feature_dim, pretrained=pretrained)
