"""`spfem evaluate judges FOLDER`: what the open judges say of unedited recordings, before they are asked about edits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from spfem_dist import weights
from spfem_dist.console import plain_console
from spfem_dist.corpora.files import VIDEO, visible_files
from spfem_dist.corpora.folder import SYNONYMS
from spfem_dist.editing.progress import Progress
from spfem_dist.editing.video import EditError
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.errors import about
from spfem_dist.evaluation.open_judges.judges import EMOTION_JUDGES, FACE_API, FER, OpenJudges, load_open_judges
from spfem_dist.evaluation.open_judges.seen import see
from spfem_dist.evaluation.real.films import RealFilm
from spfem_dist.evaluation.real.scores import distances_of_films
from spfem_dist.evaluation.retrieval import Estimate, bootstrap
from spfem_dist.prepare.landmarks import converted


@dataclass(frozen=True)
class FilmRow:
    """One film. label: the emotion that its name says, or "". said: each judge's word, by mean probability. probability: each judge's,
    of the label. agree: share of frames on which both say the same.
    """

    film: str
    person: str
    label: str
    said: dict[str, str]
    probability: dict[str, float]
    agree: float


@dataclass
class JudgesCheck:
    """figures: by path, `judges/...`. failed: a line for each film that could not be judged."""

    judges: str
    rows: list[FilmRow] = field(default_factory=list)
    figures: dict[str, Estimate] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return asdict(self)


def check_judges(source: Path, console: Console | None = None, judges: OpenJudges | None = None) -> JudgesCheck:
    """What the judges say of the films in the folder `source`. Raises EditError where there is none in which they see a face."""
    console = console or plain_console(soft_wrap=False, stderr=True)
    if not source.is_dir():
        raise EditError(f"{source} is no folder: give one with films whose names say an emotion")
    weights.ensure("face-mesh", console.print)
    judges = judges or load_open_judges(say=partial(console.print, soft_wrap=True))
    found = JudgesCheck(str(judges))
    paths = [path for path in visible_files(source, []) if path.suffix.lower() in VIDEO]
    films = [RealFilm.inside(source, path) for path in paths]
    identities: list[tuple[str, np.ndarray]] = []
    landmarks: list[float] = []
    with Progress(console, len(films), "films") as progress:
        for film in films:
            try:
                seen = see(film.path, judges)
            except (OSError, ValueError) as error:
                found.failed.append(about(film.path, error))
                continue
            label = label_of(film.name)
            top = {name: SEVEN[int(seen.emotion[name].mean(0).argmax())].value for name in EMOTION_JUDGES}
            sure = {name: seen.probability(label, name) for name in EMOTION_JUDGES} if label else {}
            found.rows.append(FilmRow(film.name, film.person, label.value if label else "", top, sure, seen.agreement))
            identities.append((film.person, seen.identity))
            assert seen.track.landmarks is not None
            landmarks.append(_apart(seen.landmarks, seen.track.landmarks[seen.frames]))
            progress.advance(film.name, frames=seen.film.frames)
    if not found.rows:
        raise EditError("\n".join([f"{source}: no film that can be judged", *found.failed]))
    found.figures = dict(_figures(found.rows, identities, landmarks))
    return found


def label_of(name: str) -> Emotion | None:
    """The last emotion that a path names, word by word (`happy/level_3/037.mp4`, `angry_for_M012.mp4`); None where it names none."""
    words = re.split(r"[^a-z]+", name.rpartition(".")[0].lower())
    known = {emotion.value: emotion for emotion in SEVEN} | {
        k: e for k, e in SYNONYMS.items() if e in SEVEN and len(k) > 3
    }
    return next((known[word] for word in reversed(words) if word in known), None)


def _apart(found: np.ndarray, mesh: np.ndarray) -> float:
    """Mean distance of the 68 landmarks from the mesh's, inner points (brows, nose, eyes, lips) alone, in outer-eye distances."""
    known = converted(mesh, "mesh478", "ibug68")
    assert known is not None
    scale = np.linalg.norm(known[:, 45] - known[:, 36], axis=-1)
    return float((np.linalg.norm(found - known, axis=-1)[:, 17:].mean(1) / scale).mean())


def _figures(
    rows: list[FilmRow], identities: list[tuple[str, np.ndarray]], landmarks: list[float]
) -> Iterator[tuple[str, Estimate]]:
    yield "judges/agree", bootstrap([row.agree for row in rows])
    yield "judges/landmarks_from_mesh", bootstrap(landmarks)
    for label in [emotion.value for emotion in SEVEN if any(row.label == emotion for row in rows)]:
        mine = [row for row in rows if row.label == label]
        for judge in EMOTION_JUDGES:
            yield f"judges/{judge}/{label}/probability", bootstrap([row.probability[judge] for row in mine])
            yield f"judges/{judge}/{label}/said", bootstrap([float(row.said[judge] == label) for row in mine])
    for name, values in distances_of_films(identities).items():
        yield f"judges/{name}", bootstrap(values)
        yield f"judges/{name}_least", Estimate(min(values), min(values), min(values), len(values))
        yield f"judges/{name}_most", Estimate(max(values), max(values), max(values), len(values))


def say(found: JudgesCheck, console: Console) -> None:
    """Print the films, the figures by label, and the distances, in 80 columns."""
    from rich import box
    from rich.table import Column, Table

    table = Table(
        Column("film", overflow="fold"),
        *(Column(head, no_wrap=True) for head in ("label", "FER says", "p", "face-api", "p", "agree")),
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    for row in found.rows:
        cells = [
            cell for j in (FER, FACE_API) for cell in (row.said[j], f"{row.probability[j]:.2f}" if row.label else "")
        ]
        table.add_row(Text(row.film), row.label, *cells, f"{row.agree:.2f}")
    console.print(table)
    console.print()
    for name, figure in found.figures.items():
        console.print(f"{name.removeprefix('judges/'):34}{figure}  {figure.clips}", markup=False, highlight=False)
    console.print(f"judged by {found.judges}", soft_wrap=True, markup=False, highlight=False)
    for line in found.failed:
        console.print(f"not judged: {' '.join(line.split())}", soft_wrap=True, markup=False, highlight=False)
