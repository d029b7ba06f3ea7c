"""What both forms of ASCCL share: visual disparities, the places at which they are taken, and how alike two faces are there.

A disparity is the difference between the features at a place of a map and those of one of its eight neighbours.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from spfem_dist.nets.augment import uniform
from spfem_dist.pictures import grid, overlay, tile
from spfem_dist.records import Batch, Seeds

#: Rows and columns from a place to its neighbours, row by row.
NEIGHBOURS = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0))
#: Where the mouth is in a frame as `spfem prepare` crops it: centre and radius as (row, column) shares of its side.
MOUTH_CENTRE, MOUTH_RADIUS = (0.758, 0.5), (0.165, 0.225)


class Metric(Protocol):
    """What the scores and pictures ask of either form."""

    def face_maps(self, frames: Tensor) -> list[Tensor]:
        """Frames [N, 3, S, S], uint8 or in [-1, 1] -> maps [N, C, side, side], finest first."""
        ...

    def code(self, level: int, found: Tensor) -> Tensor:
        """Disparities [N, S, C] of the map `level` -> unit vectors [N, S, D]."""
        ...

    def centres(self, side: int, window: str = "face") -> Tensor:
        """The places of a map of that side that count, all of them or those around the `mouth`, int64 [P, 2]."""
        ...


def disparities(maps: Tensor, centres: Tensor) -> Tensor:
    """Features at each centre minus those of each of its neighbours, [N, 8 * P, C], centre by centre.

    maps: [N, C, H, W]. centres: int64 [N, P, 2], rows and columns. A neighbour beyond the border is the one at the far edge.
    """
    channels, height, width = maps.shape[1:]
    cells = maps.flatten(2).transpose(1, 2)

    def at(places: Tensor) -> Tensor:
        index = (places[..., 0] % height) * width + places[..., 1] % width
        return cells.gather(1, index.flatten(1)[..., None].expand(-1, -1, channels))

    around = centres[:, :, None] + torch.tensor(NEIGHBOURS, device=centres.device)
    return at(centres).repeat_interleave(len(NEIGHBOURS), 1) - at(around)


def drawn(seed: Seeds, purpose: str, count: int, first: int, side: int) -> Tensor:
    """`count` different places of the square of `side` cells that begins at row and column `first`, int64 [B, count, 2].

    A function of each sample's seed [B] and the purpose, as all randomness of training is.
    """
    chosen = uniform(seed, purpose, side * side).topk(min(count, side * side)).indices
    return torch.stack([chosen // side, chosen % side], -1) + first


def square(first: int, extent: int) -> Tensor:
    """The places of the square of `extent` cells that begins at row and column `first`, int64 [P, 2]."""
    cells = torch.arange(first, first + extent)
    return torch.cartesian_prod(cells, cells).view(-1, 2)


def around_mouth(places: Tensor, side: int, crop: float = 1.0, row: float = 0.5) -> Tensor:
    """Which of the places [..., 2] of a map of `side` cells lie around the mouth, bool [...].

    crop, row: the map is of a square of that share of the frame's side, whose centre lies in that row (see `augment.face_crop`).
    """
    inside = (places + 0.5) / side - 0.5
    in_frame = crop * inside + torch.tensor([row, 0.5], device=places.device)
    centre, radius = (torch.tensor(t, device=places.device) for t in (MOUTH_CENTRE, MOUTH_RADIUS))
    return ((in_frame - centre) / radius).square().sum(-1) <= 1


def drawn_places(places: Tensor, near: Tensor, numbers: Tensor, count: int, mouth_share: float) -> Tensor:
    """`count` of the places [P, 2] for each sample, int64 [B, count, 2]: `mouth_share` of them around the mouth, the rest elsewhere.

    near: bool [P], which lie around the mouth. numbers: uniform in [0, 1), [B, P], by which they are drawn. All are on the host.
    """
    at_mouth = min(round(mouth_share * count), int(near.numpy().sum()))
    chosen = [
        torch.where(near, numbers, -1.0).topk(at_mouth).indices,
        torch.where(near, -1.0, numbers).topk(count - at_mouth).indices,
    ]
    return places[torch.cat(chosen, 1)]


def codes_at(metric: Metric, level: int, maps: Tensor, centres: Tensor) -> Tensor:
    """Unit vectors [N, P, 8, D] of a map [N, C, H, W] at places [P, 2]."""
    found = metric.code(level, disparities(maps, centres.to(maps.device).expand(len(maps), -1, -1)))
    return found.unflatten(1, (-1, len(NEIGHBOURS)))


@torch.no_grad()
def disagreement(metric: Metric, a: Tensor, b: Tensor) -> Tensor:
    """Where faces a and b [N, 3, S, S] differ in what they say: 1 - cos of their disparities in the coarsest map, [N, side, side]."""
    maps = [metric.face_maps(frames) for frames in (a, b)]
    level, side = len(maps[0]) - 1, maps[0][-1].shape[-1]
    places = metric.centres(side)
    one, other = (codes_at(metric, level, found[-1], places) for found in maps)
    page = one.new_zeros(len(a), side, side)
    page[:, places[:, 0], places[:, 1]] = 1 - (one * other).sum(-1).mean(-1)
    return page


def disagreement_picture(metric: Metric, batch: Batch, samples: int = 3) -> np.ndarray:
    """For some samples a row: a face, the matching face in another emotion, and one of another moment, each under a veil where it differs."""
    rows = []
    for frames in batch.frames[:samples]:
        a, b = frames[0, 0], torch.stack([frames[1, 0], frames[1, frames.shape[1] // 2]])
        differs = disagreement(metric, a.expand_as(b), b).float().cpu()
        rows.append(
            [tile(a), *(veiled(face, where, float(differs.max())) for face, where in zip(b, differs, strict=True))]
        )
    return grid(rows)


def veiled(face: Tensor, differs: Tensor, most: float) -> np.ndarray:
    """The face under a veil that is full where `differs` is `most`, so that veils of several faces can be compared."""
    share = float(differs.max()) / max(most, 1e-9)
    return (share * overlay(face, differs) + (1 - share) * tile(face)).astype(np.uint8)
