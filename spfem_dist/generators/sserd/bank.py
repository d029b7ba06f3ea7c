"""Codes of recorded faces, and where emotions lie among them: what pairs, contrasts and edits are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.face.model import FaceModel

NEUTRAL = SEVEN.index(Emotion.NEUTRAL)
#: Codes of each emotion that a saved generator keeps, at most.
KEPT = 16
#: Softness of the look-up by landmarks, as a share of the mean squared distance between exemplars' levels.
_SOFT = 0.05


@dataclass(frozen=True)
class Bank:
    """Codes of frames of the training part.

    codes: float32 [M, L, D]. emotions: int64 [M], index into SEVEN. speakers: M names. levels: float32 [M, C], the mean expression of the
    recording that each frame is of, in the face model's coefficients without the jaw.
    """

    codes: Tensor
    emotions: Tensor
    speakers: tuple[str, ...]
    levels: np.ndarray

    @property
    def neutral(self) -> Tensor:
        """The mean neutral code [L, D], of all codes where none is neutral; found without asking which they are."""
        own = (self.emotions == NEUTRAL).to(self.codes.dtype)
        counted = torch.where(own.sum() > 0, own, torch.ones_like(own))
        return torch.einsum("m,mld->ld", counted / counted.sum(), self.codes)

    def level(self, emotion: Emotion) -> np.ndarray:
        """The mean expression [C] of an emotion. ValueError for one that no training recording showed."""
        shown = (self.emotions == SEVEN.index(emotion)).numpy()
        if not shown.any():
            known = [str(e) for n, e in enumerate(SEVEN) if (self.emotions == n).any()]
            raise ValueError(
                f"emotion {emotion}: nobody in the training part showed it; this generator knows {', '.join(known)}"
            )
        return self.levels[shown].mean(0)

    def shown(self, emotion: Emotion) -> np.ndarray:
        """The share [M] of each exemplar in an edit that is asked for by the emotion's name."""
        self.level(emotion)
        alike = (self.emotions == SEVEN.index(emotion)).numpy()
        return alike / alike.sum()

    def like(self, level: np.ndarray) -> np.ndarray:
        """The share [M] of each exemplar in an edit whose reference has the mean expression `level` [C]: near ones count."""
        distance = np.square(self.levels - level).sum(1)
        spread = np.square(self.levels - self.levels.mean(0)).sum(1).mean() + 1e-9
        share = np.exp(-(distance - distance.min()) / (_SOFT * spread))
        return share / share.sum()

    def reduced(self, most: int = KEPT) -> Bank:
        """At most so many of each emotion, spread evenly over the speakers' order."""
        chosen = []
        for number in range(len(SEVEN)):
            own = torch.nonzero(self.emotions == number)[:, 0].tolist()
            chosen += [own[i] for i in np.unique(np.linspace(0, len(own) - 1, min(most, len(own))).round().astype(int))]
        return Bank(
            self.codes[chosen],
            self.emotions[chosen],
            tuple(self.speakers[i] for i in chosen),
            self.levels[chosen],
        )


@dataclass(frozen=True)
class Directions:
    """Where emotions lie, seen from the neutral face. towards: float32 [7, L, D], 0 for the neutral one; known: bool [7], who has one."""

    towards: Tensor
    known: Tensor

    def between(self, source: Tensor, target: Tensor, codes: Tensor) -> Tensor:
        """The displacement [N, L, D] of `codes` from one emotion to another, int64 [N] each, on their device."""
        towards = self.towards.to(codes)
        return towards[target] - towards[source]

    @property
    def lengths(self) -> tuple[list[float], list[float]]:
        """The length of each emotion's displacement, and the mean length of its layers' parts: the published 15 is of the latter."""
        whole = self.towards.flatten(1).norm(dim=1)
        return whole.tolist(), self.towards.norm(dim=2).mean(1).tolist()


def boundary_directions(bank: Bank) -> Directions:
    """Normals of linear SVMs that part each emotion's codes from neutral ones, all persons together, as long as the distance between both
    emotions' mean codes on them."""
    flat = bank.codes.flatten(1).double().numpy()

    def normal(own: np.ndarray, neutral: np.ndarray) -> np.ndarray:
        scaler = StandardScaler().fit(flat[own | neutral])
        seen = scaler.transform(flat[own | neutral])
        found = LinearSVC(C=1e-3, random_state=0, dual="auto").fit(seen, own[own | neutral]).coef_[0] / scaler.scale_
        unit = found / np.linalg.norm(found)
        return unit * (unit @ (flat[own].mean(0) - flat[neutral].mean(0)))

    return _directions(bank, normal)


def mean_directions(bank: Bank) -> Directions:
    """Differences of mean codes."""
    flat = bank.codes.flatten(1).double().numpy()
    return _directions(bank, lambda own, neutral: flat[own].mean(0) - flat[neutral].mean(0))


def _directions(bank: Bank, towards) -> Directions:  # type: ignore[no-untyped-def]
    emotions = bank.emotions.numpy()
    neutral = emotions == NEUTRAL
    found, known = np.zeros((len(SEVEN), bank.codes[0].numel())), np.zeros(len(SEVEN), bool)
    known[NEUTRAL] = neutral.any()
    for number in range(len(SEVEN)):
        own = emotions == number
        if number != NEUTRAL and own.any() and neutral.any():
            found[number], known[number] = towards(own, neutral), True
    shape = (len(SEVEN), *bank.codes.shape[1:])
    return Directions(torch.from_numpy(found.reshape(shape)).float(), torch.from_numpy(known))


def joined(parts: Sequence[Bank]) -> Bank:
    """All of them as one."""
    return Bank(
        torch.cat([p.codes for p in parts]),
        torch.cat([p.emotions for p in parts]),
        tuple(speaker for p in parts for speaker in p.speakers),
        np.concatenate([p.levels for p in parts]),
    )


def level_of(
    face: FaceModel, landmarks: np.ndarray, rest: np.ndarray | None = None, neutral: bool = False
) -> np.ndarray:
    """The mean expression [C] of a clip's landmarks [T, L, 2], without the jaw."""
    return face.fit(landmarks, rest, neutral).coefficients[:, 1:].mean(0)
