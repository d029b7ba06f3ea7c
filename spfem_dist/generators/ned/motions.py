"""How the speakers of the training part move: the face model and the windows of coefficients that a manipulator learns from.

Read once from the shards' landmarks, no frame decoded, and kept in memory: a function of the shards alone, so equal on every worker.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spfem_dist.emotions import SEVEN
from spfem_dist.generators.face.expressions import ExpressionModel, Shift
from spfem_dist.generators.face.maps import FaceMaps
from spfem_dist.generators.face.recordings import FittedRecordings
from spfem_dist.generators.face.texture import ExpressionTexture
from spfem_dist.streaming.views import best_starts

#: Frames of a window.
WINDOW = 10


@dataclass
class Face:
    """What a job knows of faces: the model, what it draws with, how its landmarks move with coefficients, the texture, and each training
    speaker's shape at rest."""

    model: ExpressionModel
    maps: FaceMaps
    shift: Shift
    texture: ExpressionTexture
    rests: dict[str, np.ndarray]

    @classmethod
    def of(
        cls,
        model: ExpressionModel,
        texture: ExpressionTexture,
        rests: dict[str, np.ndarray] | None = None,
        device: torch.device | str = "cpu",
    ) -> Face:
        """What is drawn with lies on `device`."""
        return cls(model, FaceMaps(model).to(device), model.shifting(device), texture.to(device), rests or {})


class Windows:
    """Windows of coefficients of recorded faces, drawn by a sample's seed: any speaker's, in any of the seven emotions.

    What is drawn is unpaired: source and reference share no speaker and no sentence but by chance.
    """

    def __init__(self, fitted: FittedRecordings):
        self._recordings = [r for r in fitted.recordings if r.emotion in SEVEN]
        self._clips = [
            (fitted.of(r).coefficients, SEVEN.index(r.emotion), best_starts(r.valid, WINDOW)) for r in self._recordings
        ]
        if not self._clips:
            raise ValueError("no recording shows one of the seven emotions: see the emotions with `spfem data show`")
        numbers = range(len(self._clips))
        self._by = {k: [n for n in numbers if self._clips[n][1] == k] for k in range(len(SEVEN))}
        self._number = {(r.place, r.name): n for n, r in enumerate(self._recordings)}

    def draw(self, seeds: Sequence[int], count: int) -> dict[str, torch.Tensor]:
        """`count` windows for each sample's seed.

        source, reference: float32 [B, count, 10, C]. emotion, target: int64 [B, count], what each shows, index into SEVEN; they
        differ where the recordings do. noise: [B, count, 4], normal. by_reference: bool [B, count], a fair coin. matched: the source's
        words as its speaker says them in the target emotion, float32 [B, count, 10, C], where they were recorded and read:
        paired, bool [B, count, 10].
        """
        names = ("source", "reference", "emotion", "target", "noise", "by_reference", "matched", "paired")
        drawn: dict[str, list[Any]] = {name: [] for name in names}
        for seed in seeds:
            rng = np.random.default_rng([int(seed) & (2**63 - 1), zlib.crc32(b"ned/windows")])
            for _ in range(count):
                number = int(rng.integers(len(self._clips)))
                clip = self._clips[number]
                others = [k for k, own in self._by.items() if own and k != clip[1]] or [clip[1]]
                target = others[rng.integers(len(others))]
                shown = self._clips[self._by[target][rng.integers(len(self._by[target]))]]
                frames = _frames(clip, rng)
                drawn["source"].append(clip[0][frames])
                drawn["reference"].append(shown[0][_frames(shown, rng)])
                drawn["emotion"].append(clip[1])
                drawn["target"].append(target)
                drawn["noise"].append(rng.standard_normal(4).astype(np.float32))
                drawn["by_reference"].append(rng.random() < 0.5)
                matched, paired = self._matched(number, target, frames, rng.random())
                drawn["matched"].append(matched)
                drawn["paired"].append(paired)
        each = (len(seeds), count)
        return {name: torch.from_numpy(np.stack(v)).unflatten(0, each) for name, v in drawn.items()}

    def _matched(self, number: int, target: int, frames: np.ndarray, chance: float) -> tuple[np.ndarray, np.ndarray]:
        """The same words in the emotion `target`: [10, C], and where they are [10]; `chance` chooses among several takes."""
        own = self._recordings[number]
        others = [self._number[own.place, name] for name in own.matches if (own.place, name) in self._number]
        takes = [n for n in others if self._clips[n][1] == target]
        if not takes:
            return self._clips[number][0][frames], np.zeros(WINDOW, bool)
        other = takes[int(chance * len(takes))]
        at = own.matches[self._recordings[other].name][frames].astype(np.int64)
        coefficients = self._clips[other][0]
        inside = np.clip(at, 0, len(coefficients) - 1)
        good = (at >= 0) & own.valid[frames] & self._recordings[other].valid[inside]
        return coefficients[inside], good


def _frames(clip: tuple[np.ndarray, int, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Numbers [10] of consecutive frames; a shorter clip repeats its last."""
    coefficients, _, starts = clip
    frames = starts[rng.integers(len(starts))] + np.arange(WINDOW)
    return np.minimum(frames, len(coefficients) - 1)
