"""`spfem evaluate compositor RUN`: heads put back into their frames, held against known truth and against ways that learn nothing.

A frame of a held-out recording is the scene; its head with another emotion, as the corpus renders it, is put in: as it is, displaced, in
another light, or both. The truth is that very head at its place in the scene's light.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from rich.console import Console
from threadpoolctl import threadpool_limits

from spfem_dist.compositors.compositor import Compositor, holes
from spfem_dist.compositors.pasted import WAYS
from spfem_dist.config import Data
from spfem_dist.console import plain_console
from spfem_dist.corpora._speech.corpus import SpokenCorpus
from spfem_dist.corpora.splits import Split
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.evaluation.clips import planes, topology_of
from spfem_dist.evaluation.evaluation_set import rendered_corpus
from spfem_dist.evaluation.images import BEST_PSNR, jitter
from spfem_dist.evaluation.judges.saved import Judges, load_judges
from spfem_dist.evaluation.mouth import OUTER_EYES
from spfem_dist.evaluation.report import write_summary
from spfem_dist.evaluation.retrieval import Estimate, bootstrap
from spfem_dist.prepare.landmarks import mouth_opening
from spfem_dist.records import Clip, RawRecording
from spfem_dist.runs import read_run
from spfem_dist.streaming.loader import Source

#: Width of the seam, pixels inwards from the edge of the hole.
RING = 4
#: What a head is displaced and relit by: pixels of 64, degrees, and the range of the gain.
SHIFT, ROLL, GAIN = 3.0, 8.0, (0.7, 1.3)
#: Condition -> whether the head is displaced, whether it is relit.
CONDITIONS = {
    "in its place": (False, False),
    "displaced": (True, False),
    "relit": (False, True),
    "displaced and relit": (True, True),
}
#: The rows beside the ways of `pasted.WAYS`: what is judged, the scene left as it is, the truth.
COMPOSITOR, COPY, TRUTH = "compositor", "scene unchanged", "truth"
#: Which way is better, and what it is.
MEANING = {
    "psnr_in_hole": (1, "dB against the truth, inside the hole"),
    "seam": (-1, f"error in grey levels within {RING} pixels of the hole's edge"),
    "outside": (-1, "share of the scene's pixels outside the hole that changed"),
    "identity": (1, "cosine of identity features to the true frame's"),
    "opening": (-1, "error of the mouth's opening as the oracle sees it, in eye distances"),
    "geometry": (-1, "distance of landmarks as the oracle sees them from the wanted ones, in eye distances"),
    "flicker": (0, "second difference over time, as a multiple of the truth's"),
}


@dataclass(frozen=True)
class Case:
    """Frames of a clip: scenes and the truth uint8 [T, S, S, 3], the wanted landmarks [T, L, 2], the holes bool [T, S, S]."""

    name: str
    scenes: np.ndarray
    truth: np.ndarray
    landmarks: np.ndarray
    masks: np.ndarray


def evaluate_compositor(
    location: str,
    judges: str | Judges = "",
    clips: int = 18,
    frames: int = 12,
    compositor: Compositor | None = None,
    console: Console | None = None,
) -> dict[str, Estimate]:
    """Score the compositor that the run folder `location` exported; figures go to its summary.json, under `compositor/CONDITION/ROW/`.

    judges: folder of a run of recipes/metric_nets.py, or its judges. clips, frames: how many held-out clips, and of each. compositor:
    scored in place of the exported one. Raises ValueError on shards of recorded films, whose truth nobody knows.
    """
    console = console or plain_console(soft_wrap=False)
    run = read_run(location)
    if compositor is None:
        from spfem_dist.compositors.load import load_compositor

        compositor = load_compositor(location)
    panel = load_judges(judges) if isinstance(judges, str) else judges
    with threadpool_limits(limits=1), console.status("putting heads into their frames"):
        scores: dict[tuple[str, str], list[dict[str, float]]] = {}
        for number, case in enumerate(cases(run.data, compositor, clips, frames)):
            for condition, row, values in scored(case, compositor, panel, np.random.default_rng([run.seed, number])):
                scores.setdefault((condition, row), []).append(values)
    figures = {
        f"compositor/{condition}/{row}/{name}": bootstrap([values[name] for values in found])
        for (condition, row), found in scores.items()
        for name in MEANING
    }
    facts = {"compositor/judges": str(panel), "compositor/frames": frames}
    write_summary(f"{location}/summary.json", figures, facts, keep=True)
    for condition in CONDITIONS:
        console.print(_table(figures, condition))
    console.print(f"{location}/summary.json holds all of it", soft_wrap=True)
    return figures


def cases(data: Data, compositor: Compositor, clips: int, frames: int) -> Iterator[Case]:
    """Frames of neutral recordings of the test part, evenly chosen, each to be shown with one of the other emotions in turn."""
    source = Source(data.model_copy(update={"size": compositor.size}), landmarks=True)
    index = source.reader.index
    corpus, split = rendered_corpus(source, compositor.size), Split.load(data.split)
    if corpus is None:
        raise ValueError(
            f"{data.shards} holds recorded films: what a composed frame should show is known for rendered ones alone"
        )
    if (topology := topology_of(index)) != compositor.topology:
        raise ValueError(f"{data.shards} has {topology} landmarks, the compositor was trained on {compositor.topology}")
    groups = [g for s in index.shards for g in s.groups if split.accepts("test", g.speaker, g.sentence)]
    wanted = [(group, emotion) for group in groups for emotion in SEVEN if emotion is not Emotion.NEUTRAL]
    if not wanted:
        raise ValueError(f"the split {data.split} holds nobody out of {data.shards}")
    for at in np.linspace(0, len(wanted) - 1, min(clips, len(wanted))).astype(int):
        group, emotion = wanted[at]
        yield _case(
            corpus,
            corpus.clip(int(group.speaker[1:]), int(group.sentence), Emotion.NEUTRAL),
            emotion,
            compositor,
            frames,
        )


def _case(corpus: SpokenCorpus, clip: Clip, emotion: Emotion, compositor: Compositor, frames: int) -> Case:
    def middle(raw: RawRecording) -> tuple[np.ndarray, np.ndarray]:
        assert raw.landmarks is not None
        first = max(0, (len(raw.frames) - frames) // 2)
        return raw.frames[first : first + frames], raw.landmarks[first : first + frames]

    (scenes, before), (truth, after) = middle(corpus.render(clip)), middle(corpus.target(clip, emotion))
    # As in an edit: what the face covered and what it is to cover.
    masks = holes(np.concatenate([before, after], 1), compositor.size, compositor.grow)
    return Case(f"{clip.group}, {emotion}", scenes, truth, after, masks)


def scored(
    case: Case, compositor: Compositor, judges: Judges, rng: np.random.Generator
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(condition, row, figures) of one clip; a head is displaced and relit alike in all of its frames."""
    angle, roll, gain = rng.uniform(0, 2 * math.pi), rng.choice((-ROLL, ROLL)), rng.uniform(*GAIN)
    side = case.scenes.shape[1]
    shift = SHIFT * side / 64 * np.array([math.cos(angle), math.sin(angle)])
    score = _scorer(case, judges)
    same = {COPY: score(case.scenes), TRUTH: score(np.where(case.masks[..., None], case.truth, case.scenes))}
    for condition, (moves, lights) in CONDITIONS.items():
        by = (shift, roll) if moves else (np.zeros(2), 0.0)
        heads = displaced(case.truth, case.masks, *by)
        covers = displaced(case.masks.astype(np.uint8), case.masks, *by) > 0
        if lights:
            heads = np.rint(heads * gain).clip(0, 255).astype(np.uint8)
        made = {way: put(case.scenes, case.masks, heads) for way, put in WAYS.items()}
        made[COMPOSITOR] = compositor.compose(case.scenes, case.masks, heads, covers)
        yield from ((condition, row, values) for row, values in same.items())
        yield from ((condition, row, score(frames)) for row, frames in made.items())


def displaced(pictures: np.ndarray, masks: np.ndarray, shift: np.ndarray, roll: float) -> np.ndarray:
    """Pictures [T, S, S, ...] turned about the middle of their holes by `roll` degrees, clockwise, and shifted by (x, y) pixels."""
    moved = []
    for picture, mask in zip(pictures, masks, strict=True):
        rows, columns = np.nonzero(mask)
        matrix = cv2.getRotationMatrix2D((float(columns.mean()), float(rows.mean())), -roll, 1.0)
        matrix[:, 2] += shift
        size = picture.shape[1::-1]
        moved.append(cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    return np.stack(moved)


def _scorer(case: Case, judges: Judges) -> Callable[[np.ndarray], dict[str, float]]:
    edge = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RING + 1, 2 * RING + 1))
    inner = np.stack([cv2.erode(mask.astype(np.uint8), edge, borderValue=1) for mask in case.masks]).astype(bool)
    ring = case.masks & ~inner
    known = judges.identity.embed(planes(case.truth)).numpy()
    opening = mouth_opening(case.landmarks, judges.oracle.topology)
    left, right = (case.landmarks[:, n] for n in OUTER_EYES[judges.oracle.topology])
    eyes = np.linalg.norm(right - left, axis=-1)

    def score(frames: np.ndarray) -> dict[str, float]:
        error = frames.astype(np.float32) - case.truth
        squared = np.array([np.square(e[mask]).mean() for e, mask in zip(error, case.masks, strict=True)])
        seen = judges.oracle.read(planes(frames))
        away = np.linalg.norm(seen.landmarks.numpy() - case.landmarks, axis=-1).mean(1) / eyes
        return {
            "psnr_in_hole": float(np.minimum(10 * np.log10(255**2 / np.maximum(squared, 1e-9)), BEST_PSNR).mean()),
            "seam": float(np.abs(error).mean(-1)[ring].mean()),
            "outside": float((frames != case.scenes).any(-1)[~case.masks].mean()),
            "identity": float((judges.identity.embed(planes(frames)).numpy() * known).sum(1).mean()),
            "opening": float(np.abs(seen.opening.numpy() - opening).mean()),
            "geometry": float(away.mean()),
            "flicker": jitter(frames) / max(jitter(case.truth), 1e-9),
        }

    return score


def _table(figures: dict[str, Estimate], condition: str):
    from rich import box
    from rich.table import Column, Table

    rows = (COPY, *WAYS, COMPOSITOR, TRUTH)
    table = Table(
        Column("way", no_wrap=True),
        *(Column(name, no_wrap=True, justify="right") for name in MEANING),
        title=f"the head {condition}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    for row in rows:
        table.add_row(row, *(f"{figures[f'compositor/{condition}/{row}/{name}'].value:.3f}" for name in MEANING))
    return table
