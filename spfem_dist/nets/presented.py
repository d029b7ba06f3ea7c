"""How the published CDRL code presents images to its networks."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

#: `released` is what the published loaders do for every network: OpenCV's blue-green-red order, (x / 255 - 0.5) / 0.5.
#: `rgb` keeps red-green-blue with the same scaling (the order ArcFace was trained with).
#: `clip` is red-green-blue with CLIP's own mean and deviation.
Convention = Literal["released", "rgb", "clip"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def present(frames: torch.Tensor, size: int, convention: Convention, dtype: torch.dtype) -> torch.Tensor:
    """Frames as a network takes them: [N, 3, size, size] of `dtype`.

    frames: [N, 3, S, S] RGB, uint8 in 0..255 or floating point in [-1, 1]; resized bilinearly (antialiased) where S != size.
    """
    if frames.dim() != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames are {tuple(frames.shape)}; expected [N, 3, S, S], RGB")
    pixels = frames.float() / 127.5 - 1.0 if frames.dtype == torch.uint8 else frames.float()
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False, antialias=True)
    if convention == "released":
        pixels = pixels.flip(1)
    elif convention == "clip":
        mean = torch.tensor(CLIP_MEAN, device=pixels.device).view(3, 1, 1)
        deviation = torch.tensor(CLIP_DEVIATION, device=pixels.device).view(3, 1, 1)
        pixels = ((pixels + 1.0) / 2.0 - mean) / deviation
    elif convention != "rgb":
        raise ValueError(f"image convention {convention!r} is unknown; choose 'released', 'rgb' or 'clip'")
    return pixels.to(dtype)
