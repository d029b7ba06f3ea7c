"""What personal prompts are worth on held-out speakers: the speaker's own against another speaker's and against nobody's.

A prompt is made from neutral frames of the speaker's other sentences, so that no clip is recognised by its own portrait. Every figure
is a mean over clips with its 95 % interval over clips; a gain is the mean difference on the same frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.evaluation.groups import PROBE_STEP, EvaluationGroup, frames_tensor, unit
from spfem_dist.evaluation.retrieval import Estimate, bootstrap
from spfem_dist.evaluation.targets import Target
from spfem_dist.priors.pcmecl.clean import NEUTRAL, CleanPCMECL

TARGETS = (
    Target("priors/pcmecl/accuracy", ">=", 0.75),
    # A corpus may have no personal styles to gain by: own prompts must do no harm there.
    Target("priors/pcmecl/accuracy", ">=", -0.02, than="priors/pcmecl/accuracy_none"),
)

MEANINGS = {
    "pcmecl/accuracy": "emotion accuracy by the speaker's own prompts, seven classes, unseen speakers and sentences",
    "pcmecl/accuracy_wrong": "the same by the prompts of another speaker, a mean over all others",
    "pcmecl/accuracy_none": "the same by nobody's prompts",
    "pcmecl/gain_over_none": "accuracy that own prompts add to nobody's",
    "pcmecl/gain_over_wrong": "accuracy that own prompts add to another speaker's",
    "pcmecl/surprise": "minus the log-probability that own prompts give the emotion, nats",
    "pcmecl/surprise_over_none": "the same less that of nobody's prompts: below 0, own prompts know more",
    "pcmecl/direction": "cosine of the change from the neutral clip to an emotional one and the change of the own prompt",
    "pcmecl/direction_over_none": "what own prompts add to that cosine",
} | {f"pcmecl/accuracy_{e}": f"accuracy of {e} by own prompts" for e in SEVEN}


@dataclass(frozen=True)
class Clip:
    """The emotion vectors [T, D] of a recording."""

    speaker: str
    sentence: str
    emotion: Emotion
    vectors: np.ndarray


def score(
    prior: CleanPCMECL,
    test: list[EvaluationGroup],
    train: list[EvaluationGroup],
    speech_window: int = 5,
    device: str | torch.device = "cpu",
) -> dict[str, Estimate]:
    """Names `pcmecl/...`. Nothing is probed and nothing is heard: train and speech_window are not used.

    Speakers with one neutral clip have no portrait of another one and are left out; {} where all are.
    """
    clips = [clip for group in test for clip in seen(prior, group, device)]
    nobodys = _prompts(prior, None)
    everybodys = {name: _prompts(prior, neutral_of(clips, name)) for name in sorted({c.speaker for c in clips})}
    found: dict[str, list[float]] = {}
    for clip in clips:
        if clip.emotion not in SEVEN or not (others := neutral_of(clips, clip.speaker, but=clip.sentence)):
            continue
        strangers = [p for name, p in everybodys.items() if name != clip.speaker and p is not None]
        row = figures_of(clip, _prompts(prior, others), nobodys, strangers, prior.settings.temperature)
        rest = [c.vectors for c in clips if (c.speaker, c.sentence) == (clip.speaker, clip.sentence) and _neutral(c)]
        if rest and not _neutral(clip):
            row |= directions_of(clip, np.concatenate(rest).mean(0), _prompts(prior, others), nobodys)
        for name, value in row.items():
            found.setdefault(f"pcmecl/{name}", []).append(value)
    return {name: bootstrap(values) for name, values in found.items()}


def seen(prior: CleanPCMECL, group: EvaluationGroup, device: str | torch.device) -> list[Clip]:
    """The vectors of a group's recordings, of every other frame with a found face."""
    found = []
    for recording in group.recordings:
        if len(chosen := np.flatnonzero(recording.valid)[::PROBE_STEP]):
            vectors = unit(prior, frames_tensor(recording.frames[chosen], device), None, device)
            found.append(Clip(group.speaker, group.sentence, recording.emotion, vectors))
    return found


def neutral_of(clips: Iterable[Clip], speaker: str, but: str = "") -> list[np.ndarray]:
    """The vectors of a speaker's neutral clips; but: a sentence to leave out."""
    return [c.vectors for c in clips if c.speaker == speaker and c.sentence != but and _neutral(c)]


def figures_of(
    clip: Clip, own: np.ndarray, nobodys: np.ndarray, strangers: list[np.ndarray], temperature: float
) -> dict[str, float]:
    """How well each set of prompts [7, D] recognises the clip's frames."""
    truth = SEVEN.index(clip.emotion)
    accuracy, none = recognised(clip.vectors, own, truth), recognised(clip.vectors, nobodys, truth)
    surprise = surprised(clip.vectors, own, truth, temperature)
    row = {
        "accuracy": accuracy,
        f"accuracy_{clip.emotion.value}": accuracy,
        "accuracy_none": none,
        "gain_over_none": accuracy - none,
        "surprise": surprise,
        "surprise_over_none": surprise - surprised(clip.vectors, nobodys, truth, temperature),
    }
    if strangers:
        wrong = float(np.mean([recognised(clip.vectors, prompts, truth) for prompts in strangers]))
        row |= {"accuracy_wrong": wrong, "gain_over_wrong": accuracy - wrong}
    return row


def directions_of(clip: Clip, rest: np.ndarray, own: np.ndarray, nobodys: np.ndarray) -> dict[str, float]:
    """How well the change of the face from `rest` [D] agrees with the change of the prompt."""
    truth, change = SEVEN.index(clip.emotion), clip.vectors - rest
    mine, none = (aligned(change, prompts[truth] - prompts[NEUTRAL]) for prompts in (own, nobodys))
    return {"direction": mine, "direction_over_none": mine - none}


def recognised(vectors: np.ndarray, prompts: np.ndarray, truth: int) -> float:
    """The share of vectors [T, D] whose nearest prompt [7, D] is the true one."""
    return float(((vectors @ prompts.T).argmax(1) == truth).mean())


def surprised(vectors: np.ndarray, prompts: np.ndarray, truth: int, temperature: float) -> float:
    """The mean of minus the log-probability of the true prompt, nats."""
    logits = vectors @ prompts.T / temperature
    return float((np.logaddexp.reduce(logits, axis=1) - logits[:, truth]).mean())


def aligned(changes: np.ndarray, wanted: np.ndarray) -> float:
    """The mean cosine of changes [T, D] and one vector [D]."""
    sizes = np.linalg.norm(changes, axis=1) * np.linalg.norm(wanted)
    return float((changes @ wanted / np.maximum(sizes, 1e-9)).mean())


def _neutral(clip: Clip) -> bool:
    return clip.emotion is Emotion.NEUTRAL


@torch.inference_mode()
def _prompts(prior: CleanPCMECL, neutral: list[np.ndarray] | None) -> np.ndarray | None:
    """The prompts [7, D] of a portrait, nobody's for None, none for a speaker without neutral clips."""
    if neutral is None:
        return prior.prompts().float().cpu().numpy()
    if not neutral:
        return None
    frames = torch.from_numpy(np.concatenate(neutral)[None]).to(prior.device)
    return prior.prompts(prior.portrait(frames))[0].float().cpu().numpy()
