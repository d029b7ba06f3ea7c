"""A simulated run as a person reads it: beside the plan's arithmetic, and what breaks first, in words and in graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spfem_dist.planning.limits import Reached
from spfem_dist.planning.predict import Prediction
from spfem_dist.planning.simulate import BIN_S, Outcome


def table_of(outcome: Outcome, planned: Prediction) -> Table:
    """Figure for figure: what the plan's arithmetic says, and what the simulated run came to."""
    o, hours = outcome, outcome.hours
    table = Table(
        title=f"{o.case.name}: {o.case.workers:,} workers, {hours:,.1f} hours simulated", title_justify="left"
    )
    for column in ("", "plan", "simulated"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    even = 3600 * hours * planned.samples_per_s
    rows = [
        ("step, ms", f"{planned.step_s * 1e3:,.1f}", f"{o.step_s * 1e3:,.1f}"),
        ("  of it waiting for the slowest", "", f"{o.straggling_s / max(1e-9, o.training_s):.1%}"),
        ("  of it waiting for shards", "", f"{o.data_wait_s / max(1e-9, o.training_s):.1%}"),
        ("samples/s over the whole time", f"{planned.samples_per_s:,.1f}", f"{o.samples / (3600 * hours):,.1f}"),
        ("samples, million", f"{even / 1e6:,.2f}", f"{o.samples / 1e6:,.2f}"),
        ("start, s", "", f"{o.start_s:,.0f}"),
        ("checkpoints", "", f"{o.checkpoints:,}"),
        ("  upload to commit, s", _seconds(planned.upload_s), f"{o.upload_s:.2f}"),
        ("  steps stood still, s each", _seconds(planned.stall_s), f"{o.stall_s / max(1, o.checkpoints):.2f}"),
        ("  requests each", "", f"{np.mean([s.requests for s in o.uploads]) if o.uploads else 0:,.0f}"),
        ("  refused by S3 (503)", "", f"{o.refused_share:.1%}"),
        ("lost hosts", "", f"{o.losses}"),
        ("  outage, s each", "", f"{o.outage_s / max(1, o.losses):,.0f}"),
        ("  reading the checkpoint, s", "", ", ".join(f"{s.seconds:.0f}" for s in o.restores[:4]) or "-"),
        ("  steps made again", "", f"{o.repeated_steps:,}"),
        ("fetched by all nodes, GB", "", f"{o.data_fetched / 1e9:,.1f}"),
        ("S3 requests/s, busiest minute", "", f"{_peak(o, 'reads') + _peak(o, 'writes'):,.0f}"),
        ("MLflow calls/s", "", f"{o.mlflow_calls / (3600 * hours):.1f}"),
        ("  its server busy", "", f"{o.mlflow_busy:.1%}"),
        ("  longest wait for it, s", "", f"{o.mlflow_wait_s:.2f}"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"


def _peak(outcome: Outcome, name: str) -> float:
    return float(outcome.timeline[name].max(initial=0)) / BIN_S


def table_of_limits(found: Sequence[Reached]) -> Table:
    """A row for each limit, a column for each size; those past the bound are marked."""
    table = Table(title="what breaks first, with a lost host in each run", title_justify="left", padding=(0, 0))
    table.add_column("", min_width=24)
    table.add_column("bound", justify="right")
    for workers in found[0].values:
        table.add_column(f"{workers:,}", justify="right", no_wrap=True)
    for row in found:
        cells = [Text(_figure(v), style="red" if v > row.limit.bound else "") for v in row.values.values()]
        table.add_row(row.limit.name, _figure(row.limit.bound), *cells)
    return table


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value else "0"


def words(found: Sequence[Reached], outcomes: dict[int, Outcome]) -> list[str]:
    """What breaks first, and what after that, one sentence each."""
    said: list[str] = []
    for row in found:
        if (at := row.breaks_at) is not None:
            value = f"{_figure(row.values[at])}, bound {_figure(row.limit.bound)} ({row.limit.unit})"
            order = "first" if not said else "then"
            said.append(
                f"{order}, at {at:,} workers: {row.limit.name} ({value}). {row.limit.advice[0].upper()}{row.limit.advice[1:]}."
            )
    ended = [f"{n:,} workers: {o.gave_up}" for n, o in outcomes.items() if o.gave_up]
    most = max(outcomes)
    return [*said, *ended] or [f"nothing breaks up to {most:,} workers"]


def show(console: Console, outcome: Outcome, planned: Prediction) -> None:
    """Print the simulated run beside the plan."""
    console.print(table_of(outcome, planned))
    if outcome.gave_up:
        console.print(f"the run ended: {outcome.gave_up}", style="red")


def show_limits(console: Console, found: Sequence[Reached], outcomes: dict[int, Outcome]) -> None:
    """Print every limit over the sizes, and in words what breaks first."""
    console.print(table_of_limits(found))
    for sentence in words(found, outcomes):
        console.print(sentence)


def draw(file: Path, outcome: Outcome, found: Sequence[Reached]) -> None:
    """The graphs of a simulated run as `file` (SVG, PNG or PDF by its name): what happened over time, and the limits over sizes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots(2, 2)
    hours = np.arange(len(outcome.timeline["samples"])) * BIN_S / 3600
    for place, names, label in (
        (axes[0, 0], ("samples",), "samples/s"),
        (axes[0, 1], ("reads", "writes", "refused"), "requests/s at S3"),
        (axes[1, 0], ("mlflow calls",), "rank 0's calls/s at MLflow"),
    ):
        for name in names:
            place.plot(
                hours,
                np.maximum(outcome.timeline[name], 0) / BIN_S,
                label=name,
                linewidth=0.8,
                rasterized=len(hours) > 3000,
            )
        place.set(xlabel="hours", ylabel=label)
        if len(names) > 1:
            place.legend(fontsize=7)
            place.set_yscale("symlog", linthresh=1)
    for row in found:
        axes[1, 1].plot(
            list(row.values), [max(v / row.limit.bound, 1e-4) for v in row.values.values()], ".-", label=row.limit.name
        )
    axes[1, 1].axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes[1, 1].set(xscale="log", yscale="log", xlabel="workers", ylabel="figure / bound")
    if found:
        axes[1, 1].legend(fontsize=5)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
