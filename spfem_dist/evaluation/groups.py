"""Held-out recordings, decoded, and what the scores of every prior are made of: pairs that say the same, embeddings, rows to probe."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.probes import probe_accuracy
from spfem_dist.evaluation.retrieval import Estimate, matching_frames, phase_matches

#: Every this many frames of a clip is a row of a probe, on held-out clips and on those it learns from.
PROBE_STEP, TRAIN_PROBE_STEP = 2, 3


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
    """Embeddings of faces with their speech (None: without speech), float32 [N, D]."""
    with_speech = None if speech is None else torch.from_numpy(np.ascontiguousarray(speech, np.float32)).to(device)
    parts = [
        prior.embed(faces[i : i + at_once], None if with_speech is None else with_speech[i : i + at_once])
        for i in range(0, len(faces), at_once)
    ]
    return torch.cat(parts).float().cpu().numpy()


@torch.inference_mode()
def every_pair(prior: nn.Module, faces: Tensor, speech: np.ndarray, device: str | torch.device) -> np.ndarray:
    """Every face under every speech: faces [T, 3, S, S], speech [Q, W, F] -> float32 [Q, T, D].

    Priors that can share the work between speeches offer `embed_table`; the others embed each pair.
    """
    with_speech = torch.from_numpy(np.ascontiguousarray(speech, np.float32)).to(device)
    if hasattr(prior, "embed_table"):
        return prior.embed_table(faces, with_speech).float().cpu().numpy()
    rows = [prior.embed(faces, one.expand(len(faces), -1, -1)) for one in with_speech]
    return torch.stack(rows).float().cpu().numpy()


@dataclass
class ProbeRows:
    """Rows for the linear probes: one for each chosen frame."""

    with_speech: np.ndarray
    without_speech: np.ndarray
    mouth: np.ndarray | None
    opening: np.ndarray | None
    emotion: np.ndarray
    speaker: np.ndarray
    sentence: np.ndarray
    clip: np.ndarray


def probe_rows(
    prior: nn.Module, groups: list[EvaluationGroup], step: int, speech_window: int, device: str | torch.device
) -> ProbeRows:
    """Embeddings of every `step`-th valid frame with its labels; `without_speech` equals `with_speech` for a prior that does not listen."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("with_speech", "without_speech", "mouth", "opening")}
    labels: dict[str, list[str]] = {name: [] for name in ("emotion", "speaker", "sentence", "clip")}
    for group in groups:
        for r in group.recordings:
            chosen = np.flatnonzero(r.valid)[::step]
            if not len(chosen):
                continue
            faces = frames_tensor(r.frames[chosen], device)
            columns["without_speech"].append(unit(prior, faces, None, device))
            if prior.hears:
                columns["with_speech"].append(
                    unit(prior, faces, speech_windows(r.features, speech_window)[chosen], device)
                )
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
    without_speech = np.concatenate(columns["without_speech"])
    with_speech = np.concatenate(columns["with_speech"]) if prior.hears else without_speech
    return ProbeRows(
        with_speech,
        without_speech,
        known["mouth"],
        known["opening"],
        **{name: np.array(values) for name, values in labels.items()},
    )


def identity_probe(rows: ProbeRows) -> Estimate | None:
    """Who speaks, on a sentence that the probe has not with_speech; None where a speaker says only one."""
    held_out = rows.sentence == np.unique(rows.sentence)[-1]
    known = np.isin(rows.speaker, np.unique(rows.speaker[~held_out])) & held_out
    if not known.any() or len(np.unique(rows.speaker[~held_out])) < 2:
        return None
    return probe_accuracy(
        rows.with_speech[~held_out],
        rows.speaker[~held_out],
        rows.with_speech[known],
        rows.speaker[known],
        rows.clip[known],
    )
