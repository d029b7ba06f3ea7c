"""Two ways to say how features relate, in space and in time: visual differences (VD) and correlation matrices (CM).

Both take features at places of a map. In space a place is described by its relation to its neighbours, in time by how its frames relate.
VD ignores what all places or frames share, an offset; CM ignores a common gain.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.nets.batchnorm import BatchNorm1d
from spfem_dist.nets.small import unit

#: Width of every code.
CODE = 32


def around(reach: int) -> Tensor:
    """Rows and columns from a place to all places within `reach` cells, itself in the middle, int64 [(2 * reach + 1)^2, 2]."""
    steps = torch.arange(-reach, reach + 1)
    return torch.cartesian_prod(steps, steps)


def features_at(maps: Tensor, places: Tensor) -> Tensor:
    """Features [N, P, C] of maps [N, C, H, W] at places int64 [N, P, 2] (or [P, 2], the same in all), rows and columns inside the map."""
    index = places[..., 0] * maps.shape[3] + places[..., 1]
    index = index.expand(len(maps), -1)[..., None].expand(-1, -1, maps.shape[1])
    return maps.flatten(2).transpose(1, 2).gather(1, index)


def neighbourhoods(maps: Tensor, places: Tensor, reach: int) -> Tensor:
    """Features [N, P, (2 * reach + 1)^2, C] at and around places, row by row."""
    found = (places[..., None, :] + around(reach).to(places.device)).flatten(-3, -2)
    return features_at(maps, found).unflatten(1, (places.shape[-2], -1))


class Relation(Protocol):
    """A way to describe places in space and in time, each as a vector that is coded, and its size, by which hard places are told."""

    #: Cells between a place and the border of its map, at least.
    margin: int

    def spatial(self, level: int, maps: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [N, C, H, W] at places [N, P, 2] -> unit codes [N, S, D] and sizes [N, S]; S is P times the codes of one place."""
        ...

    def temporal(self, level: int, maps: Tensor, places: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """Maps [N, K, C, H, W] of consecutive frames at places [N, P, 2] -> for each of the W = K - window + 1 windows codes [N, W, P, D], sizes [N, W, P]."""
        ...


class Head(nn.Sequential):
    """An MLP to codes; `standardised` puts a batch norm before it, for inputs that hardly differ."""

    def __init__(self, inputs: int, hidden: int, standardised: bool = False):
        norm = [BatchNorm1d(inputs)] if standardised else []
        super().__init__(*norm, nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, CODE))

    def forward(self, found: Tensor) -> Tensor:
        """[..., inputs] -> unit vectors [..., CODE]."""
        return unit(super().forward(found.flatten(0, -2))).unflatten(0, found.shape[:-1])


class Differences(nn.Module):
    """VD: in space the features at a place minus those of each of its eight neighbours, in time each frame's minus the one's before.

    channels: of each map. window: frames of a judgement (T); its T - 1 steps are one vector.
    """

    margin = 1

    def __init__(self, channels: tuple[int, ...], window: int):
        super().__init__()
        self.in_space = nn.ModuleList(Head(c, c) for c in channels)
        self.in_time = nn.ModuleList(Head(c * (window - 1), 2 * c) for c in channels)

    def spatial(self, level: int, maps: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Eight codes a place. See `Relation`."""
        found = neighbourhoods(maps, places, 1)
        differs = found[:, :, 4:5] - torch.cat([found[:, :, :4], found[:, :, 5:]], 2)
        differs = differs.flatten(1, 2)
        return self.in_space[level](differs), differs.detach().norm(dim=-1)

    def temporal(self, level: int, maps: Tensor, places: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """One code a place and window. See `Relation`."""
        n, k = maps.shape[:2]
        found = features_at(maps.flatten(0, 1), places.repeat_interleave(k, 0)).unflatten(0, (n, k))
        steps = found.diff(dim=1).unfold(1, window - 1, 1)  # [N, W, P, C, T - 1]
        moved = steps.flatten(3)
        return self.in_time[level](moved), moved.detach().norm(dim=-1)


class Correlations(nn.Module):
    """CM: in space the cosines of the features at a place and at its 24 nearest, in time those of every two frames of the window, at
    the place and its eight neighbours. Standardised, since cosines of neighbours hardly differ from one.
    """

    margin = 2

    def __init__(self, channels: tuple[int, ...], window: int):
        super().__init__()
        pairs = window * (window - 1) // 2
        self.in_space = nn.ModuleList(Head(24, 64, standardised=True) for _ in channels)
        self.in_time = nn.ModuleList(Head(9 * pairs, 96, standardised=True) for _ in channels)

    def spatial(self, level: int, maps: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """One code a place. See `Relation`."""
        found = F.normalize(neighbourhoods(maps, places, 2), dim=-1)
        cosines = (found[:, :, 12:13] * torch.cat([found[:, :, :12], found[:, :, 13:]], 2)).sum(-1)
        return self.in_space[level](cosines), (1 - cosines.detach()).norm(dim=-1)

    def temporal(self, level: int, maps: Tensor, places: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """One code a place and window. See `Relation`."""
        n, k = maps.shape[:2]
        found = neighbourhoods(F.normalize(maps.flatten(0, 1), dim=1), places.repeat_interleave(k, 0), 1)
        windows = found.unflatten(0, (n, k)).unfold(1, window, 1)  # [N, W, P, 9, C, T]
        matrix = windows.transpose(-1, -2) @ windows
        rows, columns = torch.triu_indices(window, window, 1, device=maps.device)
        cosines = matrix[..., rows, columns].flatten(3)
        return self.in_time[level](cosines), (1 - cosines.detach()).norm(dim=-1)
