"""What an evaluation of real films leaves behind: summary.json, edits.json (for `spfem evaluate compare`), a report that plays its films."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from spfem_dist.emotions import SIX
from spfem_dist.evaluation.compare import write_edits
from spfem_dist.evaluation.generator import COPY, ClipScore
from spfem_dist.evaluation.real.figures import BETTER, EDIT, MEANING, Figures, bars, probability_of
from spfem_dist.evaluation.real.films import Place, RealFilm
from spfem_dist.evaluation.report import TEMPLATES, bar_text, write_report, write_summary
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.evaluation.targets import Target


def write_down(
    folder: Path,
    figures: Figures,
    scores: Sequence[ClipScore],
    facts: Mapping[str, object],
    edits: Mapping[RealFilm, Mapping[str, Path]],
    failed: Sequence[str],
) -> None:
    """Write the three files into `folder`. The films lie there already; the report names them by their places in it."""
    folder.mkdir(parents=True, exist_ok=True)
    limits = bars(figures)
    barred = {name for bar in limits for name in (bar.name, bar.than)}
    said = {key.replace(" ", "_"): value for key, value in facts.items()} | {"not_edited": list(failed)}
    said["bars"] = [{"figure": bar.name, "bar": bar_text(bar, figures), "met": bar.met(figures)} for bar in limits]
    write_summary(folder / "summary.json", figures, {"real": said})
    write_edits(str(folder), scores, {key: facts[key] for key in ("judges", "generator", "strength")})
    parts = TEMPLATES.get_template("real.html").module
    sections = [parts.films(_films(folder, scores, edits))]  # type: ignore[attr-defined]
    if failed:
        sections.append(parts.failed(failed))  # type: ignore[attr-defined]
    sections += _tables(figures)
    write_report(
        folder / "report.html",
        "Edits of real films",
        {name: figure for name, figure in figures.items() if name.startswith("real/films/") or name in barred},
        facts=facts,
        targets=limits,
        verdict=_verdict(figures),
        sections=sections,
        meanings={f"{part}/{name}": text for name, text in MEANING.items() for part in ("films", EDIT)},
    )


def _films(
    folder: Path, scores: Sequence[ClipScore], edits: Mapping[RealFilm, Mapping[str, Path]]
) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Each film's name with (caption, address, note) of the unchanged film and of its edits."""
    sure = {(s.row, *s.clip): s.values.get("emotion_probability") for s in scores}
    rows = []
    for film, made in edits.items():
        clips = [("unchanged", _address(folder, Place(folder).source(film)), "")]
        for emotion, path in made.items():
            mine, copy = (sure.get((row, film.name, emotion)) for row in (EDIT, COPY))
            note = f"{mine:.2f}, unchanged {copy:.2f}" if mine is not None and copy is not None else ""
            clips.append((emotion, _address(folder, path), note))
        rows.append((film.name, clips))
    return rows


def _address(folder: Path, path: Path) -> str:
    """The film's address from the report's folder; names may hold anything that a file's may."""
    return quote(Path(os.path.relpath(path, folder)).as_posix(), errors="surrogatepass")


def _verdict(figures: Figures) -> Markup:
    rows, limits = [], bars(figures)
    for emotion in SIX:
        path = probability_of(EDIT, emotion)
        above = figures.get(f"{path}_minus_copy")
        if path not in figures or above is None:
            continue
        mine, of_it = figures[path], [bar for bar in limits if bar.name == path]
        met = all(bar.met(figures) for bar in of_it)
        rows.append(
            {
                "emotion": emotion.value,
                "word": "met" if met else "missed",
                "percent": round(100 * mine.value),
                "bar_percent": round(100 * max(bar.limit(figures) for bar in of_it)),
                "value": f"{mine.value:.2f}",
                "span": f"{mine.low:.2f} .. {mine.high:.2f}",
                "unchanged": f"{figures[probability_of(COPY, emotion)].value:.2f}",
                "above": f"{above.value:+.2f}",
                "above_span": f"{above.low:+.2f} .. {above.high:+.2f}",
                "fer": f"{figures[path.replace('emotion_prob', 'fer_prob')].value:.2f}",
                "face_api": f"{figures[path.replace('emotion_prob', 'face_api_prob')].value:.2f}",
                "bars": [(_word(bar, figures), _bar(bar, figures)) for bar in of_it],
            }
        )
    others = [
        (_word(bar, figures), f"{bar.name.rpartition('/')[2]} {figures[bar.name].value:.3f}, {bar_text(bar, figures)}")
        for bar in limits
        if "/by_emotion/" not in bar.name
    ]
    return TEMPLATES.get_template("real.html").module.verdict(rows, others)  # type: ignore[attr-defined]


def _word(bar: Target, figures: Figures) -> str:
    return {None: "unknown", True: "met", False: "missed"}[bar.met(figures)]


def _bar(bar: Target, figures: Figures) -> str:
    return bar_text(bar, figures) + (f", {bar.value:.2f} above the copy" if bar.than else "")


def _tables(figures: Figures) -> list[Markup]:
    """Every figure by name, over all emotions and for each."""
    parts = TEMPLATES.get_template("edits.html").module
    made = []
    parts_of = {"All emotions": ""} | {emotion.value: f"by_emotion/{emotion}/" for emotion in SIX}
    for title, path in parts_of.items():
        rows = []
        for name in BETTER:
            cells = [figures.get(f"real/{row}/{path}{name}") for row in (EDIT, COPY)]
            cells.append(figures.get(f"real/{EDIT}/{path}{name}_minus_copy"))
            if cells[0] is not None:
                rows.append((name, MEANING[name], [_cell(cell) for cell in cells]))
        if rows:
            made.append(parts.table(title, ("edit", "unchanged", "difference"), rows))  # type: ignore[attr-defined]
    return made


def _cell(figure: Estimate | None) -> tuple[str, str]:
    return ("", "") if figure is None else (f"{figure.value:.3f}", f"{figure.low:.3f} .. {figure.high:.3f}")
