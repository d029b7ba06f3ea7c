"""What a metric between windows is worth on held-out speakers and sentences: does it know when?

*Right window*: across emotions, whether the similarity of two windows prefers the one that matches in time over the same window some
frames earlier or later. Chance is .5. Similarity is what guidance asks: the mean over places of a region and over maps, of space and of
time. The two parts stand beside it, and what neighbouring frames' pixels say without any training.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spfem_dist.emotions import SEVEN
from spfem_dist.evaluation.groups import EvaluationGroup, EvaluationRecording, frames_tensor, pairs, true_matches
from spfem_dist.evaluation.retrieval import Estimate, bootstrap
from spfem_dist.evaluation.targets import Target
from spfem_dist.nets.augment import face_crop
from spfem_dist.nets.small import resized, to_unit_range
from spfem_dist.priors._stccl.pictures import WindowMetric

#: Every this many frames a window of a clip begins that is asked for.
QUERY_STEP = 4
#: By how many frames, earlier and later, the wrong windows are shifted; the first one names the bars.
SHIFTS = (3, 2, 5)
#: Places of one map that a region is compared at, at most, along a side.
ALONG = 8
#: Side of the pixels' map; how many frames or windows pass a network at once.
PIXELS, AT_ONCE = 16, 64


def targets(kind: str, mouth: float) -> tuple[Target, ...]:
    """The bars of a form of the metric; mouth: its bar at the mouth."""
    return (
        Target(f"priors/{kind}/right_window_face", ">=", 0.80),
        Target(f"priors/{kind}/right_window_mouth", ">=", mouth),
    )


def meanings(kind: str) -> dict[str, str]:
    """What each figure of `score` says."""
    first, *others = SHIFTS
    found = {
        "right_window_face": f"the window of another emotion that matches in time is more alike than one {first} frames earlier or later, "
        "whole face",
        "right_window_mouth": "the same around the mouth",
        "right_window_pixels": "baseline: the same over the whole face by the change of pixels from frame to frame, nothing learnt",
    }
    for region in ("face", "mouth"):
        found[f"space_{region}"] = f"right window, {region}, by relations within each frame alone"
        found[f"time_{region}"] = f"right window, {region}, by relations between frames alone"
        found |= {
            f"right_window_{region}_{n}": f"right window, {region}, against {n} frames earlier or later" for n in others
        }
    found |= {f"window_{e}": f"right window, whole face, neutral against {e}" for e in SEVEN if e != "neutral"}
    return {f"{kind}/{name}": text for name, text in found.items()}


def score(
    kind: str, prior: WindowMetric, test: list[EvaluationGroup], device: str | torch.device = "cpu"
) -> dict[str, Estimate]:
    """Names `<kind>/...`, each a mean over pairs of clips (neutral, another emotion) with its 95 % interval over the pairs."""
    found: dict[str, list[float]] = {}
    for group, a, b in pairs(test):
        truth = true_matches(group, a, b)
        if truth is None or len(a.frames) < prior.frames:
            continue
        asked, offered, whole = _windows(a, b, truth, prior.frames)
        row: dict[str, float] = {}
        if not whole[0].any():
            continue
        sides = [_maps(prior, r, device) for r in (a, b)]
        for region in ("face", "mouth"):
            parts = _alike(prior, *sides, asked, offered, region)
            row |= {f"{name}_{region}": _preferred(of, whole, SHIFTS[0]) for name, of in parts.items()}
            together = sum(parts.values())
            row[f"right_window_{region}"] = _preferred(together, whole, SHIFTS[0])
            row |= {f"right_window_{region}_{n}": _preferred(together, whole, n) for n in SHIFTS[1:]}
        row[f"window_{b.emotion.value}"] = row["right_window_face"]
        row["right_window_pixels"] = _preferred(_pixels_alike(a, b, asked, offered), whole, SHIFTS[0])
        for name, value in row.items():
            if not np.isnan(value):
                found.setdefault(f"{kind}/{name}", []).append(value)
    return {name: bootstrap(values) for name, values in found.items()}


def _windows(
    a: EvaluationRecording, b: EvaluationRecording, truth: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames of a's windows [Q, T]; of b's, matching and shifted [V, Q, T]; and which of those are whole and show a face [V, Q].

    V: no shift first, then each of SHIFTS earlier and later.
    """
    asked = np.arange(0, len(a.frames) - length + 1, QUERY_STEP)[:, None] + np.arange(length)
    shifts = np.array([0, *(sign * shift for shift in SHIFTS for sign in (-1, 1))])
    offered = np.rint(truth[asked]).astype(int)[None] + shifts[:, None, None]
    inside = ((offered >= 0) & (offered < len(b.frames))).all(2)
    offered = offered.clip(0, len(b.frames) - 1)
    return asked, offered, inside & b.valid[offered].all(2) & a.valid[asked].all(1)


def _preferred(similarity: np.ndarray, whole: np.ndarray, shift: int) -> float:
    """How often the matching window [0] is more alike than those shifted by `shift`; not a number where there is none. Both [V, Q]."""
    first = 1 + 2 * SHIFTS.index(shift)
    right, wrong = similarity[:1], similarity[first : first + 2]
    counted = whole[:1] & whole[first : first + 2]
    won = (right > wrong) + 0.5 * (right == wrong)
    return float(won[counted].mean()) if counted.any() else float("nan")


@torch.inference_mode()
def _maps(metric: WindowMetric, recording: EvaluationRecording, device: str | torch.device) -> list[Tensor]:
    """Maps [T, C, side, side] of all frames of a recording, finest first."""
    frames = frames_tensor(recording.frames, device)
    parts = [metric.face_maps(part[None]) for part in frames.split(AT_ONCE)]
    return [torch.cat([part[0] for part in level]) for level in zip(*parts, strict=True)]


@torch.inference_mode()
def _alike(
    metric: WindowMetric, one: list[Tensor], other: list[Tensor], asked: np.ndarray, offered: np.ndarray, region: str
) -> dict[str, np.ndarray]:
    """How alike each of `asked` [Q, T] and `offered` [V, Q, T] windows are in the region by `space` and by `time`, [V, Q] each."""
    found: dict[str, list[Tensor]] = {"space": [], "time": []}
    query, key = torch.from_numpy(asked), torch.from_numpy(offered)
    for level, (a, b) in enumerate(zip(one, other, strict=True)):
        places = metric.grid(a.shape[-1], ALONG, region).to(a.device)
        if not len(places):  # a region may lie between the cells of a coarse map
            continue
        codes = [_in_parts(lambda part: metric.in_space(level, part, places), maps) for maps in (a, b)]  # noqa: B023
        if codes[0] is not None and codes[1] is not None:
            table = codes[0].flatten(1) @ codes[1].flatten(1).T / codes[0].shape[1]  # of every two frames
            found["space"].append(table[query, key].mean(-1))
        windows = _in_parts(lambda part: metric.in_time(level, part, places), a[query])  # noqa: B023
        if windows is not None:
            each = [_in_parts(lambda part: metric.in_time(level, part, places), b[way]) for way in key]  # noqa: B023
            found["time"].append(torch.stack([(windows * w).sum(-1).mean(1) for w in each if w is not None]))
    return {name: torch.stack(levels).mean(0).float().cpu().numpy() for name, levels in found.items() if levels}


def _in_parts(function, maps: Tensor) -> Tensor | None:
    """`function` of the maps, some at a time."""
    parts = [function(part) for part in maps.split(AT_ONCE)]
    return None if parts[0] is None else torch.cat(parts)


@torch.inference_mode()
def _pixels_alike(a: EvaluationRecording, b: EvaluationRecording, asked: np.ndarray, offered: np.ndarray) -> np.ndarray:
    """The cosine of windows' changes of pixels from frame to frame, [V, Q]: what differences say before anything is learnt."""
    small = [
        resized(to_unit_range(face_crop(frames_tensor(r.frames, "cpu"), 1.0, 0.5)), PIXELS).flatten(1) for r in (a, b)
    ]
    one, other = (
        torch.nn.functional.normalize(pixels[torch.from_numpy(index)].diff(dim=-2).flatten(-2), dim=-1)
        for pixels, index in zip(small, (asked, offered), strict=True)
    )
    return (one * other).sum(-1).numpy()
