"""NED (Papantoniou et al., CVPR 2022): a manipulator rewrites expression coefficients, a renderer redraws the face."""

from spfem_dist.generators.ned.card import CARD
from spfem_dist.generators.ned.saved import load
from spfem_dist.generators.ned.settings import Pretraining, Settings
from spfem_dist.generators.ned.stage import Stage

__all__ = ["CARD", "Pretraining", "Settings", "Stage", "load"]
