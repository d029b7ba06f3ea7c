"""What an evaluated generator leaves behind: summary.json, edits.json, a report that plays its clips, metrics in MLflow."""

from __future__ import annotations

import html
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spfem_dist.config import Run
from spfem_dist.evaluation.compare import write_edits
from spfem_dist.evaluation.edits import Evaluation
from spfem_dist.evaluation.film import beside, film_tag, filmed
from spfem_dist.evaluation.generator import BETTER, COPY, MEANING, TARGET
from spfem_dist.evaluation.report import Target, numbers, write_report, write_summary
from spfem_dist.evaluation.retrieval import Figure
from spfem_dist.storage import open_filesystem
from spfem_dist.tracking import tracker

Figures = dict[str, Figure]
#: By caption: the names of the clips in a row, and the row as an MP4.
Films = dict[str, tuple[tuple[str, ...], bytes]]


def bars(arm: str) -> tuple[Target, ...]:
    """What a generator has to reach, and first of all its judges: an oracle below its bars proves nothing."""
    return (
        Target("oracle/emotion_accuracy", ">=", 0.85),
        Target("oracle/mouth_opening_corr", ">=", 0.80),
        Target(f"stage2/{arm}/emotion_accuracy", ">=", 0.50),
        Target(f"stage2/{arm}/changed_error_over_copy", "<=", 0.90),
        Target(f"stage2/{arm}/mouth_corr_minus_copy", ">=", -0.05),
        Target(f"stage2/{arm}/identity_minus_copy", ">=", -0.03),
    )


def table_of(figures: Figures, arm: str, path: str = "") -> list[tuple[str, list[Figure | None]]]:
    """Rows (figure, values of the arm, copy, target) of one part of the figures: `path` is "", "cross/" or the like."""
    rows = []
    for name in [*BETTER, *(f"{n}_minus_copy" for n in BETTER)]:
        cells = [figures.get(f"stage2/{row}/{path}{name}") for row in (arm, COPY, TARGET)]
        if cells[0] is not None:
            rows.append((name, cells))
    return rows


def shown_figures(figures: Figures, arm: str) -> Any:
    """The figures over all clips as a `rich` table, with the judges' own and the bars."""
    from rich.table import Column, Table

    table = Table(Column("figure", overflow="fold"), arm, "95 %", COPY, TARGET, "bar", title="edits of held-out clips")
    limits = {target.name: target for target in bars(arm)}
    for name in ("oracle/emotion_accuracy", "oracle/mouth_opening_corr"):
        if name in figures:
            table.add_row(name, f"{figures[name].value:.3f}", "", "", "", _bar(limits[name], figures))
    for name, (mine, copy, target) in table_of(figures, arm):
        assert mine is not None
        others = [f"{cell.value:.3f}" if cell is not None else "" for cell in (copy, target)]
        limit = limits.get(f"stage2/{arm}/{name}")
        table.add_row(
            name,
            f"{mine.value:.3f}",
            f"{mine.low:.3f} .. {mine.high:.3f}",
            *others,
            _bar(limit, figures) if limit else "",
        )
    return table


def _bar(target: Target, figures: Figures) -> str:
    word = "[green]met[/]" if target.met(figures) else "[red]missed[/]"
    return f"{target.sign} {target.value:g} {word}"


def write_down(location: str, run: Run, found: Evaluation, arm: str, also: str = "") -> None:
    """summary.json (what it already holds under other names stays), edits.json and report.html; metrics, report and clips in MLflow.

    also: another run's folder whose summary.json gets the figures too.
    """
    fs, root = open_filesystem(location)
    write_edits(location, found.scores, {key: found.facts[key] for key in ("judges", "protocol", "data digest")})
    films = filmed_edits(found)
    with tempfile.TemporaryDirectory() as scratch:
        if also:
            _summarise(also, found, arm, Path(scratch) / "also.json")
        summary, report = Path(scratch) / "summary.json", Path(scratch) / "report.html"
        _summarise(location, found, arm, summary)
        own = {name: f for name, f in found.figures.items() if not name.startswith("stage2/")}
        write_report(
            report,
            f"Edits of {run.name}",
            {**{name: f for name, f in found.figures.items() if name in {b.name for b in bars(arm)}}, **own},
            facts=found.facts,
            targets=bars(arm),
            sections=sections(found, arm, films),
        )
        fs.put_file(str(report), f"{root}/{report.name}")
        clips = Path(scratch) / "clips"
        clips.mkdir()
        for caption, (_, film) in films.items():
            name = re.sub(r"[^\w.-]+", "-", caption)
            (clips / f"{name}.mp4").write_bytes(film)
        _track(run, fs, root, found, (summary, report, *([clips] if films else [])))


def _summarise(location: str, found: Evaluation, arm: str, file: Path) -> None:
    """Bring the summary.json of the run in `location` up to date, by way of the local `file`."""
    fs, root = open_filesystem(location)
    if fs.exists(f"{root}/summary.json"):
        fs.get_file(f"{root}/summary.json", str(file))
    # A figure that this evaluation no longer has must not survive from an earlier one of the same arm.
    _forget(file, [f"stage2/{row}" for row in (arm, COPY, TARGET)])
    facts = {key.replace(" ", "_"): value for key, value in found.facts.items()}
    write_summary(file, found.figures, {"stage2": {arm: facts}}, keep=True)
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
    """The figures over all clips, intra and cross as metrics, and summary, report and clips as artifacts."""
    state: dict[str, Any] = {}
    if fs.exists(f"{root}/state.json"):
        with fs.open(f"{root}/state.json", "r") as f:
            state = json.load(f)
    following = tracker.attach(run, state.get("mlflow_run") or "")
    short = {name: value for name, value in numbers(found.figures).items() if "/by_emotion/" not in name}
    following.metrics(short, int(state.get("samples", 0)))
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
        clips["reference"] = shown.reference
        films[shown.caption] = (tuple(clips), filmed(beside(clips)))
    return films


def sections(found: Evaluation, arm: str, films: Films) -> list[str]:
    """HTML: the clips, and a table for both ways together, each way, and each emotion."""
    figures = found.figures
    parts = [f"<p>Judged by {html.escape(str(found.facts['judges']))}.</p>"]
    if found.shown:
        tags = [film_tag(film, names, caption) for caption, (names, film) in films.items()]
        parts.append(f'<h2>Clips</h2><div class="grid">{"".join(tags)}</div>')
    parts.append(_table("All clips", figures, arm, ""))
    for way in ("intra", "cross"):
        parts.append(_table(f"Reference: {way}-identity", figures, arm, f"{way}/"))
    start = f"stage2/{arm}/by_emotion/"
    for emotion in dict.fromkeys(n.removeprefix(start).split("/")[0] for n in figures if n.startswith(start)):
        parts.append(_table(emotion, figures, arm, f"by_emotion/{emotion}/"))
    return [part for part in parts if part]


def _table(title: str, figures: Figures, arm: str, path: str) -> str:
    rows = table_of(figures, arm, path)
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("figure", arm, COPY, TARGET))
    body = ""
    for name, cells in rows:
        meaning = MEANING.get(name) or "difference to the unchanged source, clip by clip"
        shown = "".join(f"<td>{_cell(cell)}</td>" for cell in cells)
        body += f"<tr><td>{html.escape(name)}<small>{html.escape(meaning)}</small></td>{shown}</tr>"
    return f"<h2>{html.escape(title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return f"{figure.value:.3f}<small>{figure.low:.3f} .. {figure.high:.3f}</small>"
