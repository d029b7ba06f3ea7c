"""Pictures of trained priors for the report: what attention looks at, what a frame retrieves, how the spaces lie."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from spfem_dist.evaluation.drawing import retrieval_picture, scatter_picture
from spfem_dist.evaluation.priors import (
    PROBE_STEP,
    EvaluationGroup,
    every_pair,
    frames_tensor,
    pairs,
    probe_rows,
    speech_windows,
    true_matches,
    unit,
)
from spfem_dist.evaluation.retrieval import WITHIN
from spfem_dist.records import Batch

#: Retrievals in the picture, and candidates shown for each.
ROWS, SHOWN = 6, 5


def report_pictures(
    priors: dict[str, nn.Module], groups: list[EvaluationGroup], batches: dict[str, Batch], speech_window: int
) -> dict[str, np.ndarray]:
    """Pictures by caption, uint8 [H, W, 3]. batches: a held-out batch for each prior, for the pictures it draws itself."""
    pictures: dict[str, np.ndarray] = {}
    for name, prior in priors.items():
        if name in batches:
            with torch.inference_mode():
                pictures |= {f"{name}: {key}": image for key, image in prior.pictures(batches[name]).items()}
        rows = probe_rows(prior, groups, PROBE_STEP, speech_window, "cpu")
        labels = {"emotion": rows.emotion, "sentence": rows.sentence, "speaker": rows.speaker}
        pictures[f"{name}: the embedding, two principal components, one dot a held-out frame"] = scatter_picture(
            rows.heard, labels
        )
    if "ccrl" in priors:
        pictures[
            "ccrl: held-out frames (left) and what they retrieve under the same speech, best first; green is within 2 frames of the truth"
        ] = retrieved(priors["ccrl"], groups, speech_window)
    return pictures


def retrieved(prior: nn.Module, groups: list[EvaluationGroup], speech_window: int) -> np.ndarray:
    """Queries of several speakers and emotions beside the frames they retrieve when every candidate hears the query's speech."""
    chosen = pairs(groups)
    chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(ROWS, len(chosen))).round().astype(int)]
    queries, found, right = [], [], []
    for group, a, b in chosen:
        truth = true_matches(group, a, b)
        query = len(a.frames) // 2
        speech = speech_windows(a.features, speech_window)[[query]]
        own = unit(prior, frames_tensor(a.frames[[query]], "cpu"), speech, "cpu")
        order = np.argsort(-(every_pair(prior, frames_tensor(b.frames, "cpu"), speech, "cpu")[0] @ own[0]))[:SHOWN]
        if len(order) < SHOWN:
            continue
        queries.append(a.frames[query])
        found.append(b.frames[order])
        right.append(np.abs(order - truth[query]) <= WITHIN if truth is not None else np.zeros(SHOWN, bool))
    return retrieval_picture(np.stack(queries), np.stack(found), np.stack(right))
