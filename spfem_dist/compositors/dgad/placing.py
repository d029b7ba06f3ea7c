"""What DGAD learns from: a frame, the hole where its face was, and that face on its own, displaced and in another light."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spfem_dist.compositors.compositor import holes
from spfem_dist.compositors.dgad.settings import Composition
from spfem_dist.config import Data
from spfem_dist.nets.augment import uniform
from spfem_dist.records import Batch, UtteranceGroup
from spfem_dist.streaming.views import Choice, View, serves_emotion


def one_frame(group: UtteranceGroup, rng: np.random.Generator, data: Data) -> Choice:
    """A sample: one frame of one recording, R = K = 1, with a found face where the recording has any."""
    recording = group.recordings[rng.integers(len(group.recordings))]
    there = np.flatnonzero(recording.valid)
    position = rng.choice(there if len(there) else recording.frames)
    at = np.array([[position]], dtype=np.int64)
    return Choice((recording,), (recording.emotion,), at, recording.valid[at].astype(bool))


FRAMES = View("frames", serves_emotion, one_frame)


def with_holes(batch: Batch, grow: float) -> Batch:
    """The batch with its faces' holes beside it, `hole`: uint8 [B, 1, S, S]. In the loader's threads."""
    assert batch.landmarks is not None, "the loader's source was asked for landmarks"
    found = holes(batch.landmarks[:, 0, 0].float().numpy(), batch.frames.shape[-1], grow)
    return replace(batch, extras={"hole": torch.from_numpy(found[:, None].astype(np.uint8))})


@dataclass(frozen=True)
class Sample:
    """picture: [B, 3, S, S] in [-1, 1]. hole: [B, 1, S, S], 1 inside. head: the picture displaced and relit; cover: where in it the face is."""

    picture: Tensor
    hole: Tensor
    head: Tensor
    cover: Tensor


def sample_of(batch: Batch, settings: Composition, dtype: torch.dtype) -> Sample:
    """What a batch of `with_holes` gives to learn from; all chance is that of each sample's seed."""
    picture = batch.frames[:, 0, 0].to(dtype) / 127.5 - 1
    hole = batch.extras["hole"].to(dtype)
    chance = (2 * uniform(batch.seed, "composition/displacement", 5) - 1).to(dtype)
    shift, roll, scale, gain = chance[:, :2], chance[:, 2], chance[:, 3], chance[:, 4]
    moved = displaced(
        torch.cat([picture, hole], 1),
        hole,
        2 * settings.shift * shift,
        math.radians(settings.roll) * roll,
        1 + settings.scale * scale,
    )
    head = relit(moved[:, :3], 1 + settings.light * gain)
    return Sample(picture, hole, head, (moved[:, 3:] > 0.5).to(dtype))


def displaced(pictures: Tensor, hole: Tensor, shift: Tensor, roll: Tensor, scale: Tensor) -> Tensor:
    """Pictures [N, C, S, S] turned and scaled about the middle of their holes [N, 1, S, S], then shifted.

    shift: [N, 2], columns and rows in halves of the side. roll: radians [N], positive is clockwise on the screen. scale: [N], more than 1 enlarges.
    """
    axis = (torch.arange(hole.shape[-1], device=hole.device, dtype=hole.dtype) * 2 + 1) / hole.shape[-1] - 1
    mass = hole.sum((1, 2, 3)).clamp(min=1)
    middle = torch.stack([(hole.sum(2) * axis).sum((1, 2)) / mass, (hole.sum(3) * axis).sum((1, 2)) / mass], 1)
    cos, sin = roll.cos() / scale, roll.sin() / scale
    back = torch.stack(
        [torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1
    )  # from the result to where it comes from
    start = middle - (back @ (middle + shift)[..., None])[..., 0]
    grid = F.affine_grid(torch.cat([back, start[..., None]], 2), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def relit(pictures: Tensor, gain: Tensor) -> Tensor:
    """Pictures [N, 3, S, S] in [-1, 1] under `gain` [N] times the light."""
    return ((pictures + 1) * gain[:, None, None, None]).clamp(0, 2) - 1
