"""`spfem evaluate words`: what becomes of words that were never seen, as units and as an edit of rendered heads whose units are known.

The held-out words, and what they mean, are in `words/held_out.py`. An edit is asked twice: units fitted to the landmarks that the generator is to
draw, and units fitted to those that the mesh finds in the edited film; both less the source's.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from scipy.stats import spearmanr

from spfem_dist.console import plain_console
from spfem_dist.corpora import rendered
from spfem_dist.editing.clip import EditTarget, edit_clip, wanted_motion
from spfem_dist.editing.face import Followed, finder_for, follow
from spfem_dist.editing.progress import Progress
from spfem_dist.editing.video import Footage, footage
from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.film import filmed
from spfem_dist.evaluation.open_judges.seen import track_of
from spfem_dist.generators.face.units import EXACT, UnitFit, unit_face
from spfem_dist.generators.generator import Generator, landmarks_of
from spfem_dist.generators.load import SHIPPED, load_generator
from spfem_dist.head.asset import head
from spfem_dist.prepare.landmarks import mouth_opening
from spfem_dist.words import text_map
from spfem_dist.words.captions import NAMES, row
from spfem_dist.words.feelings import FEELINGS
from spfem_dist.words.held_out import NONSENSE, SEVEN, STRENGTHS, SYNONYMS, Question, questions
from spfem_dist.words.parse import core
from spfem_dist.words.text_map import TextMap
from spfem_dist.words.wish import NotUnderstood, Understood, understand

#: Units move by so much before it counts, when ranks are compared: what a fit's noise leaves between frames and persons.
MOVED = 0.05
#: An edit does hardly anything where no unit is asked for beyond this.
HARDLY = 0.2
#: People of the corpus beyond those that the shipped generator has seen; frames of each; their side, pixels.
_PEOPLE, _FRAMES, _SIDE = (60, 57), 25, 256
_MESH = "mesh478"


@dataclass(frozen=True)
class KindRow:
    """Held-out texts of one kind. cosine: mean over texts. r2: over all units. rank: mean Spearman over texts. known: share that is not refused."""

    kind: str
    texts: int
    cosine: float
    r2: float
    rank: float
    known: float


@dataclass(frozen=True)
class EditRow:
    """Edits of rendered heads by held-out texts of one kind. shown_by: `motion`, the landmarks to be drawn, or `film`, those found in the edited film.
    followed: mean Spearman of the units that the map asked for, right or wrong, against the change of the fitted ones; rank, cosine: of the units that the
    texts mean. opening: mean change of the mouth's opening, in outer-eye distances; copied: what is measured where the film is copied."""

    kind: str
    shown_by: str
    edits: int
    followed: float
    rank: float
    cosine: float
    opening: float
    copied: float


@dataclass(frozen=True)
class WordsFound:
    """nearest: share of held-out synonyms of the seven emotions whose units lie nearest to their own. refused: share of nonsense that is refused, or
    asks for no unit beyond `HARDLY`. ordered: share of steps from one word of strength to the next that ask for more."""

    encoder: str
    kinds: list[KindRow]
    nearest: float
    refused: float
    ordered: float
    edits: list[EditRow]


def evaluate_words(words: Path | None, edits: int, as_json: bool) -> None:
    """Ask the map in the folder `words` (None: the shipped one), edit by it, and print what is found."""
    asked, console = text_map.load(words or text_map.SHIPPED), plain_console(soft_wrap=False)
    found = words_found(asked)
    if edits:
        made = edits_found(asked, load_generator(SHIPPED), edits, plain_console(stderr=True))
        found = replace(found, edits=made)
    if as_json:
        console.print(json.dumps(asdict(found), indent=2))
    else:
        say(found, console)


def words_found(asking: TextMap) -> WordsFound:
    """Ask a map about everything that it has not seen. No picture is made."""
    asked = questions()
    asking([core(question.text) for question in asked])  # all at once, which is quicker
    got = [_understood(question.text, asking) for question in asked]
    kinds = []
    for kind in dict.fromkeys(question.kind for question in asked):
        rows = [i for i, question in enumerate(asked) if question.kind == kind]
        true, found = (
            np.stack([values[i] for i in rows]) for values in ([q.units for q in asked], [_level(u) for u in got])
        )
        shows = true.max(1) > 0
        kinds.append(
            KindRow(
                kind,
                len(rows),
                float(np.mean([cosine(a, b) for a, b in zip(found[shows], true[shows], strict=True)])),
                float(1 - np.square(found - true).sum() / np.square(true - true.mean(0)).sum()),
                float(np.mean([rank(a, b) for a, b in zip(found[shows], true[shows], strict=True)])),
                float(np.mean([got[i] is not None for i in rows])),
            )
        )
    nearest = [_nearest(_level(u)) == q.feeling for q, u in zip(asked, got, strict=True) if q.feeling in SEVEN]
    nonsense = [_level(_understood(text, asking)).max() <= HARDLY for text in NONSENSE]
    return WordsFound(
        asking.encoder.name, kinds, float(np.mean(nearest)), float(np.mean(nonsense)), _ordered(asking), []
    )


def edits_found(
    asking: TextMap, generator: Generator, edits: int = 24, console: Console | None = None
) -> list[EditRow]:
    """Edit rendered heads that speak calmly by held-out texts, one sentence for each word: the landmarks to be drawn of every text, and films of so many,
    evenly spread over all.

    A text that is refused counts as one that shows nothing.
    """
    console, every = console or plain_console(), _one_sentence_each(questions())
    filmed_ones = set(np.linspace(0, len(every) - 1, edits).round().astype(int).tolist())
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    with Progress(console, len(every), "edits") as progress, tempfile.TemporaryDirectory() as scratch:
        sources = [_source(Path(scratch) / f"{person}.mp4", person, generator) for person in _PEOPLE]
        for number, question in enumerate(every):
            out = Path(scratch) / "edit.mp4" if number in filmed_ones else None
            measured = _edited(sources[number % len(sources)], question, asking, generator, out)
            for how, figures in measured.items():
                found.setdefault((question.kind, how), []).append(figures)
            progress.advance(question.text)
    return [
        EditRow(kind, how, len(rows), *(float(np.nanmean(column)) for column in zip(*rows, strict=True)))
        for (kind, how), rows in found.items()
    ]


def _edited(
    source: _Source, question: Question, asking: TextMap, generator: Generator, out: Path | None
) -> dict[str, tuple[float, ...]]:
    """What an edit shows, by the landmarks that the generator is to draw (`motion`) and by those in the film `out` that it makes, if it is to make one."""
    understood = _understood(question.text, asking)
    if understood is None:
        return dict.fromkeys(("motion", "film") if out else ("motion",), (0.0, 0.0, 0.0, np.nan, np.nan))

    def compared(change: np.ndarray, before: np.ndarray, after: np.ndarray, order: str) -> tuple[float, ...]:
        meant, opening = question.units, _opening_change(before, after, order)
        return rank(change, understood.level), rank(change, meant), cosine(change, meant), opening

    target = EditTarget(wish=understood.wish(), paint=0.5)
    motion, order = wanted_motion(source.film, source.followed, generator, target), generator.topology
    found = {"motion": (*compared(source.changed(motion.target, order), motion.source, motion.target, order), 0.0)}
    if out:
        edit_clip(source.film, out, generator, target, finder_for("mesh", False), followed=source.followed)
        points = track_of(footage(out)).landmarks
        assert points is not None
        found["film"] = (*compared(source.changed_film(points), source.mesh, points, _MESH), source.copied)
    return found


def rank(found: np.ndarray, true: np.ndarray) -> float:
    """Spearman's correlation of two rows of units, those that move less than `MOVED` taken as unmoved; 0 where one does not move at all."""
    a, b = (np.where(np.abs(values) < MOVED, 0, values) for values in (found, true))
    return float(spearmanr(a, b).statistic) if np.ptp(a) and np.ptp(b) else 0.0


def cosine(found: np.ndarray, true: np.ndarray) -> float:
    """Cosine of two rows of units; 0 where one is nothing."""
    size = np.linalg.norm(found) * np.linalg.norm(true)
    return float(found @ true / size) if size else 0.0


@dataclass(frozen=True)
class _Source:
    """A rendered head as a film. mesh: landmarks found in it [T, 478, 2]. copied: change of the mouth's opening where the film is coded once more. own,
    seen: units fitted to the landmarks that the generator is given, and to `mesh`."""

    film: Footage
    followed: Followed
    mesh: np.ndarray
    copied: float
    own: UnitFit
    seen: UnitFit

    def changed(self, target: np.ndarray, order: str) -> np.ndarray:
        """Change of the mean units [len(NAMES)] from the source to a target's landmarks, which are computed and not found."""
        return _moved_units(unit_face(order).fit(target, rest=self.own.rest, noise=EXACT).units - self.own.units)

    def changed_film(self, points: np.ndarray) -> np.ndarray:
        """The same of landmarks that the mesh found in an edited film."""
        return _moved_units(unit_face(_MESH).fit(points, rest=self.seen.rest).units - self.seen.units)


def _source(path: Path, person: int, generator: Generator) -> _Source:
    # The rendered corpus whose faces have the head's units.
    kind = next(kind for kind in rendered.kinds() if hasattr(rendered.find(kind).Corpus, "unit_names"))
    corpus = rendered.corpus(kind, identities=person + 1, sentences=1, size=_SIDE)
    made = corpus.render(corpus.clip(person, 0, Emotion.NEUTRAL))
    path.write_bytes(filmed(made.frames[:_FRAMES], made.fps, made.speech))
    film = footage(path)
    followed = follow(film, finder_for("mesh", False), generator.size, generator.topology)
    again = path.with_name(f"copy-{path.name}")
    still = EditTarget(wish=_nothing().wish())
    edit_clip(film, again, generator, still, finder_for("mesh", False), followed=followed)
    mesh, copy = (track_of(footage(p)).landmarks for p in (path, again))
    assert mesh is not None
    assert copy is not None
    face, order = followed.face, generator.topology
    own = unit_face(order).fit(landmarks_of(face, "source", order, generator.size), noise=EXACT)
    return _Source(film, followed, mesh, _opening_change(mesh, copy, _MESH), own, unit_face(_MESH).fit(mesh))


def _opening_change(source: np.ndarray, target: np.ndarray, order: str) -> float:
    return float(np.nanmean(np.abs(mouth_opening(target, order) - mouth_opening(source, order))))


def _moved_units(change: torch.Tensor) -> np.ndarray:
    names = head().names
    mean: np.ndarray = change.mean(0).double().numpy()
    return mean[[names.index(name) for name in NAMES]]


def _understood(text: str, asking: TextMap) -> Understood | None:
    try:
        return understand(text, asking)
    except NotUnderstood:
        return None


def _nothing() -> Understood:
    return Understood((), np.zeros(len(NAMES)), np.zeros(len(NAMES)), ())


def _level(understood: Understood | None) -> np.ndarray:
    return (understood or _nothing()).level


def _nearest(level: np.ndarray) -> str:
    """The one of the seven emotions whose units lie nearest by cosine; neutral where hardly anything is asked for."""
    if level.max() <= HARDLY:
        return "neutral"
    return max(SEVEN, key=lambda name: cosine(level, row(FEELINGS[name].units)))


def _ordered(asking: TextMap) -> float:
    """Share of the steps along `STRENGTHS`, for every feeling but the neutral one by its first held-out word, that ask for more."""
    kept: list[bool] = []
    for feeling, words in SYNONYMS.items():
        if feeling != "neutral":
            sizes = [np.linalg.norm(_level(_understood(text.format(words[0]), asking))) for text in STRENGTHS]
            kept += [bool(b > a) for a, b in itertools.pairwise(sizes)]
    return float(np.mean(kept))


def _one_sentence_each(asked: Iterable[Question]) -> list[Question]:
    """Of texts that are the same to the encoder the first; none that asks for a face at rest."""
    first: dict[str, Question] = {}
    for question in asked:
        if question.units.max() > 0:
            first.setdefault(core(question.text), question)
    return list(first.values())


def say(found: WordsFound, console: Console) -> None:
    """Print the figures, in 80 columns."""
    from rich import box
    from rich.table import Column, Table

    def table(first: str, *others: str) -> Table:
        columns = Column(first), *(Column(o, justify="right", no_wrap=True) for o in others)
        return Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)

    shown = table("unseen", "texts", "cosine", "R2", "rank", "known")
    for kind in found.kinds:
        shown.add_row(kind.kind, str(kind.texts), *_figures((kind.cosine, kind.r2, kind.rank, kind.known)))
    console.print(shown)
    console.print(
        f"by {found.encoder}: nearest of the seven emotions {found.nearest:.0%} of unseen synonyms, nonsense refused {found.refused:.0%}, "
        f"order of strength kept {found.ordered:.0%}",
        highlight=False,
    )
    if found.edits:
        edits = table("edits by unseen", "units of", "edits", "followed", "rank", "cosine", "opening", "copied")
        for edit in found.edits:
            edits.add_row(
                edit.kind,
                edit.shown_by,
                str(edit.edits),
                *_figures((edit.followed, edit.rank, edit.cosine)),
                *_figures((edit.opening, edit.copied), 4),
            )
        console.print(edits)


def _figures(values: Sequence[float], digits: int = 2) -> list[str]:
    return [f"{value:.{digits}f}" for value in values]
