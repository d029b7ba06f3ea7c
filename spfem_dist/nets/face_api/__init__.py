"""Networks of face-api (npm `@vladmandic/face-api`, MIT), which judge real faces: expression, 68 landmarks, identity.

    networks.py   ExpressionNetwork, LandmarkNetwork, RecognitionNetwork
    quantised.py  their weights as the package stores them: a manifest and bytes with a scale for each tensor

The weights are `spfem weights pull face-api`.
"""

from spfem_dist.nets.face_api.networks import (
    ExpressionNetwork,
    LandmarkNetwork,
    RecognitionNetwork,
)
from spfem_dist.nets.face_api.quantised import load_network

__all__ = ["ExpressionNetwork", "LandmarkNetwork", "RecognitionNetwork", "load_network"]
