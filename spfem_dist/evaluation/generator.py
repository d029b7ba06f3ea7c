"""Figures of a generator from the scores of its edited clips: means with intervals, by emotion, intra and cross, against
the source unchanged (`copy`) and the true target (`target`).

Pure: nothing here reads a file or runs a network. A clip is one source shown with one emotion; where it was edited both
intra and cross, the figures over both ways count it once, so that its two edits do not pass for independent ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from spfem_dist.evaluation.retrieval import Estimate, bootstrap

#: Rows that stand beside every generator: the source unchanged, the true target, and what the generator draws when it is told the
#: true target's landmarks, where these are known.
COPY, TARGET, UPPER = ROWS = "copy", "target", "upper_bound"
#: Figures that are also given as the paired difference to the unchanged source.
MINUS_COPY = ("mouth_corr", "mouth_landmark_corr", "identity", "lse_d", "psnr")

#: Which way is better: +1 up, -1 down, 0 neither (reported, not judged).
BETTER: dict[str, int] = {
    "emotion_accuracy": 1,
    "mouth_corr": 1,
    "mouth_landmark_corr": 1,
    "mouth_distance": -1,
    "mouth_error": -1,
    "mouth_error_over_copy": -1,
    "width_corr": 1,
    "width_corr_exact": 1,
    "viseme_r2": 1,
    "viseme_r2_exact": 1,
    "identity": 1,
    "csim": 1,
    "lse_d": -1,
    "lse_d_aligned": -1,
    "lse_c": 1,
    "fad": -1,
    "jitter": 0,
    "l1": -1,
    "psnr": 1,
    "ssim": 1,
    "perceptual": -1,
    "changed_error": -1,
    "changed_error_over_copy": -1,
}

MEANING: dict[str, str] = {
    "emotion_accuracy": "share of frames that an independent oracle calls the target emotion",
    "mouth_corr": "correlation over the clip of the mouth opening seen with the one that belongs to the words",
    "mouth_landmark_corr": "the same, from the landmarks that the oracle finds",
    "mouth_distance": "distance of the inner lips from where they should be, in eye distances",
    "mouth_error": "error in grey levels against the true target, in the box of its mouth",
    "mouth_error_over_copy": "the same as a share of the unchanged source's; above 1 the edit spoils the mouth",
    "width_corr": "correlation over the clip of the distance of the mouth's corners with the true target's, as the oracle sees it",
    "width_corr_exact": "the same, from the landmarks that the generator aimed at",
    "viseme_r2": "share of the spoken opening, width and rounding that a linear probe reads off the lips that the oracle sees",
    "viseme_r2_exact": "the same, from the landmarks that the generator aimed at",
    "identity": "cosine to the speaker's other recordings (a network for who it is, on the face alone)",
    "csim": "cosine of expression features to real frames of the emotion, all pairs",
    "lse_d": "lip-speech distance at the best of 21 offsets, as the papers count",
    "lse_d_aligned": "the same where the speech really is",
    "lse_c": "how much better the best offset is than the median one",
    "fad": "Frechet distance of identity features to real frames of the emotion",
    "jitter": "second difference over time, as a multiple of the source's",
    "l1": "mean error against the true target, grey levels",
    "psnr": "dB against the true target; copying the source does well, so it is no bar",
    "ssim": "structural similarity to the true target",
    "perceptual": "distance to the true target in the oracle's layers",
    "changed_error": "error in grey levels over the pixels that should change",
    "changed_error_over_copy": "the same as a share of the unchanged source's; below 1 the edit goes the right way",
}


@dataclass(frozen=True)
class ClipScore:
    """The scores of one clip in one row of the tables.

    row: a variant, or one of ROWS. source, reference: names of the recordings. values: scores by name.
    features: float32 [N, D], identity features of some of its frames, for FAD; not stored.
    """

    row: str
    reference_identity: str
    source: str
    emotion: str
    reference: str
    values: dict[str, float]
    features: np.ndarray = field(default_factory=lambda: np.zeros((0, 1)), compare=False)

    @property
    def clip(self) -> tuple[str, str]:
        """What is edited, whoever is the reference: source and emotion."""
        return self.source, self.emotion


def generator_figures(
    scores: Sequence[ClipScore], real: Mapping[tuple[str, str], np.ndarray] | None = None
) -> dict[str, Estimate]:
    """Every figure by path: `stage2/<row>/<figure>`, and the same under `<row>/intra`, `<row>/cross`,
    `<row>/by_emotion/<emotion>` and both together.

    real: identity features [N, D] of real frames by (source, emotion), to which FAD is taken; without it there is none.
    """
    figures: dict[str, Estimate] = {}
    identities = sorted({s.reference_identity for s in scores})
    copied = {(s.reference_identity, *s.clip): s for s in scores if s.row == COPY}
    for row in dict.fromkeys(s.row for s in scores):
        mine = [s for s in scores if s.row == row]
        for identity in ["", *(identities if len(identities) > 1 else [])]:
            chosen = [s for s in mine if identity in ("", s.reference_identity)]
            path = f"stage2/{row}/{identity}/" if identity else f"stage2/{row}/"
            figures |= {path + name: figure for name, figure in _means(chosen, copied).items()}
            emotions = list(dict.fromkeys(s.emotion for s in chosen))
            for emotion in emotions:
                shown = [s for s in chosen if s.emotion == emotion]
                figures |= {f"{path}by_emotion/{emotion}/{n}": f for n, f in _means(shown, copied).items()}
            if real is not None:
                figures |= {path + name: figure for name, figure in _frechet(chosen, real).items()}
    return figures


def _means(scores: Sequence[ClipScore], copied: Mapping[tuple[str, str, str], ClipScore]) -> dict[str, Estimate]:
    """Mean and interval of every score over clips, and of the paired differences to the unchanged source."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for score in scores:
        values = dict(score.values)
        copy = copied.get((score.reference_identity, *score.clip))
        if copy is not None and score.row != COPY:
            for name in MINUS_COPY:
                if name in score.values and name in copy.values:
                    values[f"{name}_minus_copy"] = score.values[name] - copy.values[name]
        for name, value in values.items():
            found.setdefault(name, {}).setdefault(score.clip, []).append(value)
    return {name: bootstrap([float(np.mean(v)) for v in clips.values()]) for name, clips in found.items()}


def _frechet(scores: Sequence[ClipScore], real: Mapping[tuple[str, str], np.ndarray]) -> dict[str, Estimate]:
    """FAD of each emotion and their mean.

    Intervals by the jackknife over clips: a bootstrap repeats clips, which makes covariances poorer and the distance larger,
    so that its interval would not hold the value itself.
    """
    found: dict[str, Estimate] = {}
    variances = []
    for emotion in dict.fromkeys(s.emotion for s in scores):
        clips: dict[str, list[np.ndarray]] = {}
        for score in scores:
            if score.emotion == emotion and len(score.features):
                clips.setdefault(score.source, []).append(score.features)
        others = [real[source, emotion] for source in clips if (source, emotion) in real]
        if not clips or not others:
            continue
        truth = _Moments.of(np.concatenate(others))
        each = [_Moments.of(np.concatenate(parts)) for parts in clips.values()]
        value = frechet(truth, _Moments.sum(each))
        variance = float("nan")
        if (n := len(each)) > 1:
            without = [frechet(truth, _Moments.sum(each[:i] + each[i + 1 :])) for i in range(n)]
            variance = (n - 1) * float(np.var(without))
        variances.append(variance)
        found[emotion] = _normal(value, variance, n)
    if not found:
        return {}
    mean = float(np.mean([figure.value for figure in found.values()]))
    total = _normal(mean, float(np.sum(variances)) / len(found) ** 2, sum(figure.clips for figure in found.values()))
    return {"fad": total} | {f"by_emotion/{emotion}/fad": figure for emotion, figure in found.items()}


def _normal(value: float, variance: float, clips: int) -> Estimate:
    reach = 1.96 * float(np.sqrt(variance))
    return Estimate(value, value - reach, value + reach, clips)


@dataclass(frozen=True)
class _Moments:
    """Count, sum and sum of outer products of features: what a Gaussian needs, and what adds up over clips."""

    count: int
    total: np.ndarray
    outer: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> _Moments:
        features = features.astype(np.float64)
        return cls(len(features), features.sum(0), features.T @ features)

    @classmethod
    def sum(cls, parts: Iterable[_Moments]) -> _Moments:
        parts = list(parts)
        return cls(sum(p.count for p in parts), sum(p.total for p in parts), sum(p.outer for p in parts))  # type: ignore[arg-type]

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.count

    @property
    def covariance(self) -> np.ndarray:
        return (self.outer - np.outer(self.total, self.mean)) / (self.count - 1)


def frechet(a: _Moments, b: _Moments) -> float:
    """`distances.frechet_distance` from moments, with the trace of the root from eigenvalues (equal, and faster)."""
    spreads = a.covariance, b.covariance
    roots = np.sqrt(np.maximum(np.linalg.eigvals(spreads[0] @ spreads[1]).real, 0))
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(spreads[0]) + np.trace(spreads[1]) - 2 * roots.sum())
