"""ICface (Tripathy, Kannala, Rahtu, WACV 2020): a neutraliser takes the expression out of a picture, an animator puts action units in."""

from spfem_dist.generators.icface.card import CARD
from spfem_dist.generators.icface.saved import load
from spfem_dist.generators.icface.settings import Pretraining, Settings
from spfem_dist.generators.icface.stage import Stage

__all__ = ["CARD", "Pretraining", "Settings", "Stage", "load"]
