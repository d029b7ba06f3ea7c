"""What an evaluation leaves behind: `summary.json` with every figure, and `report.html`, one page that needs no other file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spfem_dist.evaluation.drawing import COLOURS, curves_svg, data_uri, intervals_svg
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.evaluation.targets import Figures, Target, value_of
from spfem_dist.files import write_whole
from spfem_dist.redact import redact

Picture = np.ndarray | Mapping[int, np.ndarray]

#: Templates of reports. Everything that is no `Markup` is escaped.
TEMPLATES = Environment(
    loader=PackageLoader("spfem_dist.evaluation", "templates"), autoescape=True, undefined=StrictUndefined
)


def numbers(figures: Figures) -> dict[str, float]:
    """Names and plain numbers, as a tracker takes them."""
    return {name: value_of(figure) for name, figure in figures.items()}


def headlines(figures: Figures) -> dict[str, float]:
    """The plain numbers over all clips of what was trained, `priors/<kind>/<figure>` and `stage2/<variant>/<figure>`: what tracking shows.

    Parts of them (by emotion, across speakers), the corpus and the released form are in summary.json alone.
    """
    wanted = re.compile(r"(priors|stage2)/[^/]+/[^/]+")
    return {name: value for name, value in numbers(figures).items() if wanted.fullmatch(name)}


def write_summary(
    path: str | Path, figures: Figures, facts: Mapping[str, Any] | None = None, keep: bool = False
) -> Path:
    """Write figures as nested JSON: `priors/content/same_speech_auc` becomes that path, its value a number.

    Intervals lie under `intervals/` with the same path: low, high (95 %), clips. An undefined figure is null.
    facts: what was scored, kept under `facts/`. keep: leave what the file has under other names; figures with the same name are replaced.
    Raises ValueError where one figure's name is another's folder.
    """
    path = Path(path)
    summary: dict[str, Any] = json.loads(path.read_text()) if keep and path.exists() else {}
    for key, fact in (facts or {}).items():
        _set(summary, f"facts/{key}", fact)
    for name, figure in figures.items():
        _set(summary, name, _number(value_of(figure)))
        if isinstance(figure, Estimate):
            _set(
                summary,
                f"intervals/{name}",
                {"low": _number(figure.low), "high": _number(figure.high), "clips": figure.clips},
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(summary, indent=2, sort_keys=True) + "\n")
    return path


def read_summary(path: str | Path) -> dict[str, Estimate | float]:
    """The figures of a summary.json by name, with their intervals."""
    summary = json.loads(Path(path).read_text())
    intervals = summary.pop("intervals", {})
    summary.pop("facts", None)
    figures: dict[str, Estimate | float] = {}

    def walk(node: Mapping[str, Any], spans: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            span = spans.get(key, {})
            if isinstance(value, Mapping):
                walk(value, span, f"{prefix}{key}/")
                continue
            value = math.nan if value is None else value
            low, high = (math.nan if span.get(side) is None else span[side] for side in ("low", "high"))
            figures[prefix + key] = Estimate(value, low, high, span["clips"]) if span else value

    walk(summary, intervals, "")
    return figures


def figures_table(figures: Figures, targets: Sequence[Target] = ()) -> Any:
    """The figures as a `rich` table for the terminal."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    colours = {"met": "green", "missed": "red", "unknown": "yellow"}
    # Narrow enough for 80 columns with the longest name (48) and every number whole.
    table = Table(
        Column("figure", no_wrap=True),
        *(Column(head, no_wrap=True, justify="right") for head in ("value", "95 %", "bar")),
        Column("", no_wrap=True),
        title="figures on held-out data",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    for name in _ordered(figures, targets):
        figure = figures[name]
        value, low, high = _mark(figure)
        span = f"{low:.2f}..{high:.2f}" if isinstance(figure, Estimate) else ""
        # A bar that counts from a figure that was not measured is none.
        mine: list[Target | None] = [t for t in targets if t.name == name and not math.isnan(t.limit(figures))]
        for i, target in enumerate(mine or [None]):
            bar = f"{target.sign} {target.limit(figures):.2f}" if target else ""
            shown = (name, _text(value), span) if i == 0 else ("", "", "")
            word = _verdict(target, figures, "met", "missed", "unknown")
            table.add_row(*shown, bar, Text(word, colours.get(word, "")))
    return table


def write_report(
    path: str | Path,
    title: str,
    figures: Figures,
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] | None = None,
    pictures: Mapping[str, Picture] | None = None,
    facts: Mapping[str, object] | None = None,
    targets: Sequence[Target] = (),
    verdict: Markup | None = None,
    sections: Sequence[Markup] = (),
    meanings: Mapping[str, str] | None = None,
) -> Path:
    """Write one HTML page that needs no other file and no network, and fits a phone.

    curves: chart title -> curve name -> [(samples seen, value)]. pictures: caption -> uint8 [H, W, 3], or samples seen ->
    picture for one with a slider. facts: what was run (name, seed, shards, commit), redacted. verdict: HTML that
    the page begins with. sections: HTML of further parts, shown before the figures. meanings: what a figure says, by its
    name without its first part.
    """
    page = TEMPLATES.get_template("report.html").render(
        title=title,
        headline=headline(figures, targets),
        moment=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        verdict=verdict or "",
        facts=[(name, redact(value)) for name, value in (facts or {}).items()],
        sections=sections,
        parts=[_part(root, figures, targets, meanings or {}) for root in _roots(figures)],
        charts=[(name, Markup(curves_svg(lines))) for name, lines in (curves or {}).items()],
        pictures=[_picture(caption, picture) for caption, picture in (pictures or {}).items()],
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page + "\n")
    return path


def headline(figures: Figures, targets: Sequence[Target]) -> str:
    """How many bars are met, of those whose figures are there."""
    met = [target.met(figures) for target in targets if target.name in figures]
    return f"{met.count(True)} of {len(met)} bars met" if met else "no bars apply"


def _roots(figures: Figures) -> list[tuple[str, list[str]]]:
    """Sections: the priors with all their forms as columns of one table, then everything else by first name."""
    firsts = list(dict.fromkeys(name.split("/", 1)[0] for name in figures))
    forms = sorted(first for first in firsts if first.split("_")[0] == "priors")
    rest = [(first, [first]) for first in firsts if first not in forms]
    return ([("priors", forms)] if forms else []) + rest


def _part(
    section: tuple[str, list[str]], figures: Figures, targets: Sequence[Target], meanings: Mapping[str, str]
) -> dict[str, Any]:
    """A table of the report: its title, columns with their colours, rows."""
    title, columns = section
    names = _ordered({n: f for n, f in figures.items() if n.split("/", 1)[0] in columns}, targets)
    tails = list(dict.fromkeys(name.split("/", 1)[1] if "/" in name else name for name in names))
    return {
        "title": title.capitalize(),
        "columns": [(column, COLOURS[i]) for i, column in enumerate(columns)],
        "rows": [_row(tail, columns, figures, targets, meanings) for tail in tails],
    }


def _row(
    tail: str, columns: list[str], figures: Figures, targets: Sequence[Target], meanings: Mapping[str, str]
) -> dict[str, Any]:
    names = [f"{column}/{tail}" if f"{column}/{tail}" in figures else tail for column in columns]
    cells, marks = [], []
    for name in names:
        mark = _mark(figures[name]) if name in figures else (math.nan,) * 3
        span = f"{mark[1]:.3f} .. {mark[2]:.3f}" if isinstance(figures.get(name), Estimate) else ""
        cells.append((_text(mark[0]) if name in figures else "", span))
        marks.append(mark)
    mine = [target for target in targets if target.name in names and target.name in figures]
    verdicts = []
    for target in mine:
        which = f"{target.name.split('/')[0]} " if len(columns) > 1 and target.name != names[0] else ""
        verdicts.append((_verdict(target, figures, "met", "missed", "unknown"), f"{which}{bar_text(target, figures)}"))
    limit = mine[0].limit(figures) if mine else None
    return {
        "name": tail,
        "meaning": meanings.get(tail) or meanings.get(names[0]) or "",
        "cells": cells,
        "chart": Markup(intervals_svg(marks, target=limit)),
        "verdicts": verdicts,
    }


def bar_text(target: Target, figures: Figures) -> str:
    """A bar in words: `at least 0.50`."""
    return f"{'at least' if target.sign == '>=' else 'at most'} {target.limit(figures):.2f}"


def _picture(caption: str, picture: Picture) -> dict[str, Any]:
    if not isinstance(picture, Mapping):
        return {"caption": caption, "steps": [], "source": data_uri(picture)}
    steps = sorted(picture)
    frames = [[step, data_uri(picture[step])] for step in steps]
    return {"caption": caption, "steps": steps, "source": frames[-1][1], "frames": json.dumps(frames)}


def _ordered(figures: Figures, targets: Sequence[Target]) -> list[str]:
    """Figures that have a bar first, in the order of the bars."""
    first = [name for name in dict.fromkeys(target.name for target in targets) if name in figures]
    return first + [name for name in figures if name not in first]


def _mark(figure: Estimate | float) -> tuple[float, float, float]:
    return (figure.value, figure.low, figure.high) if isinstance(figure, Estimate) else (float(figure),) * 3


def _verdict(target: Target | None, figures: Figures, met: str, missed: str, unknown: str) -> str:
    if target is None:
        return ""
    verdict = target.met(figures)
    return unknown if verdict is None else met if verdict else missed


def _text(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _set(tree: dict[str, Any], name: str, value: Any) -> None:
    *folders, leaf = name.split("/")
    for i, folder in enumerate(folders):
        tree = tree.setdefault(folder, {})
        if not isinstance(tree, dict):
            raise ValueError(
                f"figure {name!r} cannot lie under {'/'.join(folders[: i + 1])!r}, which is a figure itself: rename one"
            )
    if isinstance(tree.get(leaf), dict) and not isinstance(value, dict):
        raise ValueError(f"figure {name!r} has figures under its name: rename one")
    tree[leaf] = value
