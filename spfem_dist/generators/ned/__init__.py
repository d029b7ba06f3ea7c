"""NED (Papantoniou et al., CVPR 2022): a manipulator rewrites expression coefficients, a renderer redraws the face."""
