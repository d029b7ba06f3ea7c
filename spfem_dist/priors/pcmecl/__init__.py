"""PCMECL, personalised cross-modal emotional correlation learning (arXiv 2604.25255): how does this speaker show an emotion?

Only the paper's abstract could be had. Personal prompts and differences of features are its ideas; all else here is our design.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spfem_dist.config import Data
from spfem_dist.priors.pcmecl.card import CARD
from spfem_dist.priors.pcmecl.settings import Settings

if TYPE_CHECKING:  # the networks are imported when one is built
    from torch import nn

__all__ = ["CARD", "Settings", "build"]


def build(settings: Settings, data: Data, feature_dim: int, *, pretrained: bool = True) -> nn.Module:
    """See `priors.prior.build_prior`. It does not listen: feature_dim is not used."""
    from spfem_dist.priors.pcmecl.clean import CleanPCMECL

    return CleanPCMECL(settings, pretrained=pretrained)
