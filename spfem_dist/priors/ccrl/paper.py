"""CCRL's published size: the speech network in front of `nets.arcface.ArcFaceMap`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.nets.batchnorm import BatchNorm1d


class Wav2VecWindow(nn.Module):
    """wav2vec rows [N, W, F] (F = 1024) -> [N, width]: the first learned layer is the paper's Linear(F, 512)."""

    def __init__(self, features: int, window: int, width: int):
        super().__init__()
        self.project = nn.Linear(features, 512)
        self.project_norm = BatchNorm1d(512)
        self.join = nn.Linear(512 * window, width, bias=False)
        self.join_norm = BatchNorm1d(width)

    def forward(self, speech: Tensor) -> Tensor:
        code = F.relu(self.project_norm(self.project(speech).transpose(1, 2)))
        return F.relu(self.join_norm(self.join(code.flatten(1))))
