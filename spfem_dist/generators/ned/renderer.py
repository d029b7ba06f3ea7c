"""NED's renderer: conditioning maps of a face become its picture, frame after frame (Head2Head, Koujan et al. 2020).

A frame's condition is nine maps (normalised coordinates 3, gaze 3, shape 3) and the face's mask. The generator sees three
frames of them and its own last two pictures. Names of layers are the authors', so that their state_dicts load.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.nets.iresnet import load_exactly

#: Condition channels of a frame, without and with the mask; frames that the generator sees; own pictures it sees.
MAPS, CHANNELS, FRAMES, PREVIOUS = 9, 10, 3, 2


def _norm(channels: int) -> nn.InstanceNorm2d:
    """Published: no affine part, running statistics kept (train mode, in which they are not used, is never left)."""
    return nn.InstanceNorm2d(channels, affine=False, track_running_stats=True)


class ResidualBlock(nn.Module):
    """x + (pad, conv, norm, ReLU, pad, conv, norm)(x)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            _norm(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            _norm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] -> the same shape."""
        return x + self.conv_block(x)


def _encoder(inputs: int, width: int, downsamplings: int, blocks: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, width, 7), _norm(width), nn.ReLU()]
    for i in range(downsamplings):
        here = width * 2**i
        layers += [nn.Conv2d(here, 2 * here, 3, stride=2, padding=1), _norm(2 * here), nn.ReLU()]
    return nn.Sequential(*layers, *(ResidualBlock(width * 2**downsamplings) for _ in range(blocks)))


class Generator(nn.Module):
    """Two encoders, of the condition and of the last pictures, summed; residual blocks; a decoder. Outside the mask it is -1.

    width: channels of the first layer (64). blocks: residual blocks in all (9; half of them, rounded up, in each encoder).
    """

    def __init__(self, width: int = 64, downsamplings: int = 3, blocks: int = 9, frames: int = FRAMES):
        super().__init__()
        self.frames = frames
        early = blocks - blocks // 2
        self.model_down_seg = _encoder(frames * MAPS, width, downsamplings, early)
        self.model_down_img = _encoder(PREVIOUS * 3, width, downsamplings, early)
        deep = width * 2**downsamplings
        self.model_res_img = nn.Sequential(*(ResidualBlock(deep) for _ in range(blocks - early)))
        up: list[nn.Module] = []
        for i in range(downsamplings):
            here = deep // 2**i
            up += [
                nn.ConvTranspose2d(here, here // 2, 3, stride=2, padding=1, output_padding=1),
                _norm(here // 2),
                nn.ReLU(),
            ]
        self.model_up_img = nn.Sequential(*up)
        self.model_final_img = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, condition: Tensor, previous: Tensor) -> Tensor:
        """A picture [N, 3, H, W] in [-1, 1].

        condition: [N, frames * 10, H, W], for each frame nine maps in [0, 1] and the mask. previous: the last two pictures,
        [N, 6, H, W], zeros before the first.
        """
        n, _, h, w = condition.shape
        by_frame = condition.view(n, self.frames, CHANNELS, h, w)
        maps, mask = by_frame[:, :, :MAPS].flatten(1, 2), by_frame[:, -1, MAPS:]
        x = self.model_res_img(self.model_down_seg(maps) + self.model_down_img(previous))
        picture = self.model_final_img(self.model_up_img(x))
        return picture * mask - (1 - mask)

    def sequence(self, conditions: Tensor, previous: Tensor | None = None) -> Tensor:
        """Pictures [N, T - frames + 1, 3, H, W] of conditions [N, T, 10, H, W], each seeing the two before it, detached.

        previous: [N, 6, H, W], the pictures before the first; zeros where None.
        """
        n, t, _, h, w = conditions.shape
        if previous is None:
            previous = conditions.new_zeros(n, PREVIOUS * 3, h, w)
        made = []
        for first in range(t - self.frames + 1):
            made.append(self(conditions[:, first : first + self.frames].flatten(1, 2), previous))
            previous = torch.cat([previous[:, 3:], made[-1].detach()], 1)
        return torch.stack(made, 1)

    def load_released(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Fill it from the authors' state_dict, which holds each residual block twice, under two names of one tensor.

        Raises ValueError where a tensor is missing, unknown or does not fit.
        """
        load_exactly(self, {n: t for n, t in tensors.items() if ".resnetblock_sequential." not in n}, origin)


class MultiscaleDiscriminator(nn.Module):
    """PatchGAN at full and at half resolution; gives every layer's output, for feature matching.

    Of the published names, `scale1_*` are the weights of the full resolution and `scale0_*` those of the half.
    """

    def __init__(self, inputs: int = MAPS + 3, width: int = 64, layers: int = 3, scales: int = 2):
        super().__init__()
        self.scales, self.layers = scales, layers
        for scale in range(scales):
            channels = inputs
            for layer in range(layers + 1):
                out = min(width * 2**layer, 512)
                stride = 1 if layer == layers else 2
                parts: list[nn.Module] = [nn.Conv2d(channels, out, 4, stride, padding=2)]
                parts += [_norm(out)] if layer else []
                setattr(self, f"scale{scale}_layer{layer}", nn.Sequential(*parts, nn.LeakyReLU(0.2)))
                channels = out
            last = nn.Sequential(nn.Conv2d(channels, 1, 4, 1, padding=2))
            setattr(self, f"scale{scale}_layer{layers + 1}", last)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """[N, I, H, W] -> for each scale, full resolution first, the outputs of its layers, the patch scores last."""
        found = []
        for scale in reversed(range(self.scales)):
            outputs = [x]
            for layer in range(self.layers + 2):
                outputs.append(getattr(self, f"scale{scale}_layer{layer}")(outputs[-1]))
            found.append(outputs[1:])
            x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return found


def least_squares(scores: list[list[Tensor]], target: float) -> Tensor:
    """LSGAN: the squared distance of the patch scores to `target`, summed over scales."""
    return torch.stack([(scale[-1] - target).square().mean() for scale in scores]).sum()


def feature_matching(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """L1 distance of the discriminator's features, summed over layers and averaged over scales; not through `real`."""
    factor = 4 / len(real[0][:-1]) / len(real)
    pairs = [(r.detach(), f) for a, b in zip(real, fake, strict=True) for r, f in zip(a[:-1], b[:-1], strict=True)]
    return factor * torch.stack([F.l1_loss(f, r) for r, f in pairs]).sum()


def region(pictures: Tensor, centres: Tensor, size: int = 72) -> Tensor:
    """Square crops [N, C, size, size] of pictures [N, C, H, W] around centres [N, 2] (x, y), moved inside where they stick out."""
    h, w = pictures.shape[-2:]
    if size > min(h, w):
        raise ValueError(f"a region of {size} px does not fit pictures of {h} x {w} px; choose a smaller one")
    crops = []
    for picture, (x, y) in zip(pictures, centres.tolist(), strict=True):
        top, left = (min(max(int(c) - size // 2, 0), side - size) for c, side in ((y, h), (x, w)))
        crops.append(picture[:, top : top + size, left : left + size])
    return torch.stack(crops)
