"""`spfem evaluate generator RUN`: edit the protocol's clips with a trained generator, score them, and write it down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from threadpoolctl import threadpool_limits

from spfem_dist.config import Run
from spfem_dist.console import plain_console
from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.clips import TestClip
from spfem_dist.evaluation.edit_report import in_short, shown_figures, write_down
from spfem_dist.evaluation.edits import Evaluation, Shown, look, scores
from spfem_dist.evaluation.evaluation_set import EvaluationSet, Goal, Row, evaluation_set
from spfem_dist.evaluation.generator import ROWS, UPPER, ClipScore, generator_figures
from spfem_dist.evaluation.judges.saved import Judges, load_judges
from spfem_dist.evaluation.protocol import Edit
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.generators.generator import Face, Generator, Motion
from spfem_dist.runs import read_run

By = Literal["reference", "emotion", "both"]


def evaluate_generator(
    location: str,
    variant: str = "both",
    judges: str | Judges = "",
    generator: Generator | None = None,
    by: By = "reference",
    sentences: int | None = None,
    protocol: str = "",
    also: str = "",
    console: Console | None = None,
    tests: EvaluationSet | None = None,
    upper_bound: bool = True,
) -> dict[str, Estimate]:
    """Score the generator that the run folder `location` exported; write summary.json, edits.json and report.html there.

    variant: what its figures are called, `stage2/<variant>/...`. judges: folder of a run of recipes/metric_nets.py, or its judges.
    generator: scored in place of the exported one. by: drive it by the protocol's references, by the emotion's name, or
    both. sentences: sources for each speaker, in place of the protocol's number. protocol: name or file; empty means the
    corpus's own. also: folder of another run whose summary.json gets the figures too. tests: the clips, where many generators are scored on
    the same ones; judges, sentences and protocol are theirs then. upper_bound: score what it draws of the true landmarks too.
    Returns the figures by their path in summary.json.
    Raises FileNotFoundError and ValueError that say what is missing: run, generator, judges, recordings.
    """
    console, began = console or plain_console(soft_wrap=False), time.perf_counter()
    if tests is None and not judges:
        raise ValueError(
            "no judges: train them on the same shards (python recipes/metric_nets.py), then give --judges runs/judges"
        )
    run = read_run(location)
    panel = load_judges(judges) if tests is None and isinstance(judges, str) else judges
    if generator is None:
        from spfem_dist.generators.load import load_generator

        generator = load_generator(location)
    with console.status(f"editing and scoring {location}"):
        if tests is None:
            assert isinstance(panel, Judges)
            tests = evaluation_set(run.data, panel, generator.size, sentences, protocol)
        found = evaluate(run, generator, tests, variant, by, upper_bound)
    console.print(shown_figures(found.figures, variant))
    console.print(in_short(found.figures, variant), soft_wrap=True)
    console.print(f"judged by {found.facts['judges']}", soft_wrap=True)
    with console.status("drawing the report"):
        write_down(location, run, found, variant, also)
    console.print(
        f"scored in {time.perf_counter() - began:.0f} s; {location}/summary.json, edits.json and report.html hold all of it",
        soft_wrap=True,
    )
    return found.figures


def evaluate(
    run: Run,
    generator: Generator,
    tests: EvaluationSet,
    variant: str,
    by: By = "reference",
    upper_bound: bool = True,
) -> Evaluation:
    """Edit and score every clip of the set; writes nothing. upper_bound: with the row of what it draws of the true landmarks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two sources are worked on at a time; more threads would only wait for each other
    try:
        with threadpool_limits(limits=1):
            return _evaluate(run, generator, tests, variant, by, upper_bound)
    finally:
        torch.set_num_threads(threads)


def _evaluate(
    run: Run, generator: Generator, tests: EvaluationSet, variant: str, by: By, upper_bound: bool
) -> Evaluation:
    if variant in (*ROWS, "real", "") or "/" in variant:
        raise ValueError(f"a variant cannot be called {variant!r}: that name has a meaning; use for instance 'both'")
    if (of_judges := tests.judges.oracle.topology) != generator.topology:
        raise ValueError(
            f"the generator was trained on {generator.topology} landmarks and the judges on {of_judges}: use one kind for both"
        )
    edits = tests.edits
    if by == "emotion":  # nobody is referred to, so there is one edit of each clip
        edits = tuple(replace(edit, reference_identity="label") for edit in edits if edit.reference_identity == "intra")  # type: ignore[arg-type]
    sources = list(dict.fromkeys(str(edit.source) for edit in edits))

    def of_source(name: str) -> tuple[list[ClipScore], list[Shown]]:
        mine = [edit for edit in edits if str(edit.source) == name]
        return _score_source(tests, generator, mine, variant, by, shows=name == sources[0], upper_bound=upper_bound)

    # Networks and drawing run outside the interpreter's lock.
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(of_source, sources))
    found = [score for part, _ in parts for score in part]
    real = {(s.source, s.emotion): tests.real_identity(s.source, s.emotion) for s in found}
    figures = generator_figures(found, real) | tests.real_csim(edits)
    figures |= tests.judges.figures()
    facts = {"run": run.name, "driven by": by, **tests.facts}
    facts |= {
        "speakers": " ".join(run.data.speakers) or "all of the training part",
        "clips": len({s.clip for s in found}),
    }
    return Evaluation(figures, found, [shown for _, part in parts for shown in part], facts)


def _score_source(
    tests: EvaluationSet,
    generator: Generator,
    edits: Sequence[Edit],
    variant: str,
    by: By,
    shows: bool,
    upper_bound: bool,
) -> tuple[list[ClipScore], list[Shown]]:
    """All edits of one source, with the rows of ROWS beside each."""
    torch.set_num_threads(1)
    judges, source = tests.judges, tests.clip(edits[0].source)
    beside = tests.beside(source)
    found: list[ClipScore] = []
    shown: list[Shown] = []
    for emotion in dict.fromkeys(edit.emotion for edit in edits):
        goal, best = beside.emotions[emotion], None
        truth, rows = goal.truth, dict(goal.rows)

        def seen_as(frames: np.ndarray, aimed: np.ndarray, goal: Goal = goal, emotion: Emotion = emotion) -> Row:
            seen = look(judges, frames, source.features, source.valid)
            values = scores(judges, seen, emotion, goal.truth, goal.real, beside.copy, aimed=aimed)
            return values, seen.identity

        if truth.frames is not None and upper_bound:
            best = rendered(generator, source, Motion(source.landmarks, truth.landmarks))
            rows[UPPER] = seen_as(best, truth.landmarks)
        for edit in (edit for edit in edits if edit.emotion is emotion):
            reference = tests.clip(edit.reference)
            motion = driven(generator, source, edit, reference, by)
            drawn = rendered(generator, source, motion)
            rows[variant] = seen_as(drawn, motion.target)
            found += [
                ClipScore(row, edit.reference_identity, source.name, emotion.value, reference.name, values, features)
                for row, (values, features) in rows.items()
            ]
            if shows and edit.reference_identity in ("cross", "label"):
                caption = f"{source.name} as {emotion.value}, like {reference.name}"
                shown.append(Shown(caption, source.frames, drawn, truth.frames, reference.frames, best))
    return found, shown


def driven(generator: Generator, source: TestClip, edit: Edit, reference: TestClip, by: By) -> Motion:
    """What the generator makes of the face's motion in one edit."""
    return generator.drive(
        _face(source, generator),
        edit.emotion if by != "reference" else None,
        _face(reference, generator) if by != "emotion" else None,
    )


def rendered(generator: Generator, source: TestClip, motion: Motion) -> np.ndarray:
    """The generator's frames of a motion, uint8 [T, S, S, 3], laid over the source where it drew nothing."""
    return np.concatenate(list(_rendered(generator, source.frames, motion)))


def edited(generator: Generator) -> Callable[[TestClip, Emotion, np.ndarray], np.ndarray]:
    """Gives the frames at positions [N] of the generator's edit of a clip by an emotion's name: uint8 [N, S, S, 3]."""

    def make(clip: TestClip, emotion: Emotion, at: np.ndarray) -> np.ndarray:
        motion = generator.drive(_face(clip, generator), emotion)
        each = ((i, clip.frames[i : i + 1]) for i in at.tolist())
        return np.concatenate([generator.render(frame, motion, i).crops(frame) for i, frame in each])

    return make


def _rendered(generator: Generator, frames: np.ndarray, motion: Motion, at_once: int = 64) -> Iterator[np.ndarray]:
    for first in range(0, len(frames), at_once):
        part = frames[first : first + at_once]
        yield generator.render(part, motion, first).crops(part)


def _face(clip: TestClip, generator: Generator) -> Face:
    return Face(clip.landmarks, clip.valid, generator.size, generator.topology)
