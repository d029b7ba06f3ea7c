"""The scores of one edited clip, and of the two rows that every table needs: the source unchanged, and the true target.

Pure: frames, speech and judges in, numbers by name out. `generator.py` makes figures of many clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.evaluation.clips import planes
from spfem_dist.evaluation.distances import Synchrony, mean_cosine, synchrony
from spfem_dist.evaluation.generator import ClipScore
from spfem_dist.evaluation.images import changed_error, jitter, l1, perceptual_distance, psnr, should_change, ssim
from spfem_dist.evaluation.judges.check import correlation
from spfem_dist.evaluation.judges.networks import Reading
from spfem_dist.evaluation.judges.saved import Judges
from spfem_dist.evaluation.mouth import INNER_LIPS, OUTER_EYES, VisemeProbe, corner_movement, mouth_error
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.prepare.landmarks import mouth_opening

#: Every this many frames is looked at where time plays no part.
STEP = 2
#: Frames of a recording that stand for it in CSIM, identity and FAD.
REAL_FRAMES = 25


@dataclass(frozen=True)
class Truth:
    """What is known of the clip that an edit should give.

    frames: uint8 [T, S, S, 3], the true target without coding noise, or None on recorded corpora; source: the clean source
    that belongs to it. landmarks: float32 [T, L, 2] pixels, of the true target, or of the source on recorded corpora.
    visemes: float32 [T, 4], what is spoken, where it is known. probe: reads it off the lips.
    """

    landmarks: np.ndarray
    frames: np.ndarray | None = None
    source: np.ndarray | None = None
    visemes: np.ndarray | None = None
    probe: VisemeProbe | None = None


@dataclass(frozen=True)
class RealFaces:
    """Real recordings that drawn frames are held against.

    identity: float32 [D], the speaker's unit feature over recordings other than the source. emotion: float32 [N, D], the
    oracle's features of the speaker's frames that show the target emotion.
    """

    identity: np.ndarray
    emotion: np.ndarray


@dataclass
class Seen:
    """What the judges see in one stack of frames.

    valid: bool [T]; rows of `reading` and `identity` are the valid frames. synchrony: of all of them with the clip's speech,
    None for a clip that is too short. jitter: mean second difference, grey levels.
    """

    frames: np.ndarray
    valid: np.ndarray
    reading: Reading
    identity: np.ndarray
    synchrony: Synchrony | None
    jitter: float


def look(judges: Judges, frames: np.ndarray, features: np.ndarray | None, valid: np.ndarray) -> Seen:
    """Everything that the judges say of frames [T, S, S, 3] with the speech features [T, F] of the clip."""
    heard = None
    if features is not None and len(frames) >= judges.synchrony.settings.window:
        lips, speech = judges.synchrony.embed(planes(frames), torch.from_numpy(features))
        heard = synchrony(lips.numpy(), speech.numpy())
    shown = frames[valid]
    return Seen(
        frames,
        valid,
        judges.oracle.read(planes(shown)),
        judges.identity.embed(planes(shown[::STEP])).numpy(),
        heard,
        jitter(frames),
    )


def scores(
    judges: Judges,
    seen: Seen,
    emotion: Emotion,
    truth: Truth,
    real: RealFaces,
    source: Seen,
    aligned: bool = True,
    aimed: np.ndarray | None = None,
) -> dict[str, float]:
    """The scores of one clip, by name; a score that is not defined for it is left out.

    source: the same for the unchanged source. aligned: False for a real recording of the emotion, whose frames do not
    match the source's in time: only what needs no match is scored. aimed: float32 [T, L, 2], the landmarks that the frames were
    drawn for, where they are known.
    """
    reading, topology = seen.reading, judges.oracle.topology
    found = {
        "emotion_accuracy": float((reading.emotion.argmax(1) == SEVEN.index(emotion)).float().mean()),
        "identity": float((seen.identity @ real.identity).mean()),
        "csim": mean_cosine(real.emotion, reading.features[::STEP].numpy()),
        "jitter": seen.jitter / source.jitter if source.jitter > 0 else float("nan"),
    }
    if seen.synchrony is not None:
        found["lse_d"], found["lse_c"] = seen.synchrony.lse_d, seen.synchrony.lse_c
        found["lse_d_aligned"] = float(seen.synchrony.distances[len(seen.synchrony.distances) // 2])
    if aligned:
        found |= _mouth(reading, truth.landmarks[seen.valid], topology)
        if truth.frames is not None and truth.source is not None:
            found |= _pictures(judges, seen.frames, truth, source.frames)
            found |= _speech(reading.landmarks.numpy(), truth, seen.valid, topology, "")
            if aimed is not None:
                found |= _speech(aimed[seen.valid], truth, seen.valid, topology, "_exact")
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _mouth(reading: Reading, known: np.ndarray, topology: str) -> dict[str, float]:
    """How the mouth moves: the oracle's word on the frames against the landmarks of what should be said."""
    opening, points = mouth_opening(known, topology), reading.landmarks.numpy()
    lips = np.linalg.norm(points - known, axis=-1)[:, list(INNER_LIPS[topology])].mean(1)
    left, right = (known[:, n] for n in OUTER_EYES[topology])
    return {
        "mouth_corr": correlation(reading.opening.numpy(), opening),
        "mouth_landmark_corr": correlation(mouth_opening(points, topology), opening),
        "mouth_distance": float((lips / np.linalg.norm(left - right, axis=-1)).mean()),
    }


def _speech(points: np.ndarray, truth: Truth, valid: np.ndarray, topology: str, mark: str) -> dict[str, float]:
    """How the lips of landmarks [N, L, 2] of the valid frames move against the true target's, and what they are seen to say."""
    known = truth.landmarks[valid]
    found = {f"width_corr{mark}": corner_movement(points, known, topology)}
    if truth.probe is not None and truth.visemes is not None:
        found[f"viseme_r2{mark}"] = truth.probe.r2(points, known, truth.visemes[valid])
    return found


def _pictures(judges: Judges, frames: np.ndarray, truth: Truth, copied: np.ndarray) -> dict[str, float]:
    """Errors against the true target, of which no codec has touched the target or the mask of what should change."""
    assert truth.frames is not None
    assert truth.source is not None
    changed = should_change(truth.frames, truth.source)
    error, copy = changed_error(frames, truth.frames, changed), changed_error(copied, truth.frames, changed)
    of_mouth, copied_mouth = (
        mouth_error(shown, truth.frames, truth.landmarks, judges.oracle.topology) for shown in (frames, copied)
    )
    some, true = frames[::STEP], truth.frames[::STEP]
    return {
        "l1": l1(frames, truth.frames),
        "psnr": psnr(frames, truth.frames),
        "ssim": ssim(some, true),
        "perceptual": perceptual_distance(judges.oracle, some, true),
        "changed_error": error,
        "changed_error_over_copy": error / copy if copy > 0 else float("nan"),
        "mouth_error": of_mouth,
        "mouth_error_over_copy": of_mouth / copied_mouth if copied_mouth > 0 else float("nan"),
    }


def real_faces(others: Sequence[np.ndarray], shown: Sequence[np.ndarray]) -> RealFaces:
    """others: identity features [N, D] of the speaker's other recordings. shown: the oracle's features [M, E] of those that
    show the target emotion.
    """
    known = np.concatenate(others).mean(0)
    return RealFaces(known / np.linalg.norm(known), np.concatenate(shown))


def some(frames: np.ndarray) -> np.ndarray:
    """At most REAL_FRAMES of a recording's frames, evenly chosen."""
    return frames[np.linspace(0, len(frames) - 1, min(len(frames), REAL_FRAMES)).astype(int)]


@dataclass(frozen=True)
class Shown:
    """One edit as the report plays it: uint8 [T, S, S, 3] each; target, and what is drawn of its landmarks, are None where it is not known."""

    caption: str
    source: np.ndarray
    generated: np.ndarray
    target: np.ndarray | None
    reference: np.ndarray
    upper: np.ndarray | None = None


@dataclass
class Evaluation:
    """What an evaluation found: figures by path, scores of every clip, clips to show, and what was used."""

    figures: dict[str, Estimate]
    scores: list[ClipScore]
    shown: list[Shown]
    facts: dict[str, Any]
