"""SSERD (Xu et al., ACM MM 2024): a StyleGAN2 and its encoder; what an emotion adds to a picture's code is learnt on pairs of its own making."""

from spfem_dist.generators.sserd.card import CARD
from spfem_dist.generators.sserd.saved import load
from spfem_dist.generators.sserd.settings import Pretraining, Settings
from spfem_dist.generators.sserd.stage import Stage

__all__ = ["CARD", "Pretraining", "Settings", "Stage", "load"]
