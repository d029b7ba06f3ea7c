"""Whole recordings as the evaluation of judges and generators reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spfem_dist.config import Data
from spfem_dist.emotions import Emotion
from spfem_dist.prepare.landmarks import TOPOLOGIES, mouth_opening
from spfem_dist.shard_format import ShardIndex
from spfem_dist.streaming.loader import Source, whole_recordings
from spfem_dist.streaming.order import Accept


@dataclass(frozen=True)
class TestClip:
    """One decoded recording.

    name: group and recording, e.g. `S20_11/happy-1-1`. frames: uint8 [T, S, S, 3] RGB. features: float32 [T, F], speech. valid: bool [T]. landmarks: float32 [T, L, 2], pixels of
    the frames. opening: float32 [T], how far the mouth is open by those landmarks.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    name: str
    speaker: str
    sentence: str
    emotion: Emotion
    take: int
    frames: np.ndarray
    features: np.ndarray
    valid: np.ndarray
    landmarks: np.ndarray
    opening: np.ndarray


def topology_of(index: ShardIndex) -> str:
    """The order of the shards' landmarks, `ibug68`, `mesh468` or `mesh478`. Raises ValueError where they hold none."""
    topology = {"synthetic": "ibug68"}.get(index.landmarks, index.landmarks)
    if topology not in TOPOLOGIES:
        raise ValueError(
            f"the shards hold no landmarks (index.json says {index.landmarks!r}), which judges need: run "
            "`spfem prepare` again with --faces mesh (aligned-mesh for face crops) and a new --out"
        )
    return topology


def read_clips(data: Data, accept: Accept | None = None, source: Source | None = None) -> Iterator[TestClip]:
    """Every recording of the accepted groups, in index order."""
    source = source or Source(data, landmarks=True)
    topology = topology_of(source.reader.index)
    for group, recording, batch in whole_recordings(data, accept, source):
        assert recording.landmarks is not None
        landmarks = recording.landmarks.astype(np.float32) * np.float32(data.size / group.size)
        yield TestClip(
            f"{group.key}/{recording.name}",
            group.speaker,
            group.sentence,
            recording.emotion,
            recording.take,
            batch.frames[0, 0].permute(0, 2, 3, 1).numpy(),
            recording.features.astype(np.float32),
            recording.valid,
            landmarks,
            mouth_opening(landmarks, topology).astype(np.float32),
        )


def planes(frames: np.ndarray) -> Tensor:
    """uint8 [T, S, S, 3] -> uint8 tensor [T, 3, S, S]."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
