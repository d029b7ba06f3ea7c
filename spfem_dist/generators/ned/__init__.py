"""NED (Papantoniou et al., CVPR 2022): a manipulator rewrites expression coefficients, a renderer redraws the face."""

from spfem_dist import job_settings

__all__ = ["Settings"]

Settings = job_settings.NED
