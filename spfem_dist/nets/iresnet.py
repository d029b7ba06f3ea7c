"""The improved residual network of ArcFace, with InsightFace's parameter names.

Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019;
Duta et al., "Improved Residual Networks for Image and Video Recognition", ICPR 2020.

The default is iresnet50 (blocks 3-4-14-3, 43.6 M parameters), into which InsightFace's `backbone.pth` loads:

    trunk = load_backbone("backbone.pth")
    maps = trunk.feature_map(faces, through="layer3")  # [N, 256, H/8, W/8]

Priors of content take `layer3` of faces at 224 px; face recognition takes `forward` of faces at 112 px.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from spfem_dist.nets.recompute import Recomputing
from spfem_dist.saved import FETCH_AGAIN, refuse_not_finite

#: Channels and blocks of InsightFace's iresnet50.
CHANNELS_50 = (64, 128, 256, 512)
BLOCKS_50 = (3, 4, 14, 3)


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class Block(nn.Module):
    """norm, conv, norm, PReLU, strided conv, norm; plus the input (through a 1x1 conv where the shape changes)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = conv3x3(outputs, outputs, stride)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + skip


class IResNet(Recomputing):
    """An iresnet; the defaults are iresnet50 as InsightFace publishes it.

    channels, blocks: width and number of blocks of layer1 to layer4, each of which halves the side.
    stem: width of the first convolution. embedding: width of the face embedding.
    size: side of the faces given to `forward`, pixels, a multiple of 16 (`feature_map` takes any multiple).
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        channels: tuple[int, int, int, int] = CHANNELS_50,
        blocks: tuple[int, int, int, int] = BLOCKS_50,
        stem: int = 64,
        embedding: int = 512,
        size: int = 112,
    ):
        super().__init__()
        if size % 16:
            raise ValueError(
                f"iresnet size is {size} px; its four layers halve the side, so it must be a multiple of 16"
            )
        self.channels, self.size = channels, size
        self.conv1 = conv3x3(3, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.prelu = nn.PReLU(stem)
        widths = (stem, *channels)
        for number, count in enumerate(blocks, start=1):
            first = Block(widths[number - 1], widths[number], stride=2)
            rest = (Block(widths[number], widths[number], stride=1) for _ in range(count - 1))
            setattr(self, f"layer{number}", nn.Sequential(first, *rest))
        self.bn2 = nn.BatchNorm2d(channels[-1])
        self.fc = nn.Linear(channels[-1] * (size // 16) ** 2, embedding)
        self.features = nn.BatchNorm1d(embedding)
        nn.init.ones_(self.features.weight)
        self.features.weight.requires_grad = False  # InsightFace keeps the scale of the embedding's norm at one

    def feature_map(self, faces: torch.Tensor, through: Literal["layer3", "layer4"] = "layer3") -> torch.Tensor:
        """The map after a layer: [N, 3, H, W] -> [N, channels[2], H/8, W/8] for layer3, [N, channels[3], H/16, W/16] for layer4.

        (Not called `features`: in InsightFace's files that is the name of the last normalisation.)
        """
        if through not in ("layer3", "layer4"):
            raise ValueError(f"through is {through!r}; choose 'layer3' (side / 8) or 'layer4' (side / 16)")
        x = self.prelu(self.bn1(self.conv1(faces)))
        layers = [self.layer1, self.layer2, self.layer3, *([self.layer4] if through == "layer4" else [])]
        for block in (block for layer in layers for block in layer):
            x = self.kept(block, x)
        return x

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Face embeddings [N, embedding] of faces [N, 3, size, size] (InsightFace: RGB in [-1, 1], five-point alignment)."""
        if faces.shape[-2:] != (self.size, self.size):
            raise ValueError(
                f"faces are {tuple(faces.shape)}; this network embeds faces of {self.size} x {self.size} pixels: "
                "resize them, or use feature_map, which takes any size"
            )
        x = self.bn2(self.feature_map(faces, "layer4"))
        return self.features(self.fc(x.flatten(1)))


def iresnet50() -> IResNet:
    """InsightFace's iresnet50 with fresh weights; `load_backbone` fills them."""
    return IResNet()


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint file by name, on the CPU; never runs code from the file.

    path: .safetensors, or anything torch.save wrote that holds tensors only. `module.` prefixes (DataParallel) and one
    level of nesting under `state_dict` or `model` are removed. Raises FileNotFoundError or ValueError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"weights file {path} does not exist; give the path of an existing .pth or .safetensors file"
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors: Any = load_file(path)
    else:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"{path} cannot be read as a file of tensors ({type(error).__name__}: {error}); download it again, or save "
                "the plain state_dict with torch.save or safetensors"
            ) from error
    for outer in ("state_dict", "model"):
        if isinstance(tensors, dict) and isinstance(tensors.get(outer), dict):
            tensors = tensors[outer]
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise ValueError(f"{path} holds no state_dict (names to tensors); save model.state_dict() and give that file")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def load_exactly(module: nn.Module, tensors: dict[str, torch.Tensor], origin: str) -> None:
    """Fills every parameter and buffer of `module`; raises ValueError that lists missing, unknown and misshapen names, or tensors with
    numbers that are not finite.

    `num_batches_tracked` counters may be absent (old files have none).
    """
    own = module.state_dict()
    missing = [n for n in own if n not in tensors and not n.endswith("num_batches_tracked")]
    unknown = [n for n in tensors if n not in own]
    misshapen = [
        f"{n} {tuple(tensors[n].shape)} (expected {tuple(own[n].shape)})"
        for n in own
        if n in tensors and tensors[n].shape != own[n].shape
    ]
    faults = [
        f"{word}: {', '.join(names[:4])}{' and ' + str(len(names) - 4) + ' more' if len(names) > 4 else ''}"
        for word, names in (("missing", missing), ("unknown", unknown), ("wrong shape", misshapen))
        if names
    ]
    if faults:
        raise ValueError(
            f"{origin} does not fit {type(module).__name__} ({len(own)} tensors expected, {len(tensors)} found): "
            f"{'; '.join(faults)}. Give the weights of this very architecture."
        )
    refuse_not_finite(tensors, origin, FETCH_AGAIN)
    module.load_state_dict(tensors, strict=False)


def load_backbone(path: str | Path, network: IResNet | None = None) -> IResNet:
    """`network` (default iresnet50) with the weights of a file, in eval mode.

    path: InsightFace's `backbone.pth` or the same tensors as .safetensors. Raises FileNotFoundError, or ValueError that
    says which names or shapes differ.
    """
    network = iresnet50() if network is None else network
    load_exactly(network, read_tensors(path), str(path))
    return network.eval()
