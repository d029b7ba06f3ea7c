"""Scores of the priors on held-out speakers and sentences (`spfem evaluate priors`).

The figure that matters for content is *same speech*: query E(x_i, a_i) against candidates E(y_j, a_i), every candidate
given the query's speech, as stage 2 does. Retrieval with each frame's own speech stands beside its trivial baselines, since
alone it proves nothing: unlearned speech features and mere position in the clip do nearly as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor, nn

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.evaluation.probes import mean_over_clips, probe_accuracy, ridge_r2
from spfem_dist.evaluation.retrieval import (
    Figure,
    auc,
    bootstrap,
    chance,
    linear_matches,
    match_and_mismatch,
    matching_frames,
    phase_matches,
    top1,
)

#: Every this many frames of a clip is a query, respectively a row of a probe.
QUERY_STEP, PROBE_STEP, TRAIN_PROBE_STEP = 2, 2, 3
#: Share of the clip by which a wrong speech is away from the query's own.
WRONG_SPEECH = 0.4


@dataclass
class EvaluationRecording:
    """One decoded recording.

    frames: uint8 [T, S, S, 3] RGB. features: float [T, F] speech features. valid: bool [T].
    mouth: float [T, M], what the mouth does: open, width, round (synthetic truth), or the landmark opening alone.
    opening: float [T], how far the mouth is seen open. phase: float [T], true progress through the sentence, where known.
    """

    name: str
    emotion: Emotion
    frames: np.ndarray
    features: np.ndarray
    valid: np.ndarray
    mouth: np.ndarray | None = None
    opening: np.ndarray | None = None
    phase: np.ndarray | None = None


@dataclass
class EvaluationGroup:
    """One speaker saying one sentence, decoded; warps as in `UtteranceGroup`."""

    key: str
    speaker: str
    sentence: str
    recordings: list[EvaluationRecording]
    warps: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def warp(self, a: str, b: str) -> np.ndarray | None:
        """Time-warp path from recording a to recording b, int [2, P], or None."""
        if (a, b) in self.warps:
            return self.warps[(a, b)]
        return self.warps[(b, a)][::-1] if (b, a) in self.warps else None


def evaluate_priors(
    content: nn.Module | None,
    emotion: nn.Module | None,
    test: Iterable[EvaluationGroup],
    train: Iterable[EvaluationGroup],
    speech_window: int = 5,
    device: str | torch.device = "cpu",
) -> dict[str, Figure]:
    """All figures by name: `corpus/...`, `content/...`, `emotion/...`.

    test: groups of held-out speakers and sentences, on which everything is scored. train: groups of training speakers,
    on which the linear probes learn (some hundred clips are enough). speech_window: rows around each frame, as trained.
    Both are read once, group by group.
    """
    test, train = list(test), list(train)
    figures = score_corpus(test)
    if content is not None:
        figures |= score_content(content, test, train, speech_window, device)
    if emotion is not None:
        figures |= score_emotion(emotion, test, train, device)
    return figures


# Corpus: is the task hard, and are the stored time-warps right?


def score_corpus(groups: list[EvaluationGroup]) -> dict[str, Figure]:
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


def pairs(groups: list[EvaluationGroup]) -> list[tuple[EvaluationGroup, EvaluationRecording, EvaluationRecording]]:
    """The retrieval pairs: each group's neutral recording (or its first) with every recording of another emotion."""
    found = []
    for group in groups:
        source = next((r for r in group.recordings if r.emotion is Emotion.NEUTRAL), group.recordings[0])
        found += [(group, source, other) for other in group.recordings if other.emotion is not source.emotion]
    return found


def true_matches(group: EvaluationGroup, a: EvaluationRecording, b: EvaluationRecording) -> np.ndarray | None:
    """The frame of b that matches each frame of a, float [Ta]: the truth where it is known, else the time-warp."""
    if a.phase is not None and b.phase is not None:
        return phase_matches(a.phase, b.phase)
    path = group.warp(a.name, b.name)
    return None if path is None else matching_frames(path, len(a.frames))


# Content


def score_content(
    prior: nn.Module,
    test: list[EvaluationGroup],
    train: list[EvaluationGroup],
    speech_window: int = 5,
    device: str | torch.device = "cpu",
) -> dict[str, Figure]:
    """Retrieval and probes of a content prior, names `content/...`; every figure has its interval over clips."""
    figures = score_retrieval(prior, test, speech_window, device)
    heard = {}
    for split, groups, step in (("train", train, TRAIN_PROBE_STEP), ("test", test, PROBE_STEP)):
        heard[split] = probe_rows(prior, groups, step, speech_window, device)
    return figures | content_probes(heard["train"], heard["test"])


def score_retrieval(
    prior: nn.Module, test: list[EvaluationGroup], speech_window: int, device: str | torch.device
) -> dict[str, Figure]:
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


@dataclass
class ProbeRows:
    """Rows for the linear probes: one for each chosen frame."""

    heard: np.ndarray
    unheard: np.ndarray
    mouth: np.ndarray | None
    opening: np.ndarray | None
    emotion: np.ndarray
    speaker: np.ndarray
    sentence: np.ndarray
    clip: np.ndarray


def probe_rows(
    prior: nn.Module, groups: list[EvaluationGroup], step: int, speech_window: int, device: str | torch.device
) -> ProbeRows:
    """Embeddings of every `step`-th valid frame with its labels; `unheard` equals `heard` for a prior that does not listen."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("heard", "unheard", "mouth", "opening")}
    labels: dict[str, list[str]] = {name: [] for name in ("emotion", "speaker", "sentence", "clip")}
    for group in groups:
        for r in group.recordings:
            chosen = np.flatnonzero(r.valid)[::step]
            if not len(chosen):
                continue
            faces = frames_tensor(r.frames[chosen], device)
            columns["unheard"].append(unit(prior, faces, None, device))
            if prior.hears:
                columns["heard"].append(unit(prior, faces, speech_windows(r.features, speech_window)[chosen], device))
            for name in ("mouth", "opening"):
                values = getattr(r, name)
                if values is not None:
                    columns[name].append(values[chosen])
            row = {"emotion": r.emotion.value, "speaker": group.speaker, "sentence": group.sentence}
            for name, label in (row | {"clip": f"{group.key}.{r.name}"}).items():
                labels[name] += [label] * len(chosen)
    if not labels["clip"]:
        raise ValueError("no frame to probe: the groups hold no recording with a found face")
    known = {  # of the mouth, only what every recording knows
        name: np.concatenate(columns[name]) if sum(map(len, columns[name])) == len(labels["clip"]) else None
        for name in ("mouth", "opening")
    }
    unheard = np.concatenate(columns["unheard"])
    heard = np.concatenate(columns["heard"]) if prior.hears else unheard
    return ProbeRows(
        heard, unheard, known["mouth"], known["opening"], **{name: np.array(values) for name, values in labels.items()}
    )


def content_probes(train: ProbeRows, test: ProbeRows) -> dict[str, Figure]:
    figures = {
        "content/emotion_probe": probe_accuracy(train.heard, train.emotion, test.heard, test.emotion, test.clip),
        "content/identity_probe": identity_probe(test),
    }
    if train.mouth is not None and test.mouth is not None:
        for key, space in (("viseme_r2", "heard"), ("viseme_r2_without_speech", "unheard")):
            figures[f"content/{key}"] = ridge_r2(
                getattr(train, space), train.mouth, getattr(test, space), test.mouth, test.clip
            )
    return {name: figure for name, figure in figures.items() if figure is not None}


def identity_probe(rows: ProbeRows) -> Figure | None:
    """Who speaks, on a sentence that the probe has not heard; None where a speaker says only one."""
    held_out = rows.sentence == np.unique(rows.sentence)[-1]
    known = np.isin(rows.speaker, np.unique(rows.speaker[~held_out])) & held_out
    if not known.any() or len(np.unique(rows.speaker[~held_out])) < 2:
        return None
    return probe_accuracy(
        rows.heard[~held_out], rows.speaker[~held_out], rows.heard[known], rows.speaker[known], rows.clip[known]
    )


# Emotion


def score_emotion(
    prior: nn.Module, test: list[EvaluationGroup], train: list[EvaluationGroup], device: str | torch.device = "cpu"
) -> dict[str, Figure]:
    """Zero-shot accuracy of the emotion priors and what else the embedding holds, names `emotion/...`."""
    learnt = probe_rows(prior, train, TRAIN_PROBE_STEP, 1, device)
    rows = probe_rows(prior, test, PROBE_STEP, 1, device)
    names = np.array([e.value for e in SEVEN])
    seven = np.isin(rows.emotion, names)
    with torch.inference_mode():
        priors = prior.priors().float().cpu().numpy()
    right = (names[(rows.unheard @ priors.T).argmax(1)] == rows.emotion).astype(float)
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
            learnt.unheard, learnt.opening, rows.unheard, rows.opening, rows.clip
        )
    who = identity_probe(rows)
    return figures if who is None else figures | {"emotion/identity_probe": who}


# Embedding


def speech_windows(features: np.ndarray, window: int) -> np.ndarray:
    """The `window` feature rows around each frame, [T, window, F]; the ends repeat the first and last row."""
    rows = np.arange(len(features))[:, None] + np.arange(window)[None] - window // 2
    return features[rows.clip(0, len(features) - 1)]


def frames_tensor(frames: np.ndarray, device: str | torch.device) -> Tensor:
    """uint8 [T, S, S, 3] -> uint8 tensor [T, 3, S, S]."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).to(device)


@torch.inference_mode()
def unit(
    prior: nn.Module, faces: Tensor, speech: np.ndarray | None, device: str | torch.device, at_once: int = 256
) -> np.ndarray:
    """Embeddings of faces with their speech (None: unheard), float32 [N, D]."""
    heard = None if speech is None else torch.from_numpy(np.ascontiguousarray(speech, np.float32)).to(device)
    parts = [
        prior.embed(faces[i : i + at_once], None if heard is None else heard[i : i + at_once])
        for i in range(0, len(faces), at_once)
    ]
    return torch.cat(parts).float().cpu().numpy()


@torch.inference_mode()
def every_pair(prior: nn.Module, faces: Tensor, speech: np.ndarray, device: str | torch.device) -> np.ndarray:
    """Every face under every speech: faces [T, 3, S, S], speech [Q, W, F] -> float32 [Q, T, D].

    Priors that can share the work between speeches offer `embed_table`; the others embed each pair.
    """
    heard = torch.from_numpy(np.ascontiguousarray(speech, np.float32)).to(device)
    if hasattr(prior, "embed_table"):
        return prior.embed_table(faces, heard).float().cpu().numpy()
    rows = [prior.embed(faces, one.expand(len(faces), -1, -1)) for one in heard]
    return torch.stack(rows).float().cpu().numpy()
