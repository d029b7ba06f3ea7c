"""NED (Papantoniou et al., CVPR 2022): a manipulator rewrites expression coefficients, a renderer redraws the face."""

from spfem_dist.job_settings import NED as Settings

__all__ = ["Settings"]
