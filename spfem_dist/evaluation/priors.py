"""Scores of the priors on held-out speakers and sentences (`spfem evaluate priors`).

What a prior is asked is its room's business: `spfem_dist.priors.<kind>.scores`, where there is one, has

    score(prior, test, train, speech_window, device)   figures by name, such as `content/same_speech_auc`
    TARGETS   bars (`targets.Target`) on names that begin with `priors/`, or `priors_released/` for the released form beside it
    MEANINGS  what a figure says, by the names of `score`
    pictures(prior, groups, speech_window)   pictures for the report by caption, where it has any
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType

import numpy as np
import torch
from torch import nn

from spfem_dist import rooms
from spfem_dist.evaluation.groups import EvaluationGroup, pairs
from spfem_dist.evaluation.retrieval import Estimate, bootstrap, linear_matches, matching_frames, phase_matches
from spfem_dist.evaluation.targets import Target

#: The project's bars for a corpus with ground truth.
CORPUS_TARGETS = (
    Target("corpus/linear_stretch_within_2", "<=", 0.70),
    Target("corpus/dtw_within_2", ">=", 0.95),
    Target("corpus/dtw_mean_error_frames", "<=", 0.8),
)

CORPUS_MEANINGS = {
    "corpus/linear_stretch_within_2": "frames that stretching one recording to the other's length matches within 2 frames",
    "corpus/dtw_within_2": "frames that the stored time-warp matches within 2 frames",
    "corpus/dtw_mean_error_frames": "mean error of the stored time-warp, frames",
}


def scores_of(kind: str) -> ModuleType | None:
    """The module `scores` of the prior's room; None where the room has none."""
    return rooms.part("priors", kind, "scores")


def targets(priors: Iterable[str]) -> tuple[Target, ...]:
    """The bars of the corpus and of the priors of these kinds."""
    found = [scores.TARGETS for kind in priors if (scores := scores_of(kind)) is not None]
    return tuple(target for bars in (CORPUS_TARGETS, *found) for target in bars)


def meanings(priors: Iterable[str]) -> dict[str, str]:
    """What each figure says."""
    found = [scores.MEANINGS for kind in priors if (scores := scores_of(kind)) is not None]
    return {name: text for table in (CORPUS_MEANINGS, *found) for name, text in table.items()}


def evaluate_priors(
    priors: Mapping[str, nn.Module],
    test: Iterable[EvaluationGroup],
    train: Iterable[EvaluationGroup],
    speech_window: int = 5,
    device: str | torch.device = "cpu",
) -> dict[str, Estimate]:
    """All figures by name: `corpus/...`, and what the rooms of the priors say of them.

    priors: by kind. test: groups of held-out speakers and sentences, on which everything is scored. train: groups of training
    speakers, on which linear probes learn (some hundred clips are enough). speech_window: rows around each frame, as trained.
    Both are read once, group by group. Raises ValueError where two rooms give a figure the same name.
    """
    test, train = list(test), list(train)
    figures = score_corpus(test)
    for kind, prior in priors.items():
        if (scores := scores_of(kind)) is None:
            continue
        found = scores.score(prior, test, train, speech_window, device)
        if both := sorted(found.keys() & figures.keys()):
            raise ValueError(
                f"the scores of {kind} call a figure {both[0]!r}, and so do those of another prior: rename one"
            )
        figures |= found
    return figures


def score_corpus(groups: list[EvaluationGroup]) -> dict[str, Estimate]:
    """How well a linear stretch and the stored time-warps find the true match; {} where no truth is known."""
    linear, warped, errors = [], [], []
    for group, a, b in pairs(groups):
        path = group.warp(a.name, b.name)
        if a.phase is None or b.phase is None or path is None:
            continue
        truth = phase_matches(a.phase, b.phase)
        linear.append(float((np.abs(linear_matches(len(truth), len(b.frames)) - truth) <= 2).mean()))
        error = np.abs(matching_frames(path, len(truth)) - truth)
        warped.append(float((error <= 2).mean()))
        errors.append(float(error.mean()))
    if not linear:
        return {}
    return {
        "corpus/linear_stretch_within_2": bootstrap(linear),
        "corpus/dtw_within_2": bootstrap(warped),
        "corpus/dtw_mean_error_frames": bootstrap(errors),
    }
