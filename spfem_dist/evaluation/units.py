"""`spfem evaluate units SOURCE`: how well units are found from landmarks, on heads whose units are known, and on films of real faces.

Shards that hold true units are answered with correlation and error by unit; films, of whose units nobody knows the truth, with what the
fitted face leaves of their landmarks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from spfem_dist import weights
from spfem_dist.console import plain_console
from spfem_dist.corpora.files import VIDEO, visible_files
from spfem_dist.editing.progress import Progress
from spfem_dist.editing.video import EditError, footage
from spfem_dist.errors import about
from spfem_dist.evaluation.open_judges.seen import track_of
from spfem_dist.generators.face.units import EXACT, NOISE, unit_face
from spfem_dist.prepare.faces import MeshFinder
from spfem_dist.records import Recording
from spfem_dist.streaming.decode import decode
from spfem_dist.streaming.reader import ShardReader

#: The units that move most, by their true deviation, whose mean is the figure that counts.
MOST = 30
#: Middles of both irises in the order mesh478: the pupils.
_PUPILS = (468, 473)


@dataclass(frozen=True)
class UnitRow:
    """One unit over all frames. moves: deviation of the truth. correlation: over all frames; within: after each recording's means were
    taken from both. error: mean absolute difference. bias: mean difference, found less true."""

    name: str
    moves: float
    correlation: float
    within: float
    error: float
    bias: float


@dataclass(frozen=True)
class UnitsFound:
    """Units found on heads that are known. rows: by unit, those that move most first. correlation, within, error: means over the first `MOST`.
    residual: of the landmarks, in eye distances (outer corners), root mean square. rate: frames for a second of one core's time, of the
    fit alone."""

    landmarks: str
    noise: float
    recordings: int
    frames: int
    rate: float
    residual: float
    correlation: float
    within: float
    error: float
    rows: list[UnitRow]


@dataclass(frozen=True)
class FilmRow:
    """One film. residual: root mean square over landmarks and frames of what the face leaves of them, in pupil distances; residual_outer: in
    distances of the outer eye corners. units: the mean of the five that the face shows most, but for where
    the eyes look."""

    film: str
    frames: int
    rate: float
    residual: float
    residual_outer: float
    units: dict[str, float]


@dataclass(frozen=True)
class FilmsFitted:
    """failed: a line for each film that could not be read."""

    noise: float
    rows: list[FilmRow]
    failed: list[str]


def units_of_shards(
    shards: str, found: bool = False, noise: float | None = None, most: int = 0, console: Console | None = None
) -> UnitsFound:
    """Fit units to recordings of shards that hold the true ones.

    found: to the landmarks that the mesh finds in their frames, and not to their own. noise: see `UnitFace.fit`; None takes what suits
    the landmarks. most: recordings, evenly spread, in place of all. Raises ValueError for shards without true units or landmarks.
    """
    console = console or plain_console(soft_wrap=False, stderr=True)
    if found:
        weights.ensure("face-mesh", console.print)
    reader = ShardReader(shards, cache_mb=0, retries=2)
    if noise is None:
        noise = NOISE if found else EXACT
    face = unit_face(MeshFinder.topology if found else reader.index.landmarks)
    places = _places(reader, most)
    guesses, truths, squares, seconds = [], [], [], 0.0
    with Progress(console, len(places), "recordings") as progress:
        for recording in _recordings(reader, places):
            if recording.landmarks is None or "units" not in recording.truth:
                raise ValueError(
                    f"{shards} holds no true units: prepare a rendered corpus that has them (spfem prepare --help)"
                )
            landmarks = _landmarks_in(recording) if found else recording.landmarks
            there = np.isfinite(landmarks).all((1, 2))
            if there.any():
                begin = time.process_time()
                fit = face.fit(landmarks[there], noise=noise)
                seconds += time.process_time() - begin
                guesses.append(fit.units.numpy())
                truths.append(recording.truth["units"][there])
                squares.append(fit.residual.square().sum(-1).mean(1).numpy())
            progress.advance(recording.name, frames=recording.frames)
    if not guesses:
        raise ValueError(f"{shards}: the mesh finds a face in no frame")
    rows = compared(face.names, guesses, truths)
    frames = sum(map(len, truths))
    correlation, within, error = (
        float(np.mean([getattr(row, name) for row in rows[:MOST]])) for name in ("correlation", "within", "error")
    )
    return UnitsFound(
        "found" if found else "own",
        noise,
        len(guesses),
        frames,
        frames / seconds,
        float(np.sqrt(np.concatenate(squares).mean())),
        correlation,
        within,
        error,
        rows,
    )


def compared(names: tuple[str, ...], found: list[np.ndarray], true: list[np.ndarray]) -> list[UnitRow]:
    """The rows of units that were found in recordings, each [T, 52], beside the true ones; those that move most first."""
    a, b = np.concatenate(found), np.concatenate(true)
    inner = [np.concatenate([clip - clip.mean(0) for clip in clips]) for clips in (found, true)]
    moves, over, within = b.std(0), _correlations(a, b), _correlations(*inner)
    return [
        UnitRow(
            names[unit],
            float(moves[unit]),
            float(over[unit]),
            float(within[unit]),
            float(np.abs(a - b)[:, unit].mean()),
            float((a - b)[:, unit].mean()),
        )
        for unit in np.argsort(-moves, kind="stable")
    ]


def units_of_films(source: Path, noise: float | None = None, console: Console | None = None) -> FilmsFitted:
    """Fit units to a film, or to every film in a folder. Raises EditError where there is none that shows a face."""
    console = console or plain_console(soft_wrap=False, stderr=True)
    weights.ensure("face-mesh", console.print)
    paths = [source] if source.is_file() else [p for p in visible_files(source, []) if p.suffix.lower() in VIDEO]
    noise, rows, failed = NOISE if noise is None else noise, [], []
    with Progress(console, len(paths), "films") as progress:
        for path in paths:
            try:
                landmarks = track_of(footage(path)).landmarks
            except (OSError, ValueError) as error:
                failed.append(about(path, error))
                continue
            assert landmarks is not None
            rows.append(_film(path.name if path == source else str(path.relative_to(source)), landmarks, noise))
            progress.advance(path.name, frames=rows[-1].frames)
    if not rows:
        raise EditError("\n".join([f"{source}: no film that shows a face", *failed]))
    return FilmsFitted(noise, rows, failed)


def _film(name: str, landmarks: np.ndarray, noise: float) -> FilmRow:
    face = unit_face(MeshFinder.topology)
    seen = landmarks[np.isfinite(landmarks).all((1, 2))]
    begin = time.process_time()
    fit = face.fit(seen, noise=noise)
    seconds = time.process_time() - begin
    residual = float(fit.residual.square().sum(-1).mean().sqrt())
    outer, pupils = (
        torch.linalg.vector_norm(fit.rest[a] - fit.rest[b]) for a, b in (face.topology.outer_eyes, _PUPILS)
    )
    means = dict(zip(face.names, fit.units.mean(0).tolist(), strict=True))
    most = sorted((name for name in means if not name.startswith("eyeLook")), key=lambda name: -means[name])
    shown = {name: round(means[name], 3) for name in most[:5]}
    return FilmRow(name, len(seen), len(seen) / seconds, residual * float(outer / pupils), residual, shown)


def _places(reader: ShardReader, most: int) -> list[tuple[int, int, int]]:
    """Shard, group and number of the recordings that are looked at, in the order of the index."""
    every = [
        (shard, group, number)
        for shard, place in enumerate(reader.index.shards)
        for group, entry in enumerate(place.groups)
        for number in range(len(entry.recordings))
    ]
    if not most or most >= len(every):
        return every
    return [every[at] for at in np.linspace(0, len(every) - 1, most).round().astype(int)]


def _recordings(reader: ShardReader, places: list[tuple[int, int, int]]) -> Iterator[Recording]:
    last, group = (-1, -1), None
    for shard, at, number in places:
        if group is None or (shard, at) != last:
            last, group = (shard, at), reader.read(shard, at)
        yield group.recordings[number]


def _landmarks_in(recording: Recording) -> np.ndarray:
    landmarks = MeshFinder().track(decode(recording.video, range(recording.frames))).landmarks
    assert landmarks is not None
    return landmarks


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the columns of a and b [N, U]; 0 where one of them does not move."""
    a, b = a - a.mean(0), b - b.mean(0)
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.where(size > 0, (a * b).sum(0) / np.where(size > 0, size, 1), 0)


def say(found: UnitsFound | FilmsFitted, console: Console) -> None:
    """Print the figures, in 80 columns."""
    from rich import box
    from rich.table import Column, Table

    def table(first: str, *others: str) -> Table:
        columns = Column(first, overflow="fold"), *(Column(o, justify="right", no_wrap=True) for o in others)
        return Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)

    if isinstance(found, UnitsFound):
        shown = table("unit", "moves", "correlation", "within", "error", "bias")
        for row in found.rows[:MOST]:
            numbers = row.moves, row.correlation, row.within, row.error
            shown.add_row(row.name, *(f"{number:.3f}" for number in numbers), f"{row.bias:+.3f}")
        console.print(shown)
        line = (
            f"mean of these {MOST}: correlation {found.correlation:.3f}, within recordings {found.within:.3f}, error {found.error:.3f}; {found.recordings} "
            f"recordings, {found.frames:,} frames, {found.landmarks} landmarks (noise {found.noise:g}, residual {found.residual:.2%}), {found.rate:,.0f} frames for a core's second"
        )
        console.print(line, markup=False, highlight=False)
        return
    shown = table("film", "frames", "residual", "shows most")
    for film in found.rows:
        units = "\n".join(f"{name} {value:.2f}" for name, value in [*film.units.items()][:2])
        shown.add_row(Text(film.film), str(film.frames), f"{film.residual:.2%}", Text(units))
    console.print(shown)
    worst = max(film.residual for film in found.rows)
    mean = float(np.mean([film.residual for film in found.rows]))
    line = f"residual over landmarks and frames, of the pupils' distance: mean {mean:.2%}, most {worst:.2%} (noise {found.noise:g})"
    console.print(line, markup=False, highlight=False)
    for failed in found.failed:
        console.print(f"not fitted: {' '.join(failed.split())}", soft_wrap=True, markup=False, highlight=False)
