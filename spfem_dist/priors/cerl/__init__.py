"""CERL, contrastive emotion representation learning (CDRL, Chen et al., IJCV 2025): which emotion does a face show?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spfem_dist.config import Data
from spfem_dist.priors.cerl.card import CARD
from spfem_dist.priors.cerl.settings import Settings

if TYPE_CHECKING:  # the networks are imported when one is built
    from torch import nn

__all__ = ["CARD", "Settings", "build"]


def build(settings: Settings, data: Data, feature_dim: int, *, pretrained: bool = True) -> nn.Module:
    """See `priors.prior.build_prior`."""
    if settings.form == "released":
        from spfem_dist.priors.cerl.released import ReleasedCERL

        return ReleasedCERL(settings, data, pretrained=pretrained)
    from spfem_dist.priors.cerl.clean import CleanCERL

    return CleanCERL(settings, data, pretrained=pretrained)
