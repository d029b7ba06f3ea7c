"""What a sweep found, for a person: a table, a picture, the command that trains the best in full."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spfem_dist.console import plain_console
from spfem_dist.redact import redact
from spfem_dist.sweep import FAILED
from spfem_dist.sweep.record import Sweep
from spfem_dist.sweep.space import flags
from spfem_dist.tracking import sweeps as tracking
from spfem_dist.tracking.store import experiment_page, open_experiment

_COLOURS = {"finished": "#0072b2", "stopped early": "#e69f00", "": "#999999"}


def table(sweep: Sweep) -> Table:
    """The trials, the best first."""
    shown = Table()
    for title in ("trial", *(one.field for one in sweep.dimensions), sweep.plan.metric, "samples", "ended"):
        shown.add_column(title, overflow="fold")
    best = sweep.best()
    for trial in sweep.ranked():
        cells = [
            (trial.run or trial.name).removeprefix(f"{sweep.plan.name}-"),
            *(_short(trial.values[one.field]) for one in sweep.dimensions),
            "" if trial.figure is None else f"{trial.figure:.5g}",
            f"{trial.samples:,}",
            trial.ended or "not yet",
        ]
        shown.add_row(*(Text(cell) for cell in cells), style="bold" if trial is best else "")
    return shown


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def command(sweep: Sweep, recipe: str, given: Sequence[str], local: bool) -> str:
    """The command that trains the best trial as a run of its own, with all its steps and whatever the recipe does at its end.

    recipe: as it was given to the sweep; given: the recipe's own words on the sweep's command line.
    """
    best = sweep.best()
    if best is None:
        return ""
    script = recipe if Path(recipe).suffix else f"recipes/{recipe}.py"
    words = [redact(word) for word in given] + flags(best.values)
    words += ["--name", f"{sweep.plan.name}-best"] + (["--local"] if local else [])
    return shlex.join(["python", script, *words])


def picture(sweep: Sweep) -> Any:
    """The metric against every field that was searched, a panel each: a figure of matplotlib. None where no trial has a figure."""
    from matplotlib.figure import Figure

    there = [t for t in sweep.trials if t.figure is not None and t.ended != FAILED]
    if not there:
        return None
    figure = Figure(figsize=(3.4 * len(sweep.dimensions) + 0.6, 3.2), layout="constrained")
    panels = figure.subplots(1, len(sweep.dimensions), sharey=True, squeeze=False)[0]
    for axes, one in zip(panels, sweep.dimensions, strict=True):
        numbers = all(type(t.values[one.field]) in (int, float) for t in there)
        for ended, colour in _COLOURS.items():
            mine = [t for t in there if t.ended == ended]
            x = [t.values[one.field] if numbers else str(t.values[one.field]) for t in mine]
            if mine:
                axes.scatter(x, [t.figure for t in mine], c=colour, label=ended or "not yet", s=28)
        axes.set_xlabel(one.field)
        if one.logarithmic:
            axes.set_xscale("log")
    panels[0].set_ylabel(sweep.plan.metric)
    panels[-1].legend(fontsize="small")
    return figure


def report(sweep: Sweep, console: Console, recipe: str, given: Sequence[str], local: bool) -> None:
    """Print table, best and command, and add them to the sweep's run in MLflow, with a saved view of its trials."""
    plain_console(soft_wrap=False).print(table(sweep))
    best, again = sweep.best(), command(sweep, recipe, given, local)
    if best is None:
        console.print("no trial has a figure yet")
        return
    console.print(f"best: {best.run or best.name}, {sweep.plan.metric} {best.figure:.5g}. In full:\n  {again}")
    if best.run not in ("", best.name):
        console.print(
            "its values changed on the way: what it has learnt lies in its folder alone, the command begins with the last"
        )
    place = sweep.base.tracking
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch, "best.sh")]
        files[0].write_text(f"{again}\n")
        if drawn := picture(sweep):
            files.append(Path(scratch, "sweep.png"))
            drawn.savefig(files[1], dpi=110)
        tracking.keep_result(place, sweep.mlflow_run, best.figure or 0.0, files)
    fields = [one.field for one in sweep.dimensions]
    if key := tracking.keep_view(place, sweep.plan.name, fields, sweep.plan.metric, sweep.plan.mode):
        page = experiment_page(open_experiment(place.uri, place.experiment), view=key)
        console.print(f"in MLflow, as parallel coordinates: {page}")
