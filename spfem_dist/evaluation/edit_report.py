"""What an evaluated generator leaves behind: summary.json, edits.json, a report that plays its clips, metrics in MLflow."""

from __future__ import annotations

import base64
import json
import math
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spfem_dist.config import Run
from spfem_dist.evaluation.compare import write_edits
from spfem_dist.evaluation.edits import Evaluation
from spfem_dist.evaluation.film import beside, filmed
from spfem_dist.evaluation.generator import BETTER, MEANING, ROWS
from spfem_dist.evaluation.report import TEMPLATES, bar_text, headline, headlines, write_report, write_summary
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.evaluation.targets import Target
from spfem_dist.storage import open_filesystem, read_json
from spfem_dist.tracking import tracker

Figures = dict[str, Estimate]
#: By caption: the names of the clips in a row, and the row as an MP4.
Films = dict[str, tuple[tuple[str, ...], bytes]]


def bars(variant: str, figures: Figures) -> tuple[Target, ...]:
    """What a generator has to reach, and first of all its judges: an oracle below its bars proves nothing.

    Beside the means there is a bar for each emotion in `figures`: a mean can hide an emotion that is never shown.
    """
    return (
        Target("oracle/emotion_accuracy", ">=", 0.85),
        Target("oracle/mouth_opening_corr", ">=", 0.80),
        Target(f"stage2/{variant}/emotion_accuracy", ">=", 0.72),
        Target(f"stage2/{variant}/changed_error_over_copy", "<=", 0.58),
        Target(f"stage2/{variant}/mouth_error_over_copy", "<=", 1.0),
        Target(f"stage2/{variant}/mouth_corr_minus_copy", ">=", -0.03),
        Target(f"stage2/{variant}/identity_minus_copy", ">=", -0.03),
        *(Target(accuracy_of(variant, emotion), ">=", 0.45) for emotion in emotions_of(figures, variant)),
    )


def accuracy_of(variant: str, emotion: str) -> str:
    """Path of the figure that says in how many frames the judges see the emotion."""
    return f"stage2/{variant}/by_emotion/{emotion}/emotion_accuracy"


def emotions_of(figures: Figures, variant: str) -> list[str]:
    """The emotions that were edited, the weakest first."""
    start, end = accuracy_of(variant, "\n").split("\n")
    found = {
        name[len(start) : -len(end)]: f.value
        for name, f in figures.items()
        if name.startswith(start) and name.endswith(end)
    }
    return sorted(found, key=lambda emotion: (math.isnan(found[emotion]), found[emotion]))


def in_short(figures: Figures, variant: str) -> str:
    """The verdict in a line: `9 of 12 bars met; weakest: disgusted 0.18, happy 0.33 (bar 0.50)`."""
    limits = bars(variant, figures)
    missed = [t for t in limits if t.met(figures) is False and "/by_emotion/" in t.name]
    weak = ", ".join(f"{t.name.split('/')[3]} {figures[t.name].value:.2f}" for t in missed)
    return headline(figures, limits) + (f"; weakest: {weak} (bar {missed[0].value:.2f})" if missed else "")


def table_of(figures: Figures, variant: str, path: str = "") -> list[tuple[str, list[Estimate | None]]]:
    """Rows (figure, values of the variant and of ROWS) of one part of the figures: `path` is "", "cross/" or the like."""
    rows = []
    for name in [*BETTER, *(f"{n}_minus_copy" for n in BETTER)]:
        cells = [figures.get(f"stage2/{row}/{path}{name}") for row in (variant, *ROWS)]
        if cells[0] is not None:
            rows.append((name, cells))
    return rows


def shown_figures(figures: Figures, variant: str) -> Any:
    """The figures over all clips as a `rich` table, with the judges' own and the bars.

    upper: what the generator draws when it is told the true target's landmarks, so that what is missing there is the drawing's fault.
    """
    from rich import box
    from rich.table import Column, Table

    # Narrow enough for 80 columns with no name and no number broken: one space between columns, and none at the edges.
    table = Table(
        Column("figure", no_wrap=True),
        *(Column(head, no_wrap=True, justify="right") for head in ("edit", "95 %", "copy", "truth", "upper")),
        Column("bar", no_wrap=True),
        title=f"edits of held-out clips: {variant}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    limits = {target.name: target for target in bars(variant, figures)}
    for name, short in (("oracle/emotion_accuracy", "emotion"), ("oracle/mouth_opening_corr", "mouth opening")):
        if name in figures:
            table.add_row(f"oracle: {short}", f"{figures[name].value:.3f}", "", "", "", "", _bar(limits[name], figures))
    for name, (mine, *rows) in table_of(figures, variant):
        assert mine is not None
        limit = limits.get(f"stage2/{variant}/{name}")
        if name.endswith("_minus_copy") and limit is None:
            continue  # the report has them
        others = [f"{cell.value:.2f}" if cell is not None else "" for cell in rows]
        table.add_row(
            name.replace("_minus_copy", " - copy"),
            f"{mine.value:.3f}",
            _span(mine),
            *others,
            _bar(limit, figures) if limit else "",
        )
    table.add_section()
    for emotion in emotions_of(figures, variant):
        name = accuracy_of(variant, emotion)
        cells = [figures.get(name.replace(f"stage2/{variant}/", f"stage2/{row}/", 1)) for row in (variant, *ROWS)]
        mine, *beside_it = cells
        assert mine is not None
        others = [f"{cell.value:.2f}" if cell is not None else "" for cell in beside_it]
        table.add_row(f"{emotion}: shown", f"{mine.value:.3f}", _span(mine), *others, _bar(limits[name], figures))
    return table


def _span(figure: Estimate) -> str:
    return f"{figure.low:.2f}..{figure.high:.2f}"


def _bar(target: Target, figures: Figures) -> Any:
    from rich.text import Text

    word = ("met", "green") if target.met(figures) else ("missed", "red")
    return Text.assemble(f"{target.sign} {target.value:g} ", word)


def write_down(location: str, run: Run, found: Evaluation, variant: str, also: str = "") -> None:
    """summary.json (what it already holds under other names stays), edits.json and report.html; metrics, report and clips in MLflow.

    also: another run's folder whose summary.json gets the figures too.
    """
    fs, root = open_filesystem(location)
    write_edits(
        location, found.scores, {key: found.facts[key] for key in ("judges", "protocol", "sentences", "data digest")}
    )
    films = filmed_edits(found)
    with tempfile.TemporaryDirectory() as scratch:
        if also:
            _summarise(also, found, variant, Path(scratch) / "also.json")
        summary, report = Path(scratch) / "summary.json", Path(scratch) / "report.html"
        _summarise(location, found, variant, summary)
        limits = bars(variant, found.figures)
        own = {name: f for name, f in found.figures.items() if not name.startswith("stage2/")}
        write_report(
            report,
            f"Edits of {run.name}",
            {**{name: f for name, f in found.figures.items() if name in {b.name for b in limits}}, **own},
            facts=found.facts,
            targets=limits,
            verdict=verdict(found.figures, variant),
            sections=sections(found, variant, films),
        )
        fs.put_file(str(report), f"{root}/{report.name}")
        clips = Path(scratch) / "clips"
        clips.mkdir()
        for caption, (_, film) in films.items():
            name = re.sub(r"[^\w.-]+", "-", caption)
            (clips / f"{name}.mp4").write_bytes(film)
        _track(run, fs, root, found, (summary, report, *([clips] if films else [])))


def _summarise(location: str, found: Evaluation, variant: str, file: Path) -> None:
    """Bring the summary.json of the run in `location` up to date, by way of the local `file`."""
    fs, root = open_filesystem(location)
    if fs.exists(f"{root}/summary.json"):
        fs.get_file(f"{root}/summary.json", str(file))
    # A figure that this evaluation no longer has must not survive from an earlier one of the same variant.
    _forget(file, [f"stage2/{row}" for row in (variant, *ROWS)])
    facts = {key.replace(" ", "_"): value for key, value in found.facts.items()}
    facts["verdict"] = in_short(found.figures, variant)
    facts["bars"] = {
        target.name.removeprefix(f"stage2/{variant}/"): {
            "bar": bar_text(target, found.figures),
            "met": target.met(found.figures),
        }
        for target in bars(variant, found.figures)
        if target.name in found.figures
    }
    write_summary(file, found.figures, {"stage2": {variant: facts}}, keep=True)
    fs.put_file(str(file), f"{root}/summary.json")


def _forget(summary: Path, paths: Sequence[str]) -> None:
    if not summary.exists():
        return
    content = json.loads(summary.read_text())
    for tree in (content, content.get("intervals", {})):
        for path in paths:
            first, second = path.split("/")
            tree.get(first, {}).pop(second, None)
    summary.write_text(json.dumps(content))


def _track(run: Run, fs: Any, root: str, found: Evaluation, files: Sequence[Path]) -> None:
    """The figures over all clips as metrics, and summary, report and clips as artifacts."""
    state: dict[str, Any] = read_json(fs, f"{root}/state.json") if fs.exists(f"{root}/state.json") else {}
    following = tracker.attach(run, state.get("mlflow_run") or "")
    following.metrics(headlines(found.figures), int(state.get("samples", 0)))
    for file in files:
        following.artifact(file)
    following.flush()
    tracker.keep_view(following)
    following.close()


def filmed_edits(found: Evaluation) -> Films:
    """The edits to show, each beside its source, what it should have been where that is known, and its reference."""
    films = {}
    for shown in found.shown:
        clips = {"source": shown.source, "edited": shown.generated}
        clips |= {"true target": shown.target} if shown.target is not None else {}
        clips |= {"of its landmarks": shown.upper} if shown.upper is not None else {}
        clips["reference"] = shown.reference
        films[shown.caption] = (tuple(clips), filmed(beside(clips)))
    return films


def verdict(figures: Figures, variant: str) -> Markup:
    """HTML: each emotion with its bar, then the bars of the means."""
    rows, limits = [], {target.name: target for target in bars(variant, figures)}
    for emotion in emotions_of(figures, variant):
        name = accuracy_of(variant, emotion)
        figure, limit = figures[name], limits[name]
        changed = figures.get(f"stage2/{variant}/by_emotion/{emotion}/changed_error_over_copy")
        rows.append(
            {
                "emotion": emotion,
                "word": _word(limit, figures),
                "percent": 0 if math.isnan(figure.value) else round(100 * figure.value),
                "bar_percent": round(100 * limit.value),
                "value": f"{figure.value:.2f}",
                "span": f"{figure.low:.2f} .. {figure.high:.2f}",
                "bar": bar_text(limit, figures),
                "changed": f"{changed.value:.2f}" if changed is not None else "",
            }
        )
    means = [
        (
            _word(bar, figures),
            bar.name.removeprefix(f"stage2/{variant}/"),
            f"{figures[bar.name].value:.2f}, {bar_text(bar, figures)}",
        )
        for bar in limits.values()
        if "/by_emotion/" not in bar.name and bar.name in figures
    ]
    return TEMPLATES.get_template("edits.html").module.verdict(rows, means)  # type: ignore[attr-defined]


def _word(target: Target, figures: Figures) -> str:
    return {None: "unknown", True: "met", False: "missed"}[target.met(figures)]


def sections(found: Evaluation, variant: str, films: Films) -> list[Markup]:
    """HTML: the clips, and a table for both ways together, each way, and each emotion."""
    figures, parts = found.figures, TEMPLATES.get_template("edits.html").module
    made = [parts.paragraph(f"Judged by {found.facts['judges']}.")]  # type: ignore[attr-defined]
    if found.shown:
        shown = [(caption, names, base64.b64encode(film).decode()) for caption, (names, film) in films.items()]
        made.append(parts.clips(shown))  # type: ignore[attr-defined]
    tables = {"All clips": ""} | {f"Reference: {way}-identity": f"{way}/" for way in ("intra", "cross")}
    tables |= {emotion: f"by_emotion/{emotion}/" for emotion in emotions_of(figures, variant)}
    for title, path in tables.items():
        rows = [
            (
                name,
                MEANING.get(name) or "difference to the unchanged source, clip by clip",
                [_cell(cell) for cell in cells],
            )
            for name, cells in table_of(figures, variant, path)
        ]
        if rows:
            made.append(parts.table(title, (variant, *ROWS), rows))  # type: ignore[attr-defined]
    return made


def _cell(figure: Estimate | None) -> tuple[str, str]:
    return ("", "") if figure is None else (f"{figure.value:.3f}", f"{figure.low:.3f} .. {figure.high:.3f}")
