"""`spfem evaluate real FOLDER`: every film edited into six emotions by `spfem edit`'s own code, and scored by the open judges."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from spfem_dist import weights
from spfem_dist.console import plain_console
from spfem_dist.editing import job
from spfem_dist.editing.progress import Progress
from spfem_dist.editing.request import STRENGTHS, EditRequest
from spfem_dist.editing.video import EditError
from spfem_dist.emotions import SIX
from spfem_dist.errors import about
from spfem_dist.evaluation.generator import COPY, ClipScore
from spfem_dist.evaluation.open_judges.judges import OpenJudges, load_open_judges
from spfem_dist.evaluation.open_judges.seen import SeenFilm, see
from spfem_dist.evaluation.real.figures import EDIT, Figures, bars, emotion_table, other_table, real_figures
from spfem_dist.evaluation.real.films import Place, RealFilm, find_films
from spfem_dist.evaluation.real.report import write_down
from spfem_dist.evaluation.real.scores import compared, distances_of_films, scores
from spfem_dist.evaluation.report import headline
from spfem_dist.evaluation.retrieval import Estimate, bootstrap
from spfem_dist.generators.generator import Generator

Load = Callable[[str], Generator]


@dataclass(frozen=True)
class Request:
    """One call; the fields are the command's flags (see `spfem_dist.cli.evaluate_real`). strength: None is `spfem edit`'s own."""

    source: Path
    out: Path
    generator: str
    strength: float | None = None
    overwrite: bool = False

    def edit(self, film: RealFilm, emotion: str, out: Path) -> EditRequest:
        """What `spfem edit` is asked for one film and emotion."""
        asked = EditRequest(film.path, out, self.generator, emotion=emotion, overwrite=self.overwrite)
        return asked if self.strength is None else replace(asked, strength=self.strength)


@dataclass
class RealEvaluation:
    """What was found. edits: where each film's edits lie, by film and emotion. failed: a line for each film that could not be edited."""

    figures: Figures = field(default_factory=dict)
    scores: list[ClipScore] = field(default_factory=list)
    edits: dict[RealFilm, dict[str, Path]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)


def evaluate_real(
    request: Request, load: Load, judges: OpenJudges | None = None, console: Console | None = None
) -> RealEvaluation:
    """Edit and score what `request` names with the generator that `load` makes of its location; print tables, write the report.

    An edit that is there from an equal call is kept. Raises EditError and MissingWeights, with one message that names the fix,
    where there is no film, no face in any, or no judges; what is wrong with single films is in `failed`.
    """
    console, began = console or plain_console(soft_wrap=False), time.perf_counter()
    films, closed = find_films(request.source, request.out)
    load = functools.cache(load)
    load(request.generator)  # what is wrong with it is no film's fault
    weights.ensure("face-mesh", console.print)
    judges = judges or load_open_judges(say=functools.partial(console.print, soft_wrap=True))
    found = RealEvaluation(failed=[reject.detail for reject in closed])
    place = Place(request.out)
    sources: list[tuple[RealFilm, SeenFilm]] = []
    with Progress(console, len(films) * len(SIX), "edits") as progress:
        for film in films:
            try:
                source, rows, edits = _of_film(request, film, place, load, judges, progress)
            except (OSError, ValueError, RuntimeError) as error:
                if os.environ.get("SPFEM_TRACEBACK"):
                    raise
                found.failed.append(about(film.path, error))
                progress.advance(film.name, steps=len(SIX), frames=0)
                continue
            sources.append((film, source))
            found.scores += rows
            found.edits[film] = edits
    if not sources:
        raise EditError("no film could be edited and judged:\n" + "\n".join(f"  {line}" for line in found.failed))
    found.figures = real_figures(found.scores) | figures_of_films(sources)
    found.facts = _facts(request, films, sources, judges, found.failed)
    _say(found, console)
    write_down(request.out, found.figures, found.scores, found.facts, found.edits, found.failed)
    console.print(
        f"scored in {time.perf_counter() - began:.0f} s; {request.out}/summary.json, edits.json and report.html hold all of it",
        soft_wrap=True,
        markup=False,
    )
    return found


def _of_film(
    request: Request, film: RealFilm, place: Place, load: Load, judges: OpenJudges, progress: Progress
) -> tuple[SeenFilm, list[ClipScore], dict[str, Path]]:
    """The film as the judges see it, the scores of its edits and of itself beside each, and where the edits lie."""
    rows: list[ClipScore] = []
    edits: dict[str, Path] = {}
    source = see(film.path, judges)
    for emotion in SIX:
        out = edits[emotion.value] = place.edit(film, emotion)
        job.run(request.edit(film, emotion.value, out), load, plain_console(quiet=True))
        seen, comparison = compared(source, out, judges)
        for row, values in zip((EDIT, COPY), scores(source, seen, comparison, emotion), strict=True):
            rows.append(ClipScore(row, "label", film.name, emotion.value, "", values))
        progress.advance(f"{film.name}, {emotion.value}", frames=source.film.frames)
    _keep(film, place)
    return source, rows, edits


def _keep(film: RealFilm, place: Place) -> None:
    """A copy of the source beside its edits, so that the folder can be handed on as it is."""
    copy = place.source(film)
    if (
        copy.exists()
        and copy.stat().st_size == film.path.stat().st_size
        and copy.stat().st_mtime >= film.path.stat().st_mtime
    ):
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(film.path, copy)


def figures_of_films(sources: list[tuple[RealFilm, SeenFilm]]) -> Figures:
    """What the judges say of the films unedited: whether they agree, and how far people are from themselves and from others."""
    found: dict[str, Estimate] = {"real/films/judges_agree": bootstrap([seen.agreement for _, seen in sources])}
    distances = distances_of_films([(film.person, seen.identity) for film, seen in sources])
    return found | {f"real/films/{name}": bootstrap(values) for name, values in distances.items()}


def _facts(
    request: Request,
    films: list[RealFilm],
    sources: list[tuple[RealFilm, SeenFilm]],
    judges: OpenJudges,
    failed: list[str],
) -> dict[str, object]:
    people = {film.person for film, _ in sources if film.person}
    return {
        "generator": request.generator,
        "strength": {str(e): value for e, value in STRENGTHS.items()} if request.strength is None else request.strength,
        "judges": str(judges),
        "films": len(sources),
        "frames": sum(seen.film.frames for _, seen in sources),
        "people": f"{len(people)}, by the folder's subfolders" if people else "not known",
        "not edited": len(failed),
    }


def _say(found: RealEvaluation, console: Console) -> None:
    console.print(emotion_table(found.figures))
    console.print()
    console.print(other_table(found.figures))
    console.print()
    for line in footer(found):
        console.print(Text(line), soft_wrap=True)


def footer(found: RealEvaluation) -> Iterator[str]:
    """What stands under the tables: how many bars are met, who judged, and a line for each film that could not be edited."""
    yield f"{found.facts['films']} films, {found.facts['frames']} frames; {headline(found.figures, bars(found.figures))}"
    yield f"judged by {found.facts['judges']}"
    for line in found.failed:
        yield f"not edited: {' '.join(line.split())}"
