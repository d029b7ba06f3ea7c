"""Scores of content retrieval across emotions: does a frame find the frame of another recording that says the same?

Everything here is a pure function of similarity matrices, so that learned and unlearned features are scored alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

#: A retrieved frame counts as right within this many frames of the true one.
WITHIN = 2
#: Candidates closer than this to the true frame are neither match nor mismatch in the AUC, frames.
APART = 5


@dataclass(frozen=True)
class Estimate:
    """A score, its 95 % confidence interval (bootstrap over clips) and the number of clips behind it."""

    value: float
    low: float
    high: float
    clips: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def top1(similarity: np.ndarray, truth: np.ndarray, within: int = WITHIN) -> np.ndarray:
    """Whether each query's most similar candidate is right, bool [Q].

    similarity: [Q, T], one column for each frame of the candidate clip. truth: [Q], the matching frame (may be fractional).
    """
    best = similarity.argmax(axis=1)
    return np.abs(best - truth) <= within


def chance(truth: np.ndarray, frames: int, within: int = WITHIN) -> np.ndarray:
    """The share of candidates that count as right for each query [Q], in a clip of `frames` frames."""
    candidates = np.arange(frames)
    return (np.abs(candidates[None] - np.asarray(truth)[:, None]) <= within).mean(axis=1)


def match_and_mismatch(similarity: np.ndarray, truth: np.ndarray, apart: int = APART) -> tuple[np.ndarray, np.ndarray]:
    """Similarities of true matches [Q] and of all candidates at least `apart` frames from them [M]."""
    candidates = np.arange(similarity.shape[1])
    nearest = np.clip(np.rint(truth).astype(int), 0, similarity.shape[1] - 1)
    match = similarity[np.arange(len(truth)), nearest]
    far = np.abs(candidates[None] - np.asarray(truth)[:, None]) >= apart
    return match, similarity[far]


def auc(match: np.ndarray, mismatch: np.ndarray) -> float:
    """Probability that a match is more similar than a mismatch (area under the ROC curve); 0.5 is chance."""
    scores = np.concatenate([match, mismatch])
    return float(roc_auc_score(np.r_[np.ones(len(match)), np.zeros(len(mismatch))], scores))


def matching_frames(warp: np.ndarray, frames: int) -> np.ndarray:
    """Where each frame of recording a lies in recording b: float [frames].

    warp: int [2, P], as in `UtteranceGroup.warp(a, b)`; a frame that matches several is given their mean.
    """
    total, count = np.zeros(frames), np.zeros(frames)
    inside = warp[0] < frames
    np.add.at(total, warp[0][inside], warp[1][inside])
    np.add.at(count, warp[0][inside], 1)
    known = np.flatnonzero(count)
    return np.interp(np.arange(frames), known, total[known] / count[known])


def phase_matches(phase_a: np.ndarray, phase_b: np.ndarray) -> np.ndarray:
    """The true match of each frame of a in b, float [Ta], from the known progress through the sentence.

    phase_a, phase_b: non-decreasing [Ta] and [Tb]; equal phase means that the same instant of the sentence is spoken.
    """
    frames = np.arange(len(phase_b), dtype=float)
    strict = phase_b + 1e-9 * frames
    return np.interp(phase_a, strict, frames)


def linear_matches(frames_a: int, frames_b: int) -> np.ndarray:
    """The match of each frame of a in b if speech were only slower or faster: float [frames_a]."""
    return np.linspace(0.0, frames_b - 1.0, frames_a)


def bootstrap(
    per_clip: list[float] | np.ndarray, weights: list[float] | np.ndarray | None = None, draws: int = 1000
) -> Estimate:
    """Weighted mean over clips and its 95 % interval; clips, not frames, are redrawn, since frames of a clip agree.

    per_clip: one mean for each clip. weights: its number of items (equal where left out). Deterministic.
    """
    values = np.asarray(per_clip, float)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    if not len(values) or not weights.sum():
        raise ValueError("no clip to score: the split holds no recording that this figure can use")
    drawn = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    totals = weights[drawn].sum(1)
    means = (values * weights)[drawn].sum(1)[totals > 0] / totals[totals > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values @ weights / weights.sum()), float(low), float(high), len(values))
