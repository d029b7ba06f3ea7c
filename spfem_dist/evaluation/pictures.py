"""Pictures of trained priors for the report: what attention looks at, what a frame retrieves, how the spaces lie."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from spfem_dist.evaluation.drawing import scatter_picture
from spfem_dist.evaluation.groups import PROBE_STEP, EvaluationGroup, probe_rows
from spfem_dist.evaluation.priors import scores_of
from spfem_dist.records import Batch


def report_pictures(
    priors: dict[str, nn.Module], groups: list[EvaluationGroup], batches: dict[str, Batch], speech_window: int
) -> dict[str, np.ndarray]:
    """Pictures by caption, uint8 [H, W, 3]. batches: a held-out batch for each prior, for the pictures it draws itself."""
    pictures: dict[str, np.ndarray] = {}
    for kind, prior in priors.items():
        if kind in batches:
            with torch.inference_mode():
                pictures |= {f"{kind}: {key}": image for key, image in prior.pictures(batches[kind]).items()}
        if hasattr(prior, "embed"):
            rows = probe_rows(prior, groups, PROBE_STEP, speech_window, "cpu")
            labels = {"emotion": rows.emotion, "sentence": rows.sentence, "speaker": rows.speaker}
            caption = f"{kind}: the embedding, two principal components, one dot a held-out frame"
            pictures[caption] = scatter_picture(rows.with_speech, labels)
        if (scores := scores_of(kind)) is not None and hasattr(scores, "pictures"):
            pictures |= {f"{kind}: {key}": p for key, p in scores.pictures(prior, groups, speech_window).items()}
    return pictures
