"""Scores of emotion priors on held-out speakers and sentences: do they name the emotion, and what else does the embedding hold?"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from spfem_dist.emotions import SEVEN
from spfem_dist.evaluation.groups import PROBE_STEP, TRAIN_PROBE_STEP, EvaluationGroup, identity_probe, probe_rows
from spfem_dist.evaluation.probes import mean_over_clips, ridge_r2
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.evaluation.targets import Target

TARGETS = (
    Target("priors/emotion/accuracy", ">=", 0.80),
    Target("priors/emotion/worst_class", ">=", 0.50),
    Target("priors/emotion/mouth_opening_r2", "<=", 0.10),
)

MEANINGS = {
    "emotion/accuracy": "zero-shot emotion accuracy, seven classes, unseen speakers and sentences",
    "emotion/worst_class": "accuracy of the worst class",
    "emotion/mouth_opening_r2": "mouth opening read linearly from the emotion embedding: near 0 is good",
    "emotion/identity_probe": "who speaks, read linearly from the embedding",
}


def score(
    prior: nn.Module,
    test: list[EvaluationGroup],
    train: list[EvaluationGroup],
    speech_window: int = 5,
    device: str | torch.device = "cpu",
) -> dict[str, Estimate]:
    """Zero-shot accuracy of the emotion priors and what else the embedding holds, names `emotion/...`."""
    learnt = probe_rows(prior, train, TRAIN_PROBE_STEP, 1, device)
    rows = probe_rows(prior, test, PROBE_STEP, 1, device)
    names = np.array([e.value for e in SEVEN])
    seven = np.isin(rows.emotion, names)
    with torch.inference_mode():
        priors = prior.priors().float().cpu().numpy()
    right = (names[(rows.without_speech @ priors.T).argmax(1)] == rows.emotion).astype(float)
    figures = {"emotion/accuracy": mean_over_clips(right[seven], rows.clip[seven])}
    classes = {
        n: mean_over_clips(right[rows.emotion == n], rows.clip[rows.emotion == n])
        for n in names
        if (rows.emotion == n).any()
    }
    figures["emotion/worst_class"] = min(classes.values(), key=lambda figure: figure.value)
    figures |= {f"emotion/accuracy_{name}": figure for name, figure in classes.items()}
    if learnt.opening is not None and rows.opening is not None:
        figures["emotion/mouth_opening_r2"] = ridge_r2(
            learnt.without_speech, learnt.opening, rows.without_speech, rows.opening, rows.clip
        )
    who = identity_probe(rows)
    return figures if who is None else figures | {"emotion/identity_probe": who}
