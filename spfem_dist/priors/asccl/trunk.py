"""The trunk of published size: all four maps of an iresnet50 that begins from ArcFace's weights and is trained with the rest."""

from __future__ import annotations

from torch import Tensor

from spfem_dist.nets.iresnet import IResNet, iresnet50, load_backbone

#: Side of the faces that it sees, pixels.
PAPER_SIZE = 224


def paper_trunk(pretrained: bool) -> IResNet:
    """iresnet50 without its embedding, with ArcFace's weights or random; raises MissingWeights with what to do."""
    if pretrained:
        from spfem_dist.weights import locate

        trunk = load_backbone(locate("arcface-iresnet50")).train()
    else:
        trunk = iresnet50()
    return without_embedding(trunk)


def without_embedding(trunk: IResNet) -> IResNet:
    """The trunk without the layers that make an embedding of its last map, in place."""
    del trunk.fc, trunk.features
    return trunk


def four_maps(trunk: IResNet, images: Tensor) -> list[Tensor]:
    """Images [N, 3, H, W] -> the maps of layer1 to layer4, the first half as high as the images."""
    x, found = trunk.prelu(trunk.bn1(trunk.conv1(images))), []
    for layer in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
        x = layer(x)
        found.append(x)
    return found
