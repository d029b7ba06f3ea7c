"""What does each part of a method add? Variants against a baseline, paired over seeds and clips.

A run of each variant and seed edits the same clips. The difference to the baseline is taken clip by clip and seed by seed; both are
redrawn for the interval, since two trainings of one variant differ as two clips do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spfem_dist.evaluation.compare import FILE, Verdict, by_clip, read_edits, read_facts, verdict
from spfem_dist.evaluation.generator import BETTER, ClipScore
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.storage import open_filesystem

BASELINE = "baseline"
#: Runs by variant and seed; scores of their clips likewise.
Runs = Mapping[tuple[str, int], str]
Scores = Mapping[tuple[str, int], Sequence[ClipScore]]


@dataclass(frozen=True)
class Effect:
    """One variant minus the baseline in one figure: means over seeds and clips, the difference with its 95 % interval, the verdict."""

    variant: str
    figure: str
    value: float
    baseline: float
    difference: Estimate
    verdict: Verdict


def is_scored(location: str, variant: str, judges: str, sentences: int) -> bool:
    """Whether the run was evaluated under this name by these judges, on so many sentences of each speaker."""
    fs, root = open_filesystem(location)
    facts = read_facts(location).get(variant, {}) if fs.exists(f"{root}/{FILE}") else {}
    return (facts.get("judges"), facts.get("sentences")) == (judges, sentences)


def read_scores(runs: Runs) -> dict[tuple[str, int], list[ClipScore]]:
    """The clips' scores of every run, each under its variant's name.

    Raises ValueError where one was not scored under that name, or two were scored by different judges or on other data.
    """
    scores = {}
    first: tuple[str, dict[str, Any]] | None = None
    for (variant, seed), location in runs.items():
        facts = read_facts(location).get(variant)
        if facts is None:
            raise ValueError(
                f"{location} was not scored as {variant!r}: spfem evaluate generator {location} --variant {variant}"
            )
        first = first or (location, facts)
        for name, value in facts.items():
            if value != first[1].get(name):
                raise ValueError(
                    f"{location} was scored with {name} {value!r}, {first[0]} with {first[1].get(name)!r}: "
                    "score all runs alike, then compare"
                )
        scores[variant, seed] = [score for score in read_edits(location) if score.row == variant]
    return scores


def effects(scores: Scores, baseline: str = BASELINE, draws: int = 2000) -> list[Effect]:
    """Every variant against the baseline, in the order of variants and figures. Deterministic.

    Only seeds that both have and clips that all their runs edited count. Raises ValueError where none is left.
    """
    variants = list(dict.fromkeys(variant for variant, _ in scores))
    if baseline not in variants:
        raise ValueError(
            f"no run of the variant {baseline!r}, which the others are compared with; there are {variants}"
        )
    found = []
    for variant in variants:
        if variant == baseline:
            continue
        seeds = [seed for other, seed in scores if other == variant and (baseline, seed) in scores]
        if not seeds:
            raise ValueError(f"{variant} and {baseline} share no seed: train both with the same --seeds")
        mine, theirs = ([by_clip(scores[which, seed], which) for seed in seeds] for which in (variant, baseline))
        shared = [clip for clip in mine[0] if all(clip in run for run in (*mine, *theirs))]
        if not shared:
            raise ValueError(
                f"{variant} and {baseline} edited no clip in common: score them on the same shards and split"
            )
        for figure, sign in BETTER.items():
            clips = [clip for clip in shared if all(figure in run[clip] for run in (*mine, *theirs))]
            if sign and clips:
                own, other = (
                    np.array([[run[clip][figure] for clip in clips] for run in runs]) for runs in (mine, theirs)
                )
                difference = interval(own - other, draws)
                found.append(
                    Effect(
                        variant, figure, float(own.mean()), float(other.mean()), difference, verdict(difference, sign)
                    )
                )
    return found


def interval(differences: np.ndarray, draws: int = 2000) -> Estimate:
    """The mean of paired differences [seeds, clips] and its 95 % interval; seeds and clips are redrawn, each for itself."""
    seeds, clips = differences.shape
    rng = np.random.default_rng(0)
    # How often each seed and clip is drawn, as shares: the mean of a redrawn table is a product with them.
    rows, columns = (rng.multinomial(n, np.full(n, 1 / n), draws) / n for n in (seeds, clips))
    means = np.einsum("ds,sc,dc->d", rows, differences, columns)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(differences.mean()), float(low), float(high), clips)
