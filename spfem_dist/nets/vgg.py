"""VGG-19 (Simonyan and Zisserman, ICLR 2015) as a measure of how alike two pictures look: the perceptual loss of renderers.

Parameter names are torchvision's, so that its ImageNet file loads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spfem_dist.nets.iresnet import load_exactly
from spfem_dist.weights import locate

#: Widths of the convolutions of each block; a maximum over 2 x 2 pixels stands between blocks.
BLOCKS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
#: Weight of each block's first rectified convolution (relu1_1 to relu5_1), as pix2pixHD weighs them.
LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
#: ImageNet's mean and spread, RGB in 0..1.
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG19(nn.Module):
    """The convolutions up to relu5_1, frozen. blocks: widths, smaller ones for tests."""

    mean: Tensor
    spread: Tensor

    def __init__(self, blocks: tuple[tuple[int, ...], ...] = BLOCKS):
        super().__init__()
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        before = 3
        for number, widths in enumerate(blocks):
            layers += [nn.MaxPool2d(2)] if number else []
            for place, width in enumerate(widths):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
                if place == 0:
                    self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        for name, values in (("mean", MEAN), ("spread", SPREAD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    @classmethod
    def pretrained(cls) -> VGG19:
        """With torchvision's ImageNet weights; raises MissingWeights that says where they come from."""
        network = cls()
        path = locate("vgg19-imagenet")
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        load_exactly(network, {k: v for k, v in tensors.items() if k.startswith("features.")}, str(path))
        return network

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """relu1_1 to relu5_1 of pictures [N, 3, H, W] in [-1, 1], RGB; sides of at least 16 pixels."""
        x = ((pictures + 1) / 2 - self.mean) / self.spread
        found = []
        for number, layer in enumerate(self.features[: self.taps[-1] + 1]):
            x = layer(x)
            if number in self.taps:
                found.append(x)
        return found

    def distance(self, drawn: Tensor, real: Tensor) -> Tensor:
        """How unlike each drawn picture is to its real one [N]; gradients reach `drawn` alone."""
        with torch.no_grad():
            wanted = self(real)
        pairs = zip(LAYER_WEIGHTS, self(drawn), wanted, strict=True)
        return torch.stack([w * (a - b).abs().mean((1, 2, 3)) for w, a, b in pairs]).sum(0)
