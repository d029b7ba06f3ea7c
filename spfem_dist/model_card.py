"""The README.md beside exported weights: what they are, what they learnt from, how they score, what they are for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from spfem_dist import rooms
from spfem_dist.evaluation.generator import BETTER, COPY, MEANING, ROWS, TARGET
from spfem_dist.saved import what_of

USE = {
    "generator": "    spfem edit talk.mp4 --emotion happy --out edited.mp4 --generator FOLDER\n\n"
    "or, in Python, `spfem_dist.generators.load.load_generator(FOLDER)`.",
    "compositor": "    spfem edit talk.mp4 --emotion happy --out edited.mp4 --compose FOLDER\n\n"
    "or, in Python, `spfem_dist.compositors.load.load_compositor(FOLDER)`.",
    "prior": "    python recipes/cdrl_stage2.py --priors FOLDER\n\nor, in Python, `spfem_dist.priors.prior.load_prior(FOLDER)`.",
}
LIMITS = """\
For research on faces of people who agreed to it. Whoever shows an edited face to others labels it as edited. Not for putting words or
feelings on people who did not agree, nor for judging what anybody feels: the emotions are those that actors were asked to play.

It was trained on the recordings named above and knows frontal faces like those. Other light, head poses, ages, skin tones or languages
than the recordings hold are not measured here, and figures on a synthetic corpus say nothing about recorded faces."""
LICENCE = """\
The code is under Apache-2.0. The weights were learnt from the data named above: the terms of those data bind them, and whoever hands the
weights on keeps to those terms."""


def model_card(
    run: Mapping[str, Any], config: Mapping[str, Any], dataset: Mapping[str, str], summary: Mapping[str, Any]
) -> str:
    """Markdown. run: the run's run.json. config: the exported config.json. dataset: corpus and digest of its shards, empty where
    they cannot be read. summary: the run's summary.json, empty where nothing was scored.
    """
    settings, facts = config["settings"], config["facts"]
    what, name = what_of(config), config["kind"]
    generator = what == "generator"
    data = config["data"]
    card = rooms.find(f"{what}s", name).CARD
    about = card.about.format(size=data["size"], topology=config.get("topology", ""), form=settings["form"])
    figures = list(_FIGURES[what](summary, name))
    parts = [
        f"---\nlibrary_name: spfem-dist\ntags: [talking-face, facial-expression, {name}]\n---",
        f"# {run.get('name', facts.get('run', name))}: {card.title}",
        about,
        "## Use",
        USE[what],
        "## Training",
        "\n".join(_training(settings, data, dataset, facts)),
    ]
    if generator:
        parts += ["## Priors", "\n".join(_priors(facts, settings))]
    parts += [
        "## Figures",
        "\n".join(figures) if figures else "Not scored yet: see `spfem evaluate` in the project's documentation.",
        "## Intended use and limits",
        LIMITS,
        "## Licence",
        LICENCE,
        "## Settings",
        f"```json\n{json.dumps(settings, indent=2, sort_keys=True)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _training(
    settings: Mapping[str, Any], data: Mapping[str, Any], dataset: Mapping[str, str], facts: Mapping[str, Any]
) -> Iterator[str]:
    """What it learnt from. Folders are named without what lies above them: that is nobody else's business."""
    shards = str(data["shards"]).rstrip("/").rsplit("/", 1)[-1]
    if dataset:
        yield f"- shards `{shards}`: corpus {dataset['corpus']}, sha256 `{dataset['digest']}`"
    else:
        yield f"- shards `{shards}`, which could not be read when this was written"
    yield f"- split `{str(data['split']).rsplit('/', 1)[-1]}`, training part"
    yield f"- {facts.get('steps', '?')} optimiser steps, {facts.get('samples', '?')} samples, seed {facts.get('seed', '?')}"
    if half_life := settings.get("half_life"):
        yield f"- these are not the last weights but their exponential moving average, of half-life {half_life:g} (see Settings)"


def _priors(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    sources = facts.get("priors", {})
    if not sources:
        yield "None: it was trained without guidance."
        return
    weights = settings.get("guidance", {})
    yield "| prior | from | weight | sha256 |"
    yield "|---|---|---|---|"
    for name, source in sources.items():
        where = source["from"].rstrip("/").rsplit("/", 1)[-1]
        yield f"| {name} | {where} | {weights.get(name, 1.0)} | `{source['sha256']}` |"
    placement = f"Placement: {settings['guidance_placement']}. " if "guidance_placement" in settings else ""
    yield f"\n{placement}They stood still: the sums were checked when training ended."


def _generator_figures(summary: Mapping[str, Any], name: str) -> Iterator[str]:
    stage, spans, facts = (
        part.get("stage2", {}) for part in (summary, summary.get("intervals", {}), summary.get("facts", {}))
    )
    for variant in (name for name in stage if name not in (*ROWS, "real")):
        judged = facts.get(variant, {})
        yield f"Held-out clips, variant `{variant}`; judged by {judged.get('judges', 'unknown judges')}.\n"
        yield f"| figure | {variant} | 95 % | source unchanged | true target | meaning |"
        yield "|---|---|---|---|---|---|"
        for figure in BETTER:
            if (value := stage[variant].get(figure)) is not None:
                others = (_number(stage.get(row, {}).get(figure)) for row in (COPY, TARGET))
                span = _span(spans.get(variant, {}).get(figure))
                yield f"| {figure} | {_number(value)} | {span} | {' | '.join(others)} | {MEANING.get(figure, '')} |"
        yield ""


def _prior_figures(summary: Mapping[str, Any], name: str) -> Iterator[str]:
    family = rooms.find("priors", name).CARD.family or name
    own, spans = (part.get("priors", {}).get(family, {}) for part in (summary, summary.get("intervals", {})))
    if own:
        yield "Held-out speakers and sentences.\n"
        yield "| figure | value | 95 % |"
        yield "|---|---|---|"
    for figure, value in own.items():
        if isinstance(value, int | float):
            yield f"| {figure} | {_number(value)} | {_span(spans.get(figure))} |"


def _compositor_figures(summary: Mapping[str, Any], name: str) -> Iterator[str]:
    own, spans = (part.get("compositor", {}) for part in (summary, summary.get("intervals", {})))
    for condition, rows in own.items():
        yield f"Held-out speakers, the head {condition}.\n"
        figures = sorted({figure for row in rows.values() for figure in row})
        yield f"| way | {' | '.join(figures)} |"
        yield f"|---|{'---|' * len(figures)}"
        for row, values in rows.items():
            cells = [f"{_number(values.get(f))} {_span(spans[condition][row].get(f))}".strip() for f in figures]
            yield f"| {row} | {' | '.join(cells)} |"
        yield ""


_FIGURES = {"generator": _generator_figures, "compositor": _compositor_figures, "prior": _prior_figures}


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def _span(span: Any) -> str:
    if not isinstance(span, Mapping) or span.get("low") is None:
        return ""
    return f"{_number(span['low'])} .. {_number(span['high'])}"
