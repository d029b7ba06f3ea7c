"""What a generator makes of crops: what moves, at any resolution, apart from what is painted."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Rendered:
    """An edit of N crops of side S.

    flow: float32 [N, F, F, 2], where each pixel of the edited crop is taken from: (x, y) away from its own place, in shares of the crop's
    side. It is smooth, so pixels of any other resolution are moved by it as well. 0: the pixel stays.
    residual: float32 [N, S, S, 3], added to the moved crop, in steps of 0..255. What a generator paints where it knows such faces.
    mask: float32 [N, S, S] in [0, 1], the share of the edit; soft at the face's edge.
    """

    flow: np.ndarray
    residual: np.ndarray
    mask: np.ndarray

    @classmethod
    def painted(cls, frames: np.ndarray, drawn: np.ndarray, mask: np.ndarray) -> Rendered:
        """The edit of a generator that moves nothing: `drawn` [N, S, S, 3] in place of `frames`, both in 0..255."""
        return cls(
            np.zeros((*frames.shape[:3], 2), np.float32), drawn.astype(np.float32) - frames, mask.astype(np.float32)
        )

    def crops(self, frames: np.ndarray) -> np.ndarray:
        """The edited crops, uint8 [N, S, S, 3], of frames uint8 [N, S, S, 3] that were rendered."""
        side, frames = frames.shape[1], frames.astype(np.float32)
        flow = self.flow
        if flow.shape[1] != side:
            flow = np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in flow])
        axis = (np.arange(side, dtype=np.float32) + 0.5) / side
        own = np.stack(np.meshgrid(axis, axis), -1)
        pictures, grid = torch.from_numpy(frames).permute(0, 3, 1, 2), torch.from_numpy((own + flow) * 2 - 1)
        moved = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
        moved = moved.permute(0, 2, 3, 1).numpy()
        share = self.mask[..., None]
        edited = (moved + self.residual).clip(0, 255) * share + frames * (1 - share)
        return np.rint(edited).clip(0, 255).astype(np.uint8)
