"""The layers of face-api's expression, landmark and recognition networks.

Layer lists, padding and the scale of pixels are those of the package's sources, version 1.7.15 (`src/faceFeatureExtractor`,
`src/faceRecognitionNet`); parameters are called as in its manifests. All are frozen and take whole pictures of faces, cut
as `spfem_dist.evaluation.open_judges.faces` cuts them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.emotions import Emotion

#: Mean colour that is taken from the pixels, RGB in 0..255, and what the rest is divided by (dlib's own code divides by 256).
MEAN, RANGE = (122.782, 117.001, 104.298), 255.0
#: The expression network's classes, in its order.
EXPRESSIONS = (
    *(Emotion.NEUTRAL, Emotion.HAPPY, Emotion.SAD, Emotion.ANGRY),
    *(Emotion.FEAR, Emotion.DISGUSTED, Emotion.SURPRISED),
)


#: The recognition network's blocks by name, (input channels, channels, at half the size), from the first to the last.
BLOCKS = {
    **{f"conv32_{n}": (32, 32, False) for n in (1, 2, 3)},
    **{"conv64_down": (32, 64, True)} | {f"conv64_{n}": (64, 64, False) for n in (1, 2, 3)},
    **{"conv128_down": (64, 128, True)} | {f"conv128_{n}": (128, 128, False) for n in (1, 2)},
    **{"conv256_down": (128, 256, True)} | {f"conv256_{n}": (256, 256, False) for n in (1, 2)},
    "conv256_down_out": (256, 256, True),
}
#: Euclidean distance of two descriptors below which face-api (and dlib) take two faces for one person's.
SAME_PERSON = 0.6


class _Faces(nn.Module):
    """side: of the pictures that the network takes, pixels. model: its name among the package's files."""

    side: int
    model: str
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)

    def _normalised(self, faces: Tensor) -> Tensor:
        if faces.shape[1:] != (3, self.side, self.side):
            raise ValueError(
                f"{type(self).__name__} takes RGB faces [N, 3, {self.side}, {self.side}], found {list(faces.shape)}"
            )
        return (faces.to(self.mean.dtype) - self.mean) / RANGE


class SeparableConv(nn.Module):
    """3 x 3 over each channel, then 1 x 1 over all; output ceil(input / stride) wide, as TensorFlow's `same`."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.stride = stride
        self.depthwise_filter = nn.Parameter(torch.zeros(before, 1, 3, 3))
        self.pointwise_filter = nn.Parameter(torch.zeros(width, before, 1, 1))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(_same(x, 3, self.stride), self.depthwise_filter, stride=self.stride, groups=x.shape[1])
        return F.conv2d(x, self.pointwise_filter, self.bias)


class Conv(nn.Module):
    """A convolution with a bias. same: padded as TensorFlow does, else not at all."""

    def __init__(self, before: int, width: int, side: int, stride: int, same: bool):
        super().__init__()
        self.side, self.stride, self.same = side, stride, same
        self.filters = nn.Parameter(torch.zeros(width, before, side, side))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        x = _same(x, self.side, self.stride) if self.same else x
        return F.conv2d(x, self.filters, self.bias, stride=self.stride)


class DenseBlock(nn.Module):
    """Four convolutions at half the size, each of the sum of those before it."""

    def __init__(self, before: int, width: int, first: bool):
        super().__init__()
        self.conv0: nn.Module = Conv(before, width, 3, 2, same=True) if first else SeparableConv(before, width, 2)
        self.conv1, self.conv2, self.conv3 = (SeparableConv(width, width, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        total = F.relu(self.conv0(x))
        total = total + self.conv1(total)
        total = total + self.conv2(F.relu(total))
        return F.relu(total + self.conv3(F.relu(total)))


class _FeatureNetwork(_Faces):
    """Four dense blocks of 32 to 256 channels on 112 x 112 pixels, their mean over the last 7 x 7, one linear layer."""

    side = 112

    def __init__(self, outputs: int):
        super().__init__()
        for number, width in enumerate((32, 64, 128, 256)):
            self.add_module(f"dense{number}", DenseBlock(3 if number == 0 else width // 2, width, first=number == 0))
        self.fc = _Linear(256, outputs)
        self.eval().requires_grad_(False)

    def outputs(self, faces: Tensor) -> Tensor:
        """The linear layer's outputs [N, O] of RGB faces [N, 3, 112, 112] in 0..255, of any type."""
        x = self._normalised(faces)
        for number in range(4):
            x = self.get_submodule(f"dense{number}")(x)
        return self.fc(x.mean((2, 3)))


class ExpressionNetwork(_FeatureNetwork):
    """What a face shows, by `EXPRESSIONS`."""

    model = "face_expression_model"

    def __init__(self) -> None:
        super().__init__(len(EXPRESSIONS))

    def forward(self, faces: Tensor) -> Tensor:
        """Probabilities [N, 7] of RGB faces [N, 3, 112, 112] in 0..255."""
        return self.outputs(faces).softmax(1)


class LandmarkNetwork(_FeatureNetwork):
    """The 68 iBUG landmarks of a face."""

    model = "face_landmark_68_model"

    def __init__(self) -> None:
        super().__init__(2 * 68)

    def forward(self, faces: Tensor) -> Tensor:
        """Points (x, y) [N, 68, 2] as shares of the picture's side, of RGB faces [N, 3, 112, 112] in 0..255."""
        return self.outputs(faces).view(-1, 68, 2)


class ScaledConv(nn.Module):
    """A convolution whose batch normalisation has become a scale and a bias for each channel."""

    def __init__(self, before: int, width: int, side: int, stride: int, same: bool):
        super().__init__()
        self.conv = Conv(before, width, side, stride, same)
        self.scale = _Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(self.conv(x))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside the input. down: at half the size, the input averaged and its channels filled with zeros."""

    def __init__(self, before: int, width: int, down: bool):
        super().__init__()
        self.down = down
        self.conv1 = ScaledConv(before, width, 3, 2 if down else 1, same=not down)
        self.conv2 = ScaledConv(width, width, 3, 1, same=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
            # The average of an even side is a row and a column larger than the convolution.
            out = F.pad(out, (0, x.shape[3] - out.shape[3], 0, x.shape[2] - out.shape[2]))
            x = F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
        return F.relu(out + x)


class RecognitionNetwork(_Faces):
    """Who it is: dlib's ResNet-34 layout with 29 convolutions, 128 numbers. Faces nearer than SAME_PERSON are one person's."""

    side = 150
    model = "face_recognition_model"

    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = ScaledConv(3, 32, 7, 2, same=False)
        for name, shape in BLOCKS.items():
            self.add_module(name, ResidualBlock(*shape))
        self.fc = nn.Parameter(torch.zeros(128, 256))
        self.eval().requires_grad_(False)

    def forward(self, faces: Tensor) -> Tensor:
        """Descriptors [N, 128], to be compared by their Euclidean distance, of RGB faces [N, 3, 150, 150] in 0..255."""
        x = F.max_pool2d(F.relu(self.conv32_down(self._normalised(faces))), 3, 2)
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3)) @ self.fc.T


class _Scale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weights, self.biases = (nn.Parameter(torch.zeros(width)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights.view(1, -1, 1, 1) + self.biases.view(1, -1, 1, 1)


class _Linear(nn.Module):
    def __init__(self, before: int, width: int):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(width, before))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weights, self.bias)


def _same(x: Tensor, side: int, stride: int) -> Tensor:
    """Zeros around x, as many as TensorFlow's `same` adds; an odd number has its greater half behind."""
    down, right = (max(0, (-(-n // stride) - 1) * stride + side - n) for n in x.shape[2:])
    return F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
