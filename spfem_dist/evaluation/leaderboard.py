"""The leaderboard: what each variant of a method adds to the baseline, in every regime, as JSON, Markdown and a page that plays clips."""

from __future__ import annotations

import base64
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from spfem_dist.evaluation.compare import read_edits, verdict
from spfem_dist.evaluation.drawing import intervals_svg
from spfem_dist.evaluation.generator import BETTER, MEANING, ROWS
from spfem_dist.evaluation.paired import BASELINE, Effect, Scores, effects, interval, read_scores
from spfem_dist.evaluation.report import TEMPLATES
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.files import write_whole
from spfem_dist.storage import open_filesystem, read_json

#: Figures of the tables; the JSON has all of them.
SHOWN = (
    "emotion_accuracy",
    "changed_error_over_copy",
    "mouth_error_over_copy",
    "width_corr",
    "width_corr_exact",
    "viseme_r2",
    "viseme_r2_exact",
    "mouth_corr",
    "identity",
    "jitter",
    "fad",
    "lse_d",
)
#: Runs by regime, variant and seed.
Runs = Mapping[tuple[str, str, int], str]
#: One film for each regime and emotion: the names of its faces from left to right, and an MP4.
Films = Mapping[tuple[str, str], tuple[Sequence[str], bytes]]


@dataclass(frozen=True)
class Claim:
    """A sentence about one variant, and the figures in which its difference to the baseline has to be off zero, the right way."""

    text: str
    variant: str
    figures: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """What was found. effects: by regime. rows: means of the rows that need no training (copy, true target, upper bound) by regime, row
    and figure. facts: what was run. weights: of guidance, by regime, variant and seed, as the generators say.
    """

    variants: Mapping[str, Sequence[str]]
    effects: Mapping[str, Sequence[Effect]]
    rows: Mapping[str, Mapping[str, Mapping[str, float]]]
    claims: Sequence[Claim] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[tuple[str, str, int], Mapping[str, float]] = field(default_factory=dict)

    def effect(self, regime: str, variant: str, figure: str) -> Effect | None:
        """One cell of the tables."""
        found = (e for e in self.effects.get(regime, ()) if (e.variant, e.figure) == (variant, figure))
        return next(found, None)

    def holds(self, regime: str, claim: Claim) -> bool | None:
        """Whether a claim's intervals are all off zero on the right side; None where one was not measured."""
        found = [self.effect(regime, claim.variant, figure) for figure in claim.figures]
        return None if None in found else all(effect is not None and effect.verdict == "better" for effect in found)


def board_of(
    runs: Runs,
    variants: Mapping[str, Sequence[str]],
    claims: Sequence[Claim] = (),
    facts: Mapping[str, Any] | None = None,
    weights: Mapping[tuple[str, str, int], Mapping[str, float]] | None = None,
) -> Board:
    """The board of scored runs; every regime needs runs of the baseline. Raises ValueError as `paired.read_scores` and `effects` do."""
    found: dict[str, list[Effect]] = {}
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for regime in dict.fromkeys(regime for regime, _, _ in runs):
        mine = {(variant, seed): place for (r, variant, seed), place in runs.items() if r == regime}
        scores = read_scores(mine)
        found[regime] = [*effects(scores), *_over_seeds(mine, scores)]
        rows[regime] = _rows(mine[min(mine, key=lambda key: (key[0] != BASELINE, key[1]))])
    return Board(variants, found, rows, claims, dict(facts or {}), dict(weights or {}))


def _over_seeds(runs: Mapping[tuple[str, int], str], scores: Scores) -> list[Effect]:
    """FAD, which is no mean over clips: the differences of whole runs, redrawn over seeds alone. And jitter, of which neither is better."""
    made = []
    fads: dict[tuple[str, int], float] = {}
    for (variant, seed), location in runs.items():
        if (value := _summary(location).get(variant, {}).get("fad")) is not None:
            fads[variant, seed] = value
    jitters = {
        key: float(np.mean([s.values["jitter"] for s in found if "jitter" in s.values] or [np.nan]))
        for key, found in scores.items()
    }
    for figure, values in (("fad", fads), ("jitter", jitters)):
        for variant in dict.fromkeys(variant for variant, _ in runs if variant != BASELINE):
            seeds = [seed for other, seed in values if other == variant and (BASELINE, seed) in values]
            if not seeds:
                continue
            own, base = (np.array([[values[which, seed]] for seed in seeds]) for which in (variant, BASELINE))
            difference = interval(own - base)
            if len(seeds) == 1:  # one training says nothing of another
                difference = Estimate(difference.value, float("nan"), float("nan"), 1)
            word = verdict(difference, BETTER[figure]) if BETTER[figure] else "noise"
            made.append(Effect(variant, figure, float(own.mean()), float(base.mean()), difference, word))
    return made


def _summary(location: str) -> dict[str, Any]:
    """What a scored run's summary says of stage 2, by row."""
    fs, root = open_filesystem(location)
    return read_json(fs, f"{root}/summary.json").get("stage2", {})


def _rows(location: str) -> dict[str, dict[str, float]]:
    """Means of the rows beside the variants; they are the same in every run of a regime but for the upper bound, the baseline's."""
    found: dict[str, dict[str, float]] = {}
    scores, summary = read_edits(location), _summary(location)
    for row in ROWS:
        mine = [score.values for score in scores if score.row == row]
        names = dict.fromkeys(name for values in mine for name in values)
        found[row] = {n: float(np.mean([values[n] for values in mine if n in values])) for n in names}
        if mine and (fad := summary.get(row, {}).get("fad")) is not None:
            found[row]["fad"] = fad
    return {row: values for row, values in found.items() if values}


def as_json(board: Board) -> dict[str, Any]:
    """`<regime>/<variant>/<figure>/{difference, low, high, value, baseline, verdict}`, then rows, claims and facts."""
    tree: dict[str, Any] = {}
    for regime, found in board.effects.items():
        for e in found:
            tree.setdefault(regime, {}).setdefault(e.variant, {})[e.figure] = {
                "difference": _number(e.difference.value),
                "low": _number(e.difference.low),
                "high": _number(e.difference.high),
                "value": _number(e.value),
                "baseline": _number(e.baseline),
                "verdict": e.verdict,
            }
    return tree | {
        "rows": {regime: {row: dict(values) for row, values in rows.items()} for regime, rows in board.rows.items()},
        "claims": {
            claim.text: {regime: board.holds(regime, claim) for regime in board.effects} for claim in board.claims
        },
        "guidance": {"/".join(map(str, key)): dict(found) for key, found in board.weights.items()},
        "facts": dict(board.facts),
    }


#: How it is measured, the beginning of the page in the documentation.
HOW = """# Leaderboard

Which prior makes the generator better, in what, and by how much: paired differences to the same training without a prior, with 95 % intervals.

```bash
python recipes/leaderboard.py
```

trains and scores what is not done yet, and writes this page, `leaderboard.json` (`<regime>/<variant>/<figure>/{difference, low, high}`) and
`leaderboard.html`, which plays clips of every variant. The same command goes on where it was stopped; before it begins it says how long it will
take: about 3.5 hours on 2 quiet cores for all ten variants. `--budget smoke` shows in minutes that everything works, `laptop` scores one
sentence of each test speaker (2.5 hours), `night`, the default, three. Seeds can be worked on side by side: with the judges of
`python recipes/metric_nets.py`, one process for each of `--local --judges runs/judges --seeds 0`, `1` and `2`, then the same command
with `--seeds 0 1 2`, which finds all done and writes the page. A prior of personal style has nothing to learn on the plain rendered corpus:
`spfem prepare synthetic --style 1 --out shards/synthetic-style`, then `--data.shards shards/synthetic-style` and folders of its own
(`--checkpoint.storage`).

**What is compared.** A variant is a set of frozen priors that guide stage 2. All variants of a seed start from one pre-training of the manipulator
and go on for the same steps on the same samples; they differ in the priors alone. Each seed has a stage 1 of its own. Priors learn from the
split's speakers `priors`, the generator from `generator`; figures are of the test part's speakers and sentences, who meet neither.

**Two regimes.** `residual`: the manipulator adds to the source's coefficients, so that the mouth's movement is kept by itself. `absolute`: it makes
them anew, as published, and loses that movement where no prior holds it.

**Strength.** When training begins, weights of guidance are chosen by the norms of their gradients on validation speakers, and printed: the priors
that compare with the source (content) pull together with norm 4 for a sample, those that compare with the reference (emotion) with .8. None is chosen
on test speakers ([generators.md](generators.md#guidance) says how these two were).

**Intervals.** A clip is a source with an emotion. The difference to the baseline is taken seed by seed and clip by clip; both are redrawn
for the interval. `fad` and `jitter` are redrawn over seeds alone. An interval that reaches over 0 is noise. What the figures mean stands in
[evaluation.md](evaluation.md). `upper_bound` is what the baseline's renderer draws of the true target's landmarks.

**A further row** is a room `spfem_dist/priors/<kind>` ([extending.md](extending.md)) and a line in `VARIANTS` of the recipe.
"""


def as_markdown(board: Board | None) -> str:
    """The page of the documentation; None: nothing was measured yet."""
    if board is None:
        return HOW + "\nNo board has been made with this version yet.\n"
    lines = [HOW, "## What was run\n", *(f"* {key}: {value}" for key, value in board.facts.items())]
    for regime, found in board.effects.items():
        lines += [f"\n## {regime}\n"]
        for claim in board.claims:
            if (holds := board.holds(regime, claim)) is not None:
                lines.append(
                    f"* {claim.text}: **{'yes' if holds else 'not shown'}** ({_evidence(board, regime, claim)})"
                )
        figures = [name for name in SHOWN if any(e.figure == name for e in found)]
        lines += ["", f"| | {' | '.join(figures)} |", "|---|" + "---|" * len(figures)]
        for row, values in board.rows[regime].items():
            lines.append(f"| *{row}* | {' | '.join(_short(values.get(name)) for name in figures)} |")
        base = {e.figure: e.baseline for e in found}
        lines.append(f"| {BASELINE} | {' | '.join(_short(base.get(name)) for name in figures)} |")
        for variant in dict.fromkeys(e.variant for e in found):
            cells = [_cell(board.effect(regime, variant, name)) for name in figures]
            lines.append(f"| {_title(board, variant)} | {' | '.join(cells)} |")
        lines += [
            "",
            "Rows of variants are differences to the baseline; **bold**: better, _italic_: worse, plain: noise.",
            "",
            *(_verdict_line(board, regime, variant, figures) for variant in dict.fromkeys(e.variant for e in found)),
        ]
    if board.weights:
        lines += ["\n## Weights of guidance\n"]
        lines += [
            f"* {regime}, {variant}, seed {seed}: {', '.join(f'{kind} {value:.3g}' for kind, value in found.items())}"
            for (regime, variant, seed), found in board.weights.items()
            if found
        ]
    return "\n".join(lines) + "\n"


def as_html(board: Board, films: Films) -> str:
    """One page that needs no other file: claims, clips that play, and the differences with their intervals."""
    regimes = []
    for regime, found in board.effects.items():
        figures = [name for name in SHOWN if any(e.figure == name for e in found)]
        variants = list(dict.fromkeys(e.variant for e in found))
        table = []
        for name in figures:
            cells = [board.effect(regime, variant, name) for variant in variants]
            reach = [abs(v) for e in cells if e for v in (e.difference.low, e.difference.high) if np.isfinite(v)]
            scale = max(reach, default=1.0) or 1.0
            marks = [_mark(e) for e in cells]
            table.append(
                {
                    "name": name,
                    "meaning": MEANING[name],
                    "base": _short(next((e.baseline for e in cells if e), None)),
                    "rows": [_short(values.get(name)) for values in board.rows[regime].values()],
                    "cells": [(e.verdict if e else "", *_parts(e)) for e in cells],
                    "chart": Markup(intervals_svg(marks, -scale, scale, target=0.0)),
                }
            )
        shown = [
            {"emotion": emotion, "names": list(names), "film": base64.b64encode(film).decode()}
            for (of, emotion), (names, film) in films.items()
            if of == regime
        ]
        claims = [
            ({True: "met", False: "missed"}[holds], claim.text, _evidence(board, regime, claim))
            for claim in board.claims
            if (holds := board.holds(regime, claim)) is not None
        ]
        regimes.append(
            {
                "name": regime,
                "variants": variants,
                "rows": list(board.rows[regime]),
                "table": table,
                "films": shown,
                "claims": claims,
            }
        )
    return TEMPLATES.get_template("leaderboard.html").render(
        moment=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        facts=list(board.facts.items()),
        variants={name: ", ".join(kinds) or "none" for name, kinds in board.variants.items()},
        regimes=regimes,
    )


def write(folder: str | Path, board: Board, films: Films) -> list[Path]:
    """leaderboard.md, .json and .html in the local `folder`."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    contents = {
        "leaderboard.md": as_markdown(board),
        "leaderboard.json": json.dumps(as_json(board), indent=1) + "\n",
        "leaderboard.html": as_html(board, films) + "\n",
    }
    for name, text in contents.items():
        write_whole(place / name, text)
    return [place / name for name in contents]


def machine() -> str:
    """The machine that this process runs on, in words."""
    try:
        model = next(
            x.partition(":")[2].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x
        )
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores ({model})"


def shown_table(board: Board, regime: str) -> Any:
    """The most telling figures of a regime as a `rich` table."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    figures = ("emotion_accuracy", "mouth_error_over_copy", "width_corr_exact")
    table = Table(
        Column("variant", no_wrap=True),
        *(
            Column(name.replace("_over_copy", "").replace("_exact", ""), no_wrap=True, justify="right")
            for name in figures
        ),
        title=f"{regime}: differences to the baseline, 95 %",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    colours = {"better": "green", "worse": "red", "noise": "default"}
    for variant in dict.fromkeys(e.variant for e in board.effects[regime]):
        cells = []
        for name in figures:
            effect = board.effect(regime, variant, name)
            cells.append("" if effect is None else Text(_brief(effect), colours[effect.verdict]))
        table.add_row(variant, *cells)
    return table


def _verdict_line(board: Board, regime: str, variant: str, figures: Sequence[str]) -> str:
    """What a variant is better and worse in, of the figures of the tables."""
    said = []
    for word in ("better", "worse"):
        mine = [e for name in figures if (e := board.effect(regime, variant, name)) and e.verdict == word]
        said.append(f"{word} in {', '.join(f'{e.figure} {e.difference.value:+.3f}' for e in mine) or 'nothing'}")
    return f"* {variant}: {'; '.join(said)}."


def _title(board: Board, variant: str) -> str:
    kinds = board.variants.get(variant, ())
    return variant if list(kinds) == [variant] else f"{variant} ({' + '.join(kinds)})"


def _evidence(board: Board, regime: str, claim: Claim) -> str:
    found = ((name, board.effect(regime, claim.variant, name)) for name in claim.figures)
    return "; ".join(f"{name} {' '.join(_parts(effect))}" for name, effect in found)


def _cell(effect: Effect | None) -> str:
    text = " ".join(_parts(effect))
    return (
        f"**{text}**"
        if effect and effect.verdict == "better"
        else f"_{text}_"
        if effect and effect.verdict == "worse"
        else text
    )


def _parts(effect: Effect | None) -> tuple[str, str]:
    """A difference and its interval; of a single run there is none."""
    if effect is None:
        return "", ""
    d = effect.difference
    return f"{d.value:+.3f}", f"[{d.low:+.3f}, {d.high:+.3f}]" if np.isfinite(d.low) else ""


def _brief(effect: Effect) -> str:
    """A difference and its interval in 20 columns: three of them fit a terminal."""
    d = effect.difference
    return f"{d.value:+.2f}" + (f" [{d.low:+.2f}, {d.high:+.2f}]" if np.isfinite(d.low) else "")


def _mark(effect: Effect | None) -> tuple[float, float, float]:
    return (
        (float("nan"),) * 3
        if effect is None
        else (effect.difference.value, effect.difference.low, effect.difference.high)
    )


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
