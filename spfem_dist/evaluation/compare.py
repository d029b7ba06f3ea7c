"""Is one generator better than another? Paired differences over the clips that both edited, from their edits.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from spfem_dist.evaluation.generator import BETTER, ROWS, ClipScore
from spfem_dist.evaluation.real.figures import BETTER as REAL
from spfem_dist.evaluation.retrieval import Estimate, bootstrap
from spfem_dist.storage import open_filesystem

FILE, FORMAT = "edits.json", "spfem-edits/1"
Verdict = Literal["better", "worse", "noise"]


@dataclass(frozen=True)
class Difference:
    """Run A minus run B in one figure: mean over clips, 95 % interval, and what that says of A."""

    name: str
    a: float
    b: float
    difference: Estimate
    verdict: Verdict


def write_edits(location: str, scores: Sequence[ClipScore], facts: Mapping[str, Any]) -> None:
    """Add the clips' scores to `<location>/edits.json`; rows with the same names are replaced. facts: kept for each row."""
    fs, root = open_filesystem(location)
    kept = _read(location) if fs.exists(f"{root}/{FILE}") else {"facts": {}, "clips": []}
    rows = dict.fromkeys(s.row for s in scores)
    clips = [c for c in kept["clips"] if c["row"] not in rows]
    clips += [{k: v for k, v in asdict(s).items() if k != "features"} for s in scores]
    known = kept["facts"] | {row: dict(facts) for row in rows}
    with fs.open(f"{root}/{FILE}", "w") as f:
        json.dump({"format": FORMAT, "facts": known, "clips": clips}, f, indent=1)


def read_edits(location: str) -> list[ClipScore]:
    """The clips' scores of an evaluated run. Raises FileNotFoundError where it was not evaluated."""
    return [ClipScore(**clip) for clip in _read(location)["clips"]]


def read_facts(location: str) -> dict[str, dict[str, Any]]:
    """What was written beside the scores of each row of an evaluated run: judges, protocol, data digest."""
    return _read(location)["facts"]


def compare(a: str, b: str, variant: str = "", against: str = "") -> dict[str, Difference]:
    """What run `a` gains or loses against run `b`, by figure: `emotion_accuracy`, `mouth_corr`, ...

    variant, against: which variant of `a` and of `b`; each may be left out where a run has one. `a` and `b` may be one run with two
    variants. A difference whose interval reaches over 0 is `noise`.
    Raises ValueError where a variant is not there, or the two share no clip or were scored by different judges.
    """
    if a == b and not against:
        raise ValueError(
            f"{a} cannot be compared with itself: give another run, or two of its variants (--variant, --against)"
        )
    variants = _variant(a, variant), _variant(b, against)
    one, other = (read_facts(run)[chosen].get("judges") for run, chosen in zip((a, b), variants, strict=True))
    if one != other:
        raise ValueError(
            f"{a} was scored by {one}, and {b} by {other}: evaluate both with the same --judges, then compare"
        )
    mine, theirs = (by_clip(read_edits(run), chosen) for run, chosen in zip((a, b), variants, strict=True))
    shared = [clip for clip in mine if clip in theirs]
    if not shared:
        raise ValueError(f"{a} and {b} edited no clip in common: evaluate both on the same shards, split and protocol")
    found = {}
    for name, sign in (BETTER | REAL).items():
        pairs = [(mine[c][name], theirs[c][name]) for c in shared if name in mine[c] and name in theirs[c]]
        if not pairs or not sign:
            continue
        table = np.array(pairs)
        difference = bootstrap(table[:, 0] - table[:, 1])
        found[name] = Difference(
            name, float(table[:, 0].mean()), float(table[:, 1].mean()), difference, verdict(difference, sign)
        )
    return found


def verdict(difference: Estimate, sign: int) -> Verdict:
    """What an interval says. sign: +1 where more is better."""
    low, high = sorted((sign * difference.low, sign * difference.high))
    return "better" if low > 0 else "worse" if high < 0 else "noise"


def comparison_table(found: Mapping[str, Difference], a: str, b: str) -> Any:
    """The differences as a `rich` table."""
    from rich.table import Table
    from rich.text import Text

    table = Table("figure", "A", "B", "A - B", "95 %", "A is", title=f"A = {a}\nB = {b}")
    colours = {"better": "green", "worse": "red", "noise": "yellow"}
    for name, row in found.items():
        d = row.difference
        word = Text(row.verdict, colours[row.verdict])
        table.add_row(name, f"{row.a:.3f}", f"{row.b:.3f}", f"{d.value:+.3f}", f"{d.low:+.3f} .. {d.high:+.3f}", word)
    return table


def _variant(location: str, asked: str) -> str:
    """The variant of an evaluated run that is asked for, or its only one."""
    rows = sorted({s.row for s in read_edits(location)})
    variants = [row for row in rows if row not in ROWS]
    if asked and asked not in rows:
        raise ValueError(f"{location} has no variant {asked!r}: it has {', '.join(rows)}")
    if not asked and len(variants) != 1:
        raise ValueError(
            f"{location} has the variants {', '.join(variants) or 'none'}: say which with --variant or --against"
        )
    return asked or variants[0]


def by_clip(scores: Sequence[ClipScore], variant: str) -> dict[tuple[str, str], dict[str, float]]:
    """Scores by clip, the mean over its ways."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for score in scores:
        if score.row == variant:
            for name, value in score.values.items():
                found.setdefault(score.clip, {}).setdefault(name, []).append(value)
    return {clip: {name: float(np.mean(v)) for name, v in values.items()} for clip, values in found.items()}


def _read(location: str) -> dict[str, Any]:
    fs, root = open_filesystem(location)
    if not fs.exists(f"{root}/{FILE}"):
        raise FileNotFoundError(
            f"no {FILE} in {location}: run `spfem evaluate generator {location}` first (of real films: `spfem evaluate real`)"
        )
    with fs.open(f"{root}/{FILE}", "r") as f:
        data = json.load(f)
    if data.get("format") != FORMAT:
        raise ValueError(f"{location}/{FILE} has format {data.get('format')!r}, expected {FORMAT!r}: evaluate again")
    return data
