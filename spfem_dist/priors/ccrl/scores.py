"""Scores of content priors on held-out speakers and sentences.

The figure that matters is *same speech*: query E(x_i, a_i) against candidates E(y_j, a_i), every candidate given the query's
speech, as stage 2 does. Retrieval with each frame's own speech stands beside its trivial baselines, since alone it proves
nothing: unlearned speech features and mere position in the clip do nearly as well.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.fft import dct
from torch import nn

from spfem_dist.evaluation.drawing import retrieval_picture
from spfem_dist.evaluation.groups import (
    PROBE_STEP,
    TRAIN_PROBE_STEP,
    EvaluationGroup,
    ProbeRows,
    every_pair,
    frames_tensor,
    identity_probe,
    pairs,
    probe_rows,
    speech_windows,
    true_matches,
    unit,
)
from spfem_dist.evaluation.probes import probe_accuracy, ridge_r2
from spfem_dist.evaluation.retrieval import (
    WITHIN,
    Estimate,
    auc,
    bootstrap,
    chance,
    linear_matches,
    match_and_mismatch,
    top1,
)
from spfem_dist.evaluation.targets import Target

#: Every this many frames of a clip is a query.
QUERY_STEP = 2
#: Share of the clip by which a wrong speech is away from the query's own.
WRONG_SPEECH = 0.4
#: Retrievals in the picture, and candidates shown for each.
ROWS, SHOWN = 6, 5

TARGETS = (
    Target("priors/content/same_speech_auc", ">=", 0.75),
    Target("priors/content/same_speech_top1", ">=", 0.30),
    Target("priors_released/content/same_speech_auc", "<=", 0.58),
    Target("priors/content/own_speech_top1", ">=", 0.85),
    Target("priors/content/viseme_r2", ">=", 0.75),
    Target("priors/content/viseme_r2_without_speech", ">=", 0.50),
    Target("priors/content/emotion_probe", "<=", 0.35),
    Target("priors/content/emotion_probe", "<=", -0.08, than="priors_released/content/emotion_probe"),
)

MEANINGS = {
    "content/same_speech_auc": "the image branch knows what is said: right frames against wrong ones, all given the query's speech",
    "content/same_speech_top1": "best candidate within 2 frames, all candidates given the query's speech",
    "content/own_speech_top1": "the same with each frame's own speech (see the baselines)",
    "content/without_speech_top1": "the same with no speech at all",
    "content/wrong_speech_top1": "the same when both sides hear the wrong speech",
    "content/speech_only_top1": "baseline: own speech, every face replaced by one still",
    "content/unlearned_speech_top1": "baseline: speech features with nothing learnt",
    "content/position_only_top1": "baseline: position in the clip",
    "content/chance_top1": "baseline: chance",
    "content/viseme_r2": "mouth shape read linearly from the content embedding",
    "content/viseme_r2_without_speech": "the same, embedding made without speech",
    "content/emotion_probe": "emotion read linearly from the content embedding: near chance is good",
    "content/identity_probe": "who speaks, read linearly from the embedding",
}


def score(
    prior: nn.Module,
    test: list[EvaluationGroup],
    train: list[EvaluationGroup],
    speech_window: int = 5,
    device: str | torch.device = "cpu",
) -> dict[str, Estimate]:
    """Retrieval and probes of a content prior, names `content/...`; every figure has its interval over clips."""
    figures = score_retrieval(prior, test, speech_window, device)
    with_speech = {}
    for split, groups, step in (("train", train, TRAIN_PROBE_STEP), ("test", test, PROBE_STEP)):
        with_speech[split] = probe_rows(prior, groups, step, speech_window, device)
    return figures | content_probes(with_speech["train"], with_speech["test"])


def score_retrieval(
    prior: nn.Module, test: list[EvaluationGroup], speech_window: int, device: str | torch.device
) -> dict[str, Estimate]:
    hits: dict[str, list[float]] = {}
    areas = []
    for group, a, b in pairs(test):
        truth = true_matches(group, a, b)
        queries = np.flatnonzero(a.valid)[::QUERY_STEP]
        if truth is None or not len(queries):
            continue
        truth = truth[queries]
        speech_a, speech_b = speech_windows(a.features, speech_window), speech_windows(b.features, speech_window)
        faces = frames_tensor(a.frames[queries], device), frames_tensor(b.frames, device)
        away = (queries + int(WRONG_SPEECH * len(a.frames))) % len(a.frames)
        own = unit(prior, faces[0], speech_a[queries], device)
        misled = unit(prior, faces[0], speech_a[away], device)
        # Candidates under the query's speech, and under the wrong one: [2 Q, T, D].
        table = every_pair(prior, faces[1], speech_a[np.concatenate([queries, away])], device)
        same, wrong = (
            (table[: len(queries)] @ own[..., None])[..., 0],
            (table[len(queries) :] @ misled[..., None])[..., 0],
        )
        areas.append(auc(*match_and_mismatch(same, truth)))
        still = frames_tensor(a.frames[len(a.frames) // 2][None], device)
        voice_a, voice_b = (every_pair(prior, still, s, device)[:, 0] for s in (speech_a[queries], speech_b))
        similarities = {
            "same_speech_top1": same,
            "own_speech_top1": own @ unit(prior, faces[1], speech_b, device).T,
            "without_speech_top1": unit(prior, faces[0], None, device) @ unit(prior, faces[1], None, device).T,
            "wrong_speech_top1": wrong,
            "speech_only_top1": voice_a @ voice_b.T,
            "unlearned_speech_top1": -unlearned_distance(a.features[queries], b.features),
            "position_only_top1": -np.abs(
                linear_matches(len(a.frames), len(b.frames))[queries][:, None] - np.arange(len(b.frames))[None]
            ),
        }
        for name, similarity in similarities.items():
            hits.setdefault(name, []).append(float(top1(similarity, truth).mean()))
        hits.setdefault("chance_top1", []).append(float(chance(truth, len(b.frames)).mean()))
    figures = {f"content/{name}": bootstrap(values) for name, values in hits.items()}
    return {"content/same_speech_auc": bootstrap(areas)} | figures


def unlearned_distance(query: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """L1 distance of speech features with nothing learned, [Q, T]: MFCC-13 of log-mel rows, other features as they are."""
    if query.shape[1] % 40 == 0 and query.shape[1] <= 400:
        query, candidates = (
            dct(f.reshape(len(f), -1, 40), norm="ortho")[..., :13].reshape(len(f), -1) for f in (query, candidates)
        )
    return np.abs(query[:, None].astype(float) - candidates[None]).sum(-1)


def content_probes(train: ProbeRows, test: ProbeRows) -> dict[str, Estimate]:
    figures = {
        "content/emotion_probe": probe_accuracy(
            train.with_speech, train.emotion, test.with_speech, test.emotion, test.clip
        ),
        "content/identity_probe": identity_probe(test),
    }
    if train.mouth is not None and test.mouth is not None:
        for key, space in (("viseme_r2", "with_speech"), ("viseme_r2_without_speech", "without_speech")):
            figures[f"content/{key}"] = ridge_r2(
                getattr(train, space), train.mouth, getattr(test, space), test.mouth, test.clip
            )
    return {name: figure for name, figure in figures.items() if figure is not None}


def pictures(prior: nn.Module, groups: list[EvaluationGroup], speech_window: int) -> dict[str, np.ndarray]:
    """What held-out frames retrieve, by caption, uint8 [H, W, 3]."""
    return {
        "held-out frames (left) and what they retrieve under the same speech, best first; green is within 2 frames of the truth": retrieved(
            prior, groups, speech_window
        )
    }


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
