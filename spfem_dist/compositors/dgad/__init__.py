"""DGAD (Lin et al., arXiv 2505.20914): a diffusion network puts a head into a scene, geometry first, then the head's own looks."""

from spfem_dist.compositors.dgad.card import CARD
from spfem_dist.compositors.dgad.saved import load
from spfem_dist.compositors.dgad.settings import Geometry, Settings
from spfem_dist.compositors.dgad.stage import Stage

__all__ = ["CARD", "Geometry", "Settings", "Stage", "load"]
