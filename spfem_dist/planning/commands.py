"""`spfem doctor` and `spfem plan`: commands that take a recipe and every flag of its run, and train nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from spfem_dist.config import Run
from spfem_dist.console import plain_console
from spfem_dist.errors import read_words
from spfem_dist.planning.constants import Constants, assumed, read, with_cluster
from spfem_dist.planning.measure import measured
from spfem_dist.planning.show import shape_of, show
from spfem_dist.planning.simulated import SimulationOptions, opened_index, simulated
from spfem_dist.presets import with_preset
from spfem_dist.ray_address import authenticate
from spfem_dist.stage import Stage
from spfem_dist.training import usage
from spfem_dist.training.launch import recipe_at

AnyRun = TypeVar("AnyRun", bound=Run)


@dataclass
class Doctor(Generic[AnyRun]):
    """Look at the cluster that a run would join: nodes, versions, memory, network, storage, shards, tracking. Status 1 where a check fails."""

    run: Annotated[AnyRun, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
    json: bool = False
    """Print the findings as JSON."""
    probe_mb: int = 64
    """Size of the all-reduce probe, MiB."""


def doctor(arguments: Sequence[str]) -> int:
    """`spfem doctor [RECIPE] [--flags of the run]`; returns the exit status."""
    made, _, rest = _recipe(arguments)
    options: Doctor[Run] = _options(Doctor, made, rest, "spfem doctor")
    from spfem_dist.doctor.examine import report

    authenticate()
    return report(options.run.absolute(), options.probe_mb, options.json)


def _recipe(arguments: Sequence[str]) -> tuple[Run, Stage | None, list[str]]:
    """(settings, stage, other arguments): of the recipe that stands first, or plain settings where none does."""
    if not arguments or arguments[0].startswith("-"):
        return Run(), None, list(arguments)
    recipe, stage = recipe_at(arguments[0])
    made = recipe()
    return made, stage, with_preset(made, arguments[1:])


def _options(kind: Any, made: Run, arguments: list[str], program: str) -> Any:
    usage.show_if_asked(arguments, made, kind.__doc__, program, FLAGS[kind])
    words = usage.with_help_all(arguments, made)
    return read_words(lambda given: tyro.cli(kind[type(made)], default=kind(made), args=given, prog=program), words)


@dataclass
class Plan(Generic[AnyRun]):
    """Predict a run on N workers: memory, samples/s, communication, S3 bandwidth, hours, checkpoints. Nothing is trained to its end."""

    run: Annotated[AnyRun, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
    workers: tuple[int, ...] = (1, 2, 8, 64)
    """Numbers of workers to predict."""
    per_worker: int | None = None
    """Samples of each worker; the global batch grows with the workers. Empty keeps the run's global batch."""
    per_node: int | None = None
    """Workers of one node; empty means 8 GPUs, or as many CPU workers as were measured side by side."""
    measure: bool = False
    """Measure this machine by short runs of the recipe's own jobs."""
    measure_workers: int = 2
    """Processes of that measurement."""
    shares: tuple[int, ...] = ()
    """Samples of a worker to measure; empty means a third, two thirds and all of the global batch."""
    steps: int = 18
    """Optimiser steps of each measurement."""
    save: Path | None = None
    """Write the measured constants to this JSON file."""
    constants: Path | None = None
    """Take the constants from such a file."""
    assume: str = ""
    """Take shipped assumptions about a GPU: h100 or a100."""
    cluster: Path | None = None
    """Take all-reduce and storage speed from what `spfem doctor --json` printed on the cluster."""
    bandwidth: float | None = None
    """Bus bandwidth of an all-reduce between the workers, bytes/s; overrides every other."""
    simulate: bool = False
    """Run the last of `workers` in virtual time too, by the loop's own schedule, and say what breaks first as they become more."""
    hours: float = 24.0
    """Hours to simulate."""
    lost: tuple[float, ...] | None = None
    """Hours at which a host is lost; empty draws them."""
    shards_times: int = 1
    """Simulate so many times the shards that there are."""
    until: int = 4096
    """Largest number of workers of the search for what breaks first; 0 leaves it out."""
    graphs: Path | None = None
    """Draw the simulated run of each job to a file named like this one, such as scale.svg (scale-JOB.svg)."""
    json: bool = False
    """Print constants and predictions as JSON."""


#: What the short help says of the options that are no settings of the run.
FLAGS = {
    Doctor: {"--json": "Print the findings as JSON", "--probe-mb": "Size of the all-reduce probe, MiB [64]"},
    Plan: {
        "--workers": "Numbers of workers to predict [1 2 8 64]",
        "--per-worker": "Samples of each worker; the global batch grows with the workers",
        "--measure": "Measure this machine by short runs of the recipe's own jobs",
        "--save": "Write the measured constants to this JSON file",
        "--constants": "Take the constants from such a file",
        "--assume": "Take shipped assumptions about a GPU: h100 or a100",
        "--cluster": "Take network and storage speed from what `spfem doctor --json` printed",
        "--simulate": "Run the last of --workers in virtual time, and say what breaks first",
        "--hours": "Hours to simulate \\[24]",
        "--graphs": "Draw the simulated run to this file",
        "--json": "Print constants and predictions as JSON",
    },
}


def plan(arguments: Sequence[str]) -> int:
    """`spfem plan RECIPE [--flags]`; returns the exit status."""
    made, stage, rest = _recipe(arguments)
    if stage is None:
        wanted = [word for word in rest if word in (*usage.ASKED, "--help-all")]
        if not wanted:
            raise ValueError("name the recipe first: spfem plan recipes/cdrl_stage1.py --workers 8 64 --measure")
    options: Plan[Run] = _options(Plan, made, rest, "spfem plan")
    assert stage is not None
    run = options.run.absolute()
    for flag, numbers in (("--workers", options.workers), ("--per-worker", (options.per_worker,))):
        if any(number is not None and number < 1 for number in numbers):
            raise ValueError(f"{flag} {' '.join(map(str, numbers))}: give numbers of 1 or more")
    constants = _constants(options, run, arguments[0])
    per_node = options.per_node or _per_node(constants)
    console = plain_console(soft_wrap=False, stderr=options.json)
    shapes = {name: shape_of(run, stage, name) for name in stage.jobs(run)}
    found = show(console, run, shapes, constants, options.workers, options.per_worker, per_node)
    came_to = {}
    if options.simulate:
        index = opened_index(run) if stage.reads_shards else None
        how = SimulationOptions(options.hours, options.lost, options.until, options.shards_times, options.graphs)
        for name, rows in found.items():
            if rows:
                came_to[name] = simulated(console, run, shapes[name], rows[-1], constants, per_node, name, index, how)
    if options.json:
        rows_of = {name: [asdict(p) | {"samples_per_s": p.samples_per_s} for p in rows] for name, rows in found.items()}
        facts = {"constants": constants.model_dump(mode="json"), "predictions": rows_of}
        print(json.dumps(facts | ({"simulated": came_to} if came_to else {})))
    return 0


def _constants(options: Plan[Run], run: Run, recipe: str) -> Constants:
    if options.measure:
        constants = measured(recipe, run, options.measure_workers, _shares(run, options.shares), options.steps)
        if options.save:
            options.save.write_text(constants.model_dump_json(indent=2) + "\n")
    elif options.constants:
        constants = read(options.constants)
    elif options.assume:
        constants = assumed(options.assume)
    else:
        raise ValueError(
            "a plan needs constants: --measure here, --constants FILE from an earlier measurement, or --assume h100"
        )
    if options.cluster:
        constants = with_cluster(constants, options.cluster)
    if options.bandwidth:
        constants.bandwidth = options.bandwidth
    return constants


def _shares(run: Run, shares: tuple[int, ...]) -> dict[str, Sequence[int]]:
    """Sizes to measure, for each job: those asked for, or three up to its global batch."""
    return {
        name: sorted(shares or {max(1, round(job.global_batch * part / 3)) for part in (1, 2, 3)})
        for name, job in run.jobs().items()
    }


def _per_node(constants: Constants) -> int:
    if constants.unit == "GPU":
        return 8
    return max((n for job in constants.jobs.values() for n in job.contention), default=1)
