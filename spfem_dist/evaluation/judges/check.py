"""Are the judges fit to judge? Their scores on real recordings of held-out speakers saying held-out sentences."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import nn

from spfem_dist.emotions import SEVEN
from spfem_dist.evaluation.clips import TestClip, planes
from spfem_dist.evaluation.distances import synchrony
from spfem_dist.evaluation.judges.networks import IdentityNetwork, OracleNetwork, SynchronyNetwork
from spfem_dist.evaluation.retrieval import Estimate, auc, bootstrap
from spfem_dist.prepare.landmarks import mouth_opening

#: Frames by which speech is shifted to show that the distance knows.
SHIFT = 5


def check(judge: nn.Module, clips: Sequence[TestClip]) -> dict[str, Estimate]:
    """The figures of any judge, by short name; {} where there is no clip."""
    if not clips:
        return {}
    if isinstance(judge, OracleNetwork):
        return check_oracle(judge, clips)
    if isinstance(judge, IdentityNetwork):
        return check_identity(judge, clips)
    assert isinstance(judge, SynchronyNetwork)
    return check_synchrony(judge, clips)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two series; not a number where one does not move."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-9 else float("nan")


def check_oracle(oracle: OracleNetwork, clips: Sequence[TestClip]) -> dict[str, Estimate]:
    """Accuracy over seven emotions, correlation of the mouth opening over each clip, and the landmarks' error.

    `_blurred`: the same on frames blurred as a generator might draw them (Gaussian, 1.5 % of the side).
    """
    rows: dict[str, list[float]] = {}
    accuracy: dict[str, list[float]] = {}
    for clip in (c for c in clips if c.emotion in SEVEN):
        seen = clip.valid
        soft = np.stack([cv2.GaussianBlur(f, (0, 0), 0.015 * len(f)) for f in clip.frames[seen]])
        for mark, frames in (("", clip.frames[seen]), ("_blurred", soft)):
            reading = oracle.read(planes(frames))
            right = float((reading.emotion.argmax(1) == SEVEN.index(clip.emotion)).float().mean())
            rows.setdefault(f"emotion_accuracy{mark}", []).append(right)
            opening = reading.opening.numpy()
            rows.setdefault(f"mouth_opening_corr{mark}", []).append(correlation(opening, clip.opening[seen]))
            if mark:
                continue
            accuracy.setdefault(clip.emotion.value, []).append(right)
            landmarks = reading.landmarks.numpy()
            opened = mouth_opening(landmarks, oracle.topology)
            rows.setdefault("mouth_landmark_corr", []).append(correlation(opened, clip.opening[seen]))
            error = np.linalg.norm(landmarks - clip.landmarks[seen], axis=-1).mean() / clip.frames.shape[1]
            rows.setdefault("landmark_error_per_side", []).append(float(error))
    figures = {name: bootstrap([v for v in values if v == v]) for name, values in rows.items()}
    return figures | {f"emotion_accuracy_{name}": bootstrap(values) for name, values in accuracy.items()}


def check_identity(identity: IdentityNetwork, clips: Sequence[TestClip]) -> dict[str, Estimate]:
    """Verification over pairs of recordings: the area under the curve, and the cosines of same and different speakers."""
    with torch.inference_mode():
        means = torch.stack([identity.embed(planes(c.frames[c.valid][::3])).mean(0) for c in clips])
        alike = torch.nn.functional.normalize(means, dim=1).numpy()
    table = alike @ alike.T
    speakers = np.array([c.speaker for c in clips])
    same = speakers[:, None] == speakers[None]
    other = ~np.eye(len(clips), dtype=bool)
    areas, kin, strangers = [], [], []
    for row in range(len(clips)):
        mine, theirs = table[row][same[row] & other[row]], table[row][~same[row]]
        if len(mine) and len(theirs):
            areas.append(auc(mine, theirs))
            kin.append(float(mine.mean()))
            strangers.append(float(theirs.mean()))
    if not areas:
        return {}
    return {
        "verification_auc": bootstrap(areas),
        "same_speaker": bootstrap(kin),
        "different_speakers": bootstrap(strangers),
    }


def check_synchrony(judge: SynchronyNetwork, clips: Sequence[TestClip]) -> dict[str, Estimate]:
    """How often the offset that is found is within one frame of the truth, and LSE-D of right, shifted and foreign speech."""
    rows: dict[str, list[float]] = {}
    for number, clip in enumerate(clips):
        other = clips[(number + len(clips) // 2) % len(clips)]
        lips, heard = (t.numpy() for t in judge.embed(planes(clip.frames), torch.from_numpy(clip.features)))
        found = synchrony(lips, heard)
        late = synchrony(lips, np.roll(heard, SHIFT, axis=0))
        foreign_features = np.resize(other.features, clip.features.shape)
        _, foreign = judge.embed(planes(clip.frames), torch.from_numpy(foreign_features))
        strange = synchrony(lips, foreign.numpy())
        row = {
            "offset_within_1": float(abs(found.offset) <= 1),
            "lse_d": found.lse_d,
            "lse_c": found.lse_c,
            "lse_d_aligned": found.distances[10],
            "lse_d_aligned_shifted": late.distances[10],
            "lse_d_other_speech": strange.lse_d,
            "lse_c_other_speech": strange.lse_c,
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(float(value))
    return {name: bootstrap(values) for name, values in rows.items()}
