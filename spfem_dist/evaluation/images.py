"""How far drawn frames are from true ones, and how much they flicker. Pure functions of uint8 frames [T, S, S, 3]."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spfem_dist.evaluation.clips import planes
from spfem_dist.evaluation.judges.networks import OracleNetwork, placed

#: A pixel should change where the true target differs from the source by more than this, in grey levels.
CHANGED = 12
#: Equal frames have no finite PSNR; they count as this many dB, about the error of rounding to 8 bits.
BEST_PSNR = 60.0
#: Standard deviation of the blur under which movement is measured, as a share of the side.
GRAIN = 0.02
#: Wang et al. 2004: Gaussian window of 11 pixels, standard deviation 1.5, constants for the range 0..255.
_WINDOW, _SIGMA, _C1, _C2 = 11, 1.5, (0.01 * 255) ** 2, (0.03 * 255) ** 2


def l1(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference, grey levels."""
    return float(np.abs(a.astype(np.int16) - b).mean())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over frames of the peak signal-to-noise ratio in dB, at most BEST_PSNR."""
    error = np.square(a.astype(np.float32) - b).mean((1, 2, 3))
    return float(np.minimum(10 * np.log10(255**2 / np.maximum(error, 1e-9)), BEST_PSNR).mean())


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity of the colour channels (Wang et al. 2004), over the pixels whose window is whole."""
    x, y = (planes(frames).float() for frames in (a, b))
    offsets = torch.arange(_WINDOW) - _WINDOW // 2
    window = torch.exp(-0.5 * (offsets / _SIGMA) ** 2)
    window = (window / window.sum()).expand(3, 1, 1, -1)

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, window, groups=3), window.transpose(2, 3), groups=3)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    table = (2 * mx * my + _C1) * (2 * cov + _C2) / ((mx * mx + my * my + _C1) * (vx + vy + _C2))
    return float(table.mean())


@torch.inference_mode()
def perceptual_distance(oracle: OracleNetwork, a: np.ndarray, b: np.ndarray) -> float:
    """Distance in the oracle's own layers: LPIPS (Zhang et al. 2018) without its learnt weights, over unit channels."""
    x, y = (placed(planes(frames), oracle.settings)[0] for frames in (a, b))
    total = 0.0
    for layer in oracle.trunk:
        x, y = layer(x), layer(y)
        if isinstance(layer, torch.nn.SiLU):
            total += float((F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean())
    return total


def jitter(frames: np.ndarray) -> float:
    """Mean absolute second difference over time, grey levels; not a number for fewer than three frames.

    The frames are blurred first (Gaussian, 2 % of the side): a sensor's grain, which a codec or a generator takes away, is
    no movement.
    """
    if len(frames) < 3:
        return float("nan")
    sigma = GRAIN * frames.shape[1]
    values = np.stack([cv2.GaussianBlur(f, (0, 0), sigma) for f in frames.astype(np.float32)])
    return float(np.abs(values[2:] - 2 * values[1:-1] + values[:-2]).mean())


def should_change(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Where an edit has to redraw: bool [T, S, S], from the clean true target and the clean source."""
    return np.abs(target.astype(np.int16) - source).mean(-1) > CHANGED


def changed_error(frames: np.ndarray, target: np.ndarray, changed: np.ndarray) -> float:
    """Mean absolute error in grey levels over the pixels that should change; not a number where none should."""
    if not changed.any():
        return float("nan")
    return float(np.abs(frames.astype(np.int16) - target).mean(-1)[changed].mean())
