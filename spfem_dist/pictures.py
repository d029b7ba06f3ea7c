"""Pictures for the training curves: what a prior looks at and what it finds."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: Side of one face in a picture, pixels.
TILE = 96


def tile(frame: Tensor) -> np.ndarray:
    """One frame uint8 [3, S, S] or float in [-1, 1] as a tile [96, 96, 3] uint8."""
    if frame.dtype != torch.uint8:
        frame = ((frame.float() + 1.0) * 127.5).clamp(0, 255).byte()
    return cv2.resize(frame.permute(1, 2, 0).cpu().numpy(), (TILE, TILE), interpolation=cv2.INTER_CUBIC)


def overlay(frame: Tensor, looks: Tensor) -> np.ndarray:
    """A frame under a warm veil where attention looks. frame: [3, S, S]; looks: [h, w], non-negative. Returns a tile."""
    share = F.interpolate((looks / looks.max().clamp(min=1e-9))[None, None].float(), (TILE, TILE), mode="bilinear")[
        0, 0
    ]
    share = share.cpu().numpy()[..., None]
    veil = np.array([255.0, 96.0, 0.0])
    return (tile(frame) * (1.0 - 0.65 * share) + veil * 0.65 * share).clip(0, 255).astype(np.uint8)


def grid(rows: list[list[np.ndarray]], gap: int = 2) -> np.ndarray:
    """Tiles in rows, uint8 [H, W, 3], on white; shorter rows are filled up with white."""
    columns = max(len(row) for row in rows)
    page = np.full((len(rows) * (TILE + gap) - gap, columns * (TILE + gap) - gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            page[i * (TILE + gap) :, j * (TILE + gap) :][:TILE, :TILE] = picture
    return page


def framed(picture: np.ndarray, right: bool) -> np.ndarray:
    """The tile with a green frame where it is right and a red one where it is not."""
    return cv2.rectangle(picture.copy(), (0, 0), (TILE - 1, TILE - 1), (30, 160, 60) if right else (200, 40, 40), 3)


def scatter(vectors: Tensor, labels: list[str], side: int = 480) -> np.ndarray:
    """The first two principal components of vectors [N, D], coloured by label, with a legend; uint8 [side, side, 3]."""
    centred = (vectors - vectors.mean(0)).float().cpu().numpy()
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    points = centred @ axes[:2].T
    points = 0.06 + 0.88 * (points - points.min(0)) / np.maximum(np.ptp(points, axis=0), 1e-9)
    page = np.full((side, side, 3), 255, np.uint8)
    names = sorted(set(labels))
    hues = np.stack([np.linspace(0, 160, len(names)), np.full(len(names), 200), np.full(len(names), 190)], 1)
    colours = cv2.cvtColor(hues[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0]
    for (x, y), label in zip(points, labels, strict=True):
        colour = tuple(int(c) for c in colours[names.index(label)])
        cv2.circle(page, (int(x * side), int(y * side)), 4, colour, -1, cv2.LINE_AA)
    for row, name in enumerate(names):
        colour = tuple(int(c) for c in colours[row])
        cv2.putText(page, name, (8, 18 + 16 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
    return page
