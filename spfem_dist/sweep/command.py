"""The command of `recipes/sweep.py`: read the line, draw the trials, search, show."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from spfem_dist.console import plain_console
from spfem_dist.errors import errors_in_words, read_words
from spfem_dist.ray_address import authenticate
from spfem_dist.sweep import FAILED, show
from spfem_dist.sweep.record import Plan, Sweep
from spfem_dist.sweep.space import SpaceError, parse
from spfem_dist.training import launch, ready


@dataclass
class Options:
    """Search over the settings of a recipe."""

    recipe: Annotated[str, tyro.conf.Positional]
    """A recipe: its name, or the path of its script."""
    metric: str
    """What trials are judged by: a held-out figure, as MLflow names it (val/...)."""
    space: tuple[str, ...]
    """FIELD=KIND:VALUES for each field that is searched; KIND: uniform, loguniform, randint, lograndint (two ends), choice, grid (values)."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more of the metric is better."""
    trials: int = 8
    """How often the space is drawn; with grid fields each draw has every point of the grid. Of a sweep that goes on it may grow."""
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    """asha stops trials that fall behind; pbt trains a population, whose worst go on from the best; none trains all to the end."""
    patience: int = 1
    """Validations before asha may stop a trial, or between two exchanges of pbt."""
    reduction: int = 3
    """asha lets one of so many trials go on, each time."""
    name: str = ""
    """The sweep's name; its trials are NAME-t000, ... Empty: that of the recipe's run and -sweep."""
    draws: int = 0
    """Seed of what is drawn; --seed is that of the trials' runs."""
    concurrent: int = 0
    """Trials side by side at most; 0: as many as there is room for."""
    retries: int = 2
    """Starts of a trial again after its process or its node was lost."""
    local: bool = False
    """Each trial is one process, without Ray Train."""
    dry_run: bool = False
    """Start nothing; show the trials."""
    quiet: bool = False
    """Show no progress."""


def main(description: str) -> None:
    """Search, and say what was found. Ends the process with 0, 1 (failed), 2 (a bad value) or 130 (stopped)."""
    options, given = read_words(
        lambda words: tyro.cli(Options, args=words, description=description, return_unknown_args=True), sys.argv[1:]
    )
    console = plain_console(quiet=options.quiet)
    with errors_in_words():
        recipe, stage = launch.recipe_at(options.recipe)
    base = launch.parse(recipe, given).run
    with errors_in_words():
        base = base.absolute()
        authenticate()  # before Ray is imported, for its distributions
        sweep = Sweep(plan_of(options, base.name), base, parse(base, options.space))
        _refuse_what_cannot_be_searched(sweep)
        before = sweep.open()
        ended = len(sweep.trials) - len(sweep.pending())
        console.print(
            f"{'going on with' if before else 'starting'} sweep {sweep.plan.name!r} in {sweep.location}: "
            f"{len(sweep.trials)} trials of {base.recipe or options.recipe}, {ended} of them ended"
        )
        if options.dry_run:
            plain_console(soft_wrap=False).print(show.table(sweep))
            return
        ready.check(base, stage, on_ray=not options.local)
        from spfem_dist.sweep.search import search

        status = search(sweep, options.recipe, stage, console, options.local, options.concurrent, options.retries)
        show.report(sweep, plain_console(), options.recipe, given, options.local)
        if status == "stopped":
            print(f"stopped; the same command goes on with sweep {sweep.plan.name!r}")
            sys.exit(130)
        if all(trial.ended == FAILED for trial in sweep.trials):
            raise SpaceError(f"every trial failed; the first: {sweep.trials[0].reason}")


def plan_of(options: Options, run: str) -> Plan:
    """What the options ask for. run: the name of the recipe's run."""
    shared = ("metric", "mode", "scheduler", "trials", "patience", "reduction")
    return Plan(options.name or f"{run}-sweep", **{key: getattr(options, key) for key in shared}, seed=options.draws)


def _refuse_what_cannot_be_searched(sweep: Sweep) -> None:
    plan, base = sweep.plan, sweep.base
    for name, least in (("trials", 1), ("patience", 1), ("reduction", 2)):
        if getattr(plan, name) < least:
            raise SpaceError(f"--{name} {getattr(plan, name)}: at least {least}")
    if not base.validation.every_steps:
        raise SpaceError("trials are judged by held-out figures: give --validation.every-steps 1 or more")
    if not plan.metric.startswith("val/"):
        raise SpaceError(f"--metric {plan.metric!r} is no held-out figure: give one as MLflow names it, val/...")
    if plan.scheduler == "pbt" and len(base.jobs()) > 1:
        raise SpaceError(
            f"a population goes on from the checkpoint of one job, and this run trains {' and '.join(base.jobs())}: "
            "turn the others off (--JOB.enabled False)"
        )
    if plan.scheduler == "pbt" and plan.trials < 2:
        raise SpaceError(f"--trials {plan.trials}: a population has at least two")
