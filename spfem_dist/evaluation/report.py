"""What an evaluation leaves behind: `summary.json` with every figure, and `report.html`, one page that needs no other file."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from spfem_dist.evaluation.drawing import COLOURS, curves_svg, data_uri, image_tag, intervals_svg
from spfem_dist.evaluation.retrieval import Figure
from spfem_dist.files import write_whole
from spfem_dist.redact import redact

Figures = Mapping[str, Figure | float]
Picture = np.ndarray | Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Target:
    """A bar that a figure has to reach: at least (or at most) `value`, counted from figure `than` where that is given."""

    name: str
    sign: str
    value: float
    than: str = ""

    def limit(self, figures: Figures) -> float:
        """The number to reach; not a number where `than` has not been measured."""
        return (
            self.value
            if not self.than
            else value_of(figures[self.than]) + self.value
            if self.than in figures
            else math.nan
        )

    def met(self, figures: Figures) -> bool | None:
        """Whether it is reached; None where a figure is missing or undefined."""
        found = value_of(figures[self.name]) if self.name in figures else math.nan
        limit = self.limit(figures)
        if math.isnan(found) or math.isnan(limit):
            return None
        return found >= limit if self.sign == ">=" else found <= limit


#: The project's bars for stage 1.
TARGETS = (
    Target("corpus/linear_stretch_within_2", "<=", 0.70),
    Target("corpus/dtw_within_2", ">=", 0.95),
    Target("corpus/dtw_mean_error_frames", "<=", 0.8),
    Target("priors/content/same_speech_auc", ">=", 0.75),
    Target("priors/content/same_speech_top1", ">=", 0.30),
    Target("priors_released/content/same_speech_auc", "<=", 0.58),
    Target("priors/content/own_speech_top1", ">=", 0.85),
    Target("priors/content/viseme_r2", ">=", 0.75),
    Target("priors/content/viseme_r2_without_speech", ">=", 0.50),
    Target("priors/content/emotion_probe", "<=", 0.35),
    Target("priors/content/emotion_probe", "<=", -0.08, than="priors_released/content/emotion_probe"),
    Target("priors/emotion/accuracy", ">=", 0.80),
    Target("priors/emotion/worst_class", ">=", 0.50),
    Target("priors/emotion/mouth_opening_r2", "<=", 0.10),
)

#: What a figure says, for readers of the report.
MEANING = {
    "corpus/linear_stretch_within_2": "frames that stretching one recording to the other's length matches within 2 frames",
    "corpus/dtw_within_2": "frames that the stored time-warp matches within 2 frames",
    "corpus/dtw_mean_error_frames": "mean error of the stored time-warp, frames",
    "content/same_speech_auc": "the image branch knows what is said: right frames against wrong ones, all given the query's speech",
    "content/same_speech_top1": "best candidate within 2 frames, all candidates given the query's speech",
    "content/own_speech_top1": "the same with each frame's own speech (see the baselines)",
    "content/without_speech_top1": "the same with no speech at all",
    "content/wrong_speech_top1": "the same when both sides hear the wrong speech",
    "content/speech_only_top1": "baseline: own speech, every face replaced by one still",
    "content/unlearned_speech_top1": "baseline: speech features with nothing learnt",
    "content/position_only_top1": "baseline: position in the clip",
    "content/chance_top1": "baseline: chance",
    "content/viseme_r2": "mouth shape read linearly from the content embedding",
    "content/viseme_r2_without_speech": "the same, embedding made without speech",
    "content/emotion_probe": "emotion read linearly from the content embedding: near chance is good",
    "content/identity_probe": "who speaks, read linearly from the embedding",
    "emotion/accuracy": "zero-shot emotion accuracy, seven classes, unseen speakers and sentences",
    "emotion/worst_class": "accuracy of the worst class",
    "emotion/mouth_opening_r2": "mouth opening read linearly from the emotion embedding: near 0 is good",
    "emotion/identity_probe": "who speaks, read linearly from the embedding",
}


def value_of(figure: Figure | float) -> float:
    """The number of a figure."""
    return float(figure.value if isinstance(figure, Figure) else figure)


def numbers(figures: Figures) -> dict[str, float]:
    """Names and plain numbers, as a tracker takes them."""
    return {name: value_of(figure) for name, figure in figures.items()}


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
        if isinstance(figure, Figure):
            _set(
                summary,
                f"intervals/{name}",
                {"low": _number(figure.low), "high": _number(figure.high), "clips": figure.clips},
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(summary, indent=2, sort_keys=True) + "\n")
    return path


def read_summary(path: str | Path) -> dict[str, Figure | float]:
    """The figures of a summary.json by name, with their intervals."""
    summary = json.loads(Path(path).read_text())
    intervals = summary.pop("intervals", {})
    summary.pop("facts", None)
    figures: dict[str, Figure | float] = {}

    def walk(node: Mapping[str, Any], spans: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            span = spans.get(key, {})
            if isinstance(value, Mapping):
                walk(value, span, f"{prefix}{key}/")
                continue
            value = math.nan if value is None else value
            low, high = (math.nan if span.get(side) is None else span[side] for side in ("low", "high"))
            figures[prefix + key] = Figure(value, low, high, span["clips"]) if span else value

    walk(summary, intervals, "")
    return figures


def figures_table(figures: Figures, targets: Sequence[Target] = TARGETS) -> Any:
    """The figures as a `rich` table for the terminal."""
    from rich.table import Column, Table

    table = Table(Column("figure", overflow="fold"), "value", "95 %", "bar", "", title="figures on held-out data")
    for name in _ordered(figures, targets):
        figure = figures[name]
        value, low, high = _mark(figure)
        span = f"{low:.3f} .. {high:.3f}" if isinstance(figure, Figure) else ""
        # A bar that counts from a figure that was not measured is none.
        mine: list[Target | None] = [t for t in targets if t.name == name and not math.isnan(t.limit(figures))]
        for i, target in enumerate(mine or [None]):
            bar = f"{target.sign} {target.limit(figures):.2f}" if target else ""
            shown = (name, _text(value), span) if i == 0 else ("", "", "")
            table.add_row(
                *shown, bar, _verdict(target, figures, "[green]met[/]", "[red]missed[/]", "[yellow]unknown[/]")
            )
    return table


def write_report(
    path: str | Path,
    title: str,
    figures: Figures,
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] | None = None,
    pictures: Mapping[str, Picture] | None = None,
    facts: Mapping[str, object] | None = None,
    targets: Sequence[Target] = TARGETS,
    sections: Sequence[str] = (),
) -> Path:
    """Write one HTML page that needs no other file and no network.

    curves: chart title -> curve name -> [(samples seen, value)]. pictures: caption -> uint8 [H, W, 3], or samples seen ->
    picture for one with a slider. facts: what was run (name, seed, shards, commit), redacted. sections: HTML of
    further parts, shown before the figures.
    """
    met = [target.met(figures) for target in targets if target.name in figures]
    headline = f"{met.count(True)} of {len(met)} bars met" if met else "no bars apply"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="headline">{headline}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC</p>',
        _facts(facts or {}),
        *sections,
        *(_figures_section(root, figures, targets) for root in _roots(figures)),
    ]
    if curves:
        charts = (
            f"<figure><figcaption>{html.escape(name)}</figcaption>{curves_svg(lines)}</figure>"
            for name, lines in curves.items()
        )
        body.append(f'<h2>Curves</h2><div class="grid">{"".join(charts)}</div>')
    if pictures:
        shown = (_picture(caption, picture) for caption, picture in pictures.items())
        body.append(f'<h2>Pictures</h2><div class="grid">{"".join(shown)}</div>')
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    page += f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><main>{"".join(body)}</main></html>\n'
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _roots(figures: Figures) -> list[tuple[str, list[str]]]:
    """Sections: the priors with all their forms as columns of one table, then everything else by first name."""
    firsts = list(dict.fromkeys(name.split("/", 1)[0] for name in figures))
    forms = sorted(first for first in firsts if first.split("_")[0] == "priors")
    rest = [(first, [first]) for first in firsts if first not in forms]
    return ([("priors", forms)] if forms else []) + rest


def _figures_section(section: tuple[str, list[str]], figures: Figures, targets: Sequence[Target]) -> str:
    title, columns = section
    names = _ordered({n: f for n, f in figures.items() if n.split("/", 1)[0] in columns}, targets)
    tails = list(dict.fromkeys(name.split("/", 1)[1] if "/" in name else name for name in names))
    key = "".join(
        f'<th><span class="dot" style="background:{COLOURS[i]}"></span>{html.escape(c)}</th>'
        for i, c in enumerate(columns)
    )
    rows = "".join(_row(tail, columns, figures, targets) for tail in tails)
    return (
        f"<h2>{html.escape(title.capitalize())}</h2><table><thead><tr><th>figure</th>{key}<th>95 % interval</th><th>bar</th></tr>"
        f"</thead><tbody>{rows}</tbody></table>"
    )


def _row(tail: str, columns: list[str], figures: Figures, targets: Sequence[Target]) -> str:
    names = [f"{column}/{tail}" if f"{column}/{tail}" in figures else tail for column in columns]
    cells, marks = [], []
    for name in names:
        mark = _mark(figures[name]) if name in figures else (math.nan,) * 3
        span = f"<small>{mark[1]:.3f} .. {mark[2]:.3f}</small>" if isinstance(figures.get(name), Figure) else ""
        cells.append(f"<td>{_text(mark[0]) if name in figures else ''}{span}</td>")
        marks.append(mark)
    mine = [target for target in targets if target.name in names and target.name in figures]
    verdicts = []
    for target in mine:
        word = _verdict(target, figures, "met", "missed", "unknown")
        which = f"{target.name.split('/')[0]} " if len(columns) > 1 and target.name != names[0] else ""
        sign = "at least" if target.sign == ">=" else "at most"
        verdicts.append(f'<span class="{word}">{word}</span> {html.escape(which)}{sign} {target.limit(figures):.2f}')
    limit = mine[0].limit(figures) if mine else None
    meaning = MEANING.get(tail) or MEANING.get(names[0]) or ""
    chart = intervals_svg(marks, target=limit)
    name = html.escape(tail)
    return f"<tr><td>{name}<small>{html.escape(meaning)}</small></td>{''.join(cells)}<td>{chart}</td><td>{'<br>'.join(verdicts)}</td></tr>"


def _picture(caption: str, picture: Picture) -> str:
    label = html.escape(caption)
    if not isinstance(picture, Mapping):
        return f"<figure><figcaption>{label}</figcaption>{image_tag(picture, caption)}</figure>"
    steps = sorted(picture)
    frames = json.dumps([[step, data_uri(picture[step])] for step in steps])
    script = "const f=this.closest('figure'),p=JSON.parse(f.dataset.frames)[this.value];f.querySelector('img').src=p[1];f.querySelector('output').value=p[0]"
    return (
        f'<figure data-frames="{html.escape(frames)}"><figcaption>{label}, <output>{steps[-1]}</output> samples seen</figcaption>'
        f'{image_tag(picture[steps[-1]], caption)}<br><input type="range" min="0" max="{len(steps) - 1}" value="{len(steps) - 1}" '
        f'aria-label="samples seen" oninput="{html.escape(script)}"></figure>'
    )


def _facts(facts: Mapping[str, object]) -> str:
    rows = "".join(f"<dt>{html.escape(str(k))}</dt><dd>{html.escape(redact(v))}</dd>" for k, v in facts.items())
    return f"<dl>{rows}</dl>" if rows else ""


def _ordered(figures: Figures, targets: Sequence[Target]) -> list[str]:
    """Figures that have a bar first, in the order of the bars."""
    first = [name for name in dict.fromkeys(target.name for target in targets) if name in figures]
    return first + [name for name in figures if name not in first]


def _mark(figure: Figure | float) -> tuple[float, float, float]:
    return (figure.value, figure.low, figure.high) if isinstance(figure, Figure) else (float(figure),) * 3


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


_STYLE = """
body{margin:0;background:#fafafa;color:#222;font:15px/1.45 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px}
h1{margin:0}h2{margin:32px 0 8px}.headline{font-size:18px;color:#555;margin:4px 0 16px}
table{border-collapse:collapse;width:100%;background:#fff;border:1px solid #e4e4e4}
th,td{text-align:left;padding:6px 10px;border-top:1px solid #eee;vertical-align:top;font-variant-numeric:tabular-nums}
th{font-weight:600;background:#f4f4f4;white-space:nowrap}small{display:block;color:#777;font-size:12px;white-space:nowrap}
td:first-child small{max-width:300px;white-space:normal}
.dot{display:inline-block;width:9px;height:9px;border-radius:5px;margin-right:5px}
.met{color:#00724f;font-weight:600}.missed{color:#b34700;font-weight:600}.unknown{color:#777;font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:0 0 16px}dt{color:#777}dd{margin:0;overflow-wrap:anywhere}
.grid{display:flex;flex-wrap:wrap;gap:16px}
figure{margin:0;padding:12px;background:#fff;border:1px solid #e4e4e4;max-width:100%;box-sizing:border-box}
figcaption{font-weight:600;margin-bottom:6px}figure img,figure>svg{max-width:100%;height:auto}input[type=range]{width:100%}
"""
