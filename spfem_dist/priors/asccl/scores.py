"""What ASCCL's metric is worth on held-out speakers and sentences: does it know the place, and does it know the moment?

*Place* is a shortcut: where in the face a disparity was taken can be told without any understanding of what is said. What counts is
*right frame*: across emotions, whether the mean similarity of a region prefers the frame that matches in time over the frames of the
same clip that are five or more away. Chance is .5. It is scored at the mouth, where speech is, over the whole face, and with raw pixels in
the place of features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from spfem_dist.emotions import SEVEN
from spfem_dist.evaluation.groups import EvaluationGroup, frames_tensor, pairs, true_matches
from spfem_dist.evaluation.retrieval import APART, Estimate, bootstrap
from spfem_dist.evaluation.targets import Target
from spfem_dist.nets.augment import face_crop
from spfem_dist.nets.small import resized, to_unit_range
from spfem_dist.priors.asccl.metric import Metric, around_mouth, codes_at, disparities, square

#: Every this many frames of a clip is a query; every fourth of those is asked for places.
QUERY_STEP, PLACE_STEP = 3, 4
#: Centres among whose disparities (eight each) a place is to be found: 32 candidates.
CENTRES = 4
#: Places of one map that a region is compared at, at most, along a side.
ALONG = 12
#: Side of the pixels' map, and how many frames pass a network at once.
PIXELS, AT_ONCE = 16, 64


TARGETS = (
    Target("priors/asccl/right_frame_mouth", ">=", 0.76),
    Target("priors/asccl/right_frame_mouth", ">=", 0.02, than="priors_released/asccl/right_frame_mouth"),
    Target("priors/asccl/right_frame_face", ">=", 0.62),
)

MEANINGS = {
    "asccl/right_frame_mouth": "around the mouth the matching frame of another emotion is more alike than one 5 or more frames away",
    "asccl/right_frame_face": "the same over the whole face",
    "asccl/right_frame_pixels": "baseline: the same by differences of neighbouring pixels, nothing learnt",
    "asccl/place_top1": "a place finds its own in the matching frame, of 32: can be known without what is said",
} | {f"asccl/mouth_{e}": f"right frame at the mouth, neutral against {e}" for e in SEVEN if e != "neutral"}


def score(
    prior: Metric,
    test: list[EvaluationGroup],
    train: list[EvaluationGroup],
    speech_window: int = 5,
    device: str | torch.device = "cpu",
) -> dict[str, Estimate]:
    """Names `asccl/...`, each a mean over pairs of clips (neutral, another emotion) with its 95 % interval over the pairs.

    Nothing is probed and nothing is heard: train and speech_window are not used.
    """
    found: dict[str, list[float]] = {}
    rng = np.random.default_rng(0)
    for group, a, b in pairs(test):
        truth = true_matches(group, a, b)
        queries, others = np.flatnonzero(a.valid)[::QUERY_STEP], np.flatnonzero(b.valid)
        if truth is None or not len(queries) or not len(others):
            continue
        truth = truth[queries]
        match = np.abs(others[None] - truth[:, None]).argmin(1)
        faces, candidates = frames_tensor(a.frames[queries], device), frames_tensor(b.frames[others], device)

        ways: dict[str, Callable[[Tensor], Tensor]] = {
            "right_frame_mouth": partial(signatures, prior, "mouth"),
            "right_frame_face": partial(signatures, prior, "face"),
            "right_frame_pixels": pixel_signatures,
        }
        row = {
            name: prefers_match(signature(faces), signature(candidates), match, others, truth)
            for name, signature in ways.items()
        }
        row[f"mouth_{b.emotion.value}"] = row["right_frame_mouth"]
        row["place_top1"] = places_found(prior, faces[::PLACE_STEP], candidates[match[::PLACE_STEP]], rng)
        for name, value in row.items():
            if not np.isnan(value):
                found.setdefault(f"asccl/{name}", []).append(value)
    return {name: bootstrap(values) for name, values in found.items()}


def prefers_match(query: Tensor, candidates: Tensor, match: np.ndarray, at: np.ndarray, truth: np.ndarray) -> float:
    """How often the matching candidate is more similar than one that is APART or more frames away; not a number where none is.

    query: unit vectors [Q, F]; candidates: [T, F], frames `at` [T] of their clip. match: [Q], indexes of candidates. truth: [Q], frames.
    """
    similarity = (query @ candidates.T).float().cpu().numpy()
    right = similarity[np.arange(len(query)), match][:, None]
    far = np.abs(at[None] - truth[:, None]) >= APART
    won = (right > similarity) + 0.5 * (right == similarity)
    return float(won[far].mean()) if far.any() else float("nan")


@torch.inference_mode()
def signatures(metric: Metric, window: str, frames: Tensor) -> Tensor:
    """One unit vector [N, F] for each frame, so that a product of two is the mean similarity of the window over places and maps."""

    def signature(part: Tensor) -> Tensor:
        rows = []
        for level, maps in enumerate(metric.face_maps(part)):
            places = metric.centres(maps.shape[-1], window)
            step = -(-maps.shape[-1] // ALONG)
            thinned = places[(places % step == step // 2).all(1)]
            places = thinned if len(thinned) else places
            if len(places):  # a window may lie between the cells of a coarse map
                found = codes_at(metric, level, maps, places)
                rows.append(found.flatten(1) / found[0, ..., 0].numel() ** 0.5)
        return torch.cat(rows, 1) / len(rows) ** 0.5

    return in_parts(signature, frames)


@torch.inference_mode()
def pixel_signatures(frames: Tensor) -> Tensor:
    """The same of the colours themselves around the mouth: what disparities say before anything is learnt."""

    def signature(part: Tensor) -> Tensor:
        small = resized(to_unit_range(face_crop(part, 1.0, 0.5)), PIXELS)
        places = square(1, PIXELS - 2)
        places = places[around_mouth(places, PIXELS)].to(part.device)
        differs = disparities(small, places.expand(len(part), -1, -1)).flatten(1)
        return torch.nn.functional.normalize(differs, dim=1)

    return in_parts(signature, frames)


@torch.inference_mode()
def places_found(metric: Metric, query: Tensor, key: Tensor, rng: np.random.Generator) -> float:
    """How often a disparity of `query` is nearest to that of the same place and neighbour in `key`, of 32; a mean over maps."""
    shares = []
    for level, (one, other) in enumerate(zip(metric.face_maps(query), metric.face_maps(key), strict=True)):
        places = metric.centres(one.shape[-1])
        places = places[rng.choice(len(places), CENTRES, replace=False)]
        a, b = (codes_at(metric, level, maps, places).flatten(1, 2) for maps in (one, other))
        nearest = (a @ b.transpose(1, 2)).argmax(2)
        shares.append((nearest == torch.arange(a.shape[1], device=a.device)).float().mean().item())
    return float(np.mean(shares))


def in_parts(function: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """`function` of the frames, some at a time."""
    return torch.cat([function(frames[i : i + AT_ONCE]) for i in range(0, len(frames), AT_ONCE)])
