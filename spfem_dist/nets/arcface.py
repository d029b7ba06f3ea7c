"""ArcFace's features of a face as a map, with one learned block on top: what priors of published size look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spfem_dist.nets.batchnorm import BatchNorm2d, synchronise
from spfem_dist.nets.iresnet import iresnet50, load_backbone

#: Side of the faces that the trunk sees, pixels.
SIDE = 224


class ArcFaceMap(nn.Module):
    """Faces [N, 3, 224, 224] in [-1, 1] -> map [N, 256, 28, 28]: layer3 of a frozen iresnet50 and one learned block.

    `pretrained=False` leaves the trunk random, for tests, dry runs, and checkpoints that bring their own weights.
    """

    channels, map_side = 256, SIDE // 8
    compilable = True

    def __init__(self, pretrained: bool = True):
        super().__init__()
        if pretrained:
            from spfem_dist.weights import locate

            self.trunk = load_backbone(locate("arcface-iresnet50"))
        else:
            self.trunk = iresnet50()
        # Their norms take a half-precision picture beside statistics in single precision, as DeepSpeed leaves them under bf16.
        synchronise(self.trunk).requires_grad_(False)
        self.adapt = nn.Sequential(
            nn.Conv2d(self.channels, self.channels, 3, padding=1, bias=False),
            BatchNorm2d(self.channels),
            nn.ReLU(inplace=True),
        )

    def train(self, mode: bool = True) -> ArcFaceMap:
        """The trunk stays in eval mode, so that its batch norms never move."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, faces: Tensor) -> Tensor:
        # A GPU's matrix units take convolutions with channels last; otherwise every layer would be turned around.
        if faces.is_cuda:
            faces = faces.contiguous(memory_format=torch.channels_last)
        # Stage 2 asks for gradients of the picture; stage 1 for none of the trunk.
        with torch.set_grad_enabled(torch.is_grad_enabled() and faces.requires_grad):
            trunk = self.trunk.feature_map(faces, "layer3")
        return trunk + self.adapt(trunk)
