"""Where two windows differ, and what pictures and scores ask of either form."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from spfem_dist.pictures import grid, tile
from spfem_dist.priors.asccl.metric import veiled
from spfem_dist.records import Batch


class WindowMetric(Protocol):
    """A metric between windows of `frames` consecutive frames."""

    frames: int

    def face_maps(self, frames: Tensor) -> list[Tensor]:
        """Windows [N, T, 3, S, S], uint8 or in [-1, 1] -> maps [N, T, C, side, side], finest first."""
        ...

    def in_space(self, level: int, maps: Tensor, places: Tensor) -> Tensor | None:
        """Unit codes [N, S, D] of frames' maps [N, C, side, side] at places [P, 2], place by place; None where it has no such part."""
        ...

    def in_time(self, level: int, maps: Tensor, places: Tensor) -> Tensor | None:
        """Unit codes [N, S, D] of windows' maps [N, `frames`, C, side, side] at places [P, 2], place by place; None where it has no such part."""
        ...

    def grid(self, side: int, along: int, window: str = "face") -> Tensor:
        """Evenly spaced places of a map, `along` or fewer each way, all or those around the `mouth`; int64 [P, 2]."""
        ...


@torch.no_grad()
def disagreement(metric: WindowMetric, a: Tensor, b: Tensor) -> Tensor:
    """Where windows a and b [N, `frames`, 3, S, S] differ in what they say: 1 - cos in the coarsest map, space and time alike, [N, side, side]."""
    maps = [metric.face_maps(frames) for frames in (a, b)]
    level, side = len(maps[0]) - 1, maps[0][-1].shape[-1]
    places = metric.grid(side, side)
    page = torch.zeros(len(a), side, side, device=a.device)
    for codes in (
        [metric.in_space(level, found[-1].flatten(0, 1), places) for found in maps],
        [metric.in_time(level, found[-1], places) for found in maps],
    ):
        if codes[0] is not None and codes[1] is not None:
            differs = 1 - (codes[0] * codes[1]).sum(-1)
            each = differs.shape[1] // len(places)  # codes of a place
            differs = differs[:, : each * len(places)].reshape(len(a), -1, len(places), each).mean((1, 3)).float()
            page[:, places[:, 0], places[:, 1]] += differs
    return page


def disagreement_picture(metric: WindowMetric, batch: Batch, samples: int = 3) -> np.ndarray:
    """For some samples a row: the middle of a window, of the matching window in another emotion, and of the latest one, each under a veil where it differs."""
    length, middle = metric.frames, metric.frames // 2
    rows = []
    for frames in batch.frames[:samples]:
        a, late = frames[0, :length], frames[1, -length:]
        b = torch.stack([frames[1, :length], late])
        differs = disagreement(metric, a.expand_as(b), b).float().cpu()
        shown = zip(b[:, middle], differs, strict=True)
        rows.append([tile(a[middle]), *(veiled(face, where, float(differs.max())) for face, where in shown)])
    return grid(rows)
