"""What STCCL-CM's metric is worth on held-out speakers and sentences. See `_stccl.window_scores`."""

from __future__ import annotations

import torch

from spfem_dist.evaluation.groups import EvaluationGroup
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.priors._stccl import window_scores
from spfem_dist.priors._stccl.pictures import WindowMetric

TARGETS = window_scores.targets("stccl_cm", mouth=0.80)
MEANINGS = window_scores.meanings("stccl_cm")


def score(
    prior: WindowMetric,
    test: list[EvaluationGroup],
    train: list[EvaluationGroup],
    speech_window: int = 5,
    device: str | torch.device = "cpu",
) -> dict[str, Estimate]:
    """Names `stccl_cm/...`. Nothing is probed and nothing is heard: train and speech_window are not used."""
    return window_scores.score("stccl_cm", prior, test, device)
