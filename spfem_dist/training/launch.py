"""From a recipe to trained networks: read the command line, pick how to start, watch, and say how it ended.

python recipes/R.py                          Ray Train; a local Ray where no cluster runs
ray job submit --working-dir . -- python recipes/R.py
python recipes/R.py --local                  this process, no Ray: a breakpoint works
torchrun --nproc-per-node 2 recipes/R.py     plain torch.distributed (accelerate launch likewise)
python recipes/R.py --dry-run                nothing is trained
"""

from __future__ import annotations

import ast
import json
import os
import runpy
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import tyro

from spfem_dist import presets
from spfem_dist.config import Run
from spfem_dist.errors import errors_in_words, read_words
from spfem_dist.faults.inject import not_fired
from spfem_dist.redact import redact, without_credentials
from spfem_dist.stage import Stage
from spfem_dist.storage import set_retry_policy
from spfem_dist.training import usage
from spfem_dist.training.runfolder import LaunchError

#: What the short help says of the options that are no settings of the run.
FLAGS = presets.FLAG | {
    "--local": "Train in this process, without Ray: breakpoints work",
    "--dry-run": "Train nothing; say what would happen",
    "--print-config": "Train nothing; print every setting as JSON",
    "--quiet": "Show no progress",
}

AnyRun = TypeVar("AnyRun", bound=Run)


class _Read(BaseException):
    """Carries a recipe out of its script at the moment it would start; no `except Exception` of a script stops it."""


_reading = False


@dataclass
class Options(Generic[AnyRun]):
    """A training run."""

    run: Annotated[AnyRun, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
    local: bool = False
    """Train in this process, without Ray."""
    dry_run: bool = False
    """Train nothing; say what would happen."""
    print_config: bool = False
    """Train nothing; print every setting as JSON, paths made absolute, without credentials."""
    quiet: bool = False
    """Show no progress; errors and how it ended are still said."""


def main(recipe: Callable[[], Run], stage: Stage, arguments: list[str] | None = None) -> None:
    """Run `recipe` with overrides from the command line. Ends the process with status 0, 1 (failed) or 130 (stopped)."""
    if _reading:
        raise _Read(recipe, stage)
    options = parse(recipe, sys.argv[1:] if arguments is None else arguments)
    with errors_in_words():
        run = options.run.absolute()
        if options.print_config:
            print(json.dumps(without_credentials(run.model_dump(mode="json")), indent=2))
            return
        if run.tracking.uri and options.run.tracking.uri == os.environ.get("MLFLOW_TRACKING_URI") and not options.quiet:
            print(
                f"tracking in {redact(run.tracking.uri)}, as MLFLOW_TRACKING_URI says; --tracking.uri names another store"
            )
        if options.dry_run:
            from spfem_dist.training.plan import show

            show(run, stage)
            return
        if not options.quiet:
            _remark(run)
        status = start(run, stage, local=options.local, quiet=options.quiet)
        for fault in not_fired(run) if status == "finished" else ():
            print(f"fault that did not fire: {fault}")
    if status == "stopped":
        print(f"stopped; a checkpoint is kept. The same command continues run {run.name!r}.")
        sys.exit(130)


def _remark(run: Run) -> None:
    """Say what is odd about shards in a folder (those in S3 are looked at by the dry run); what is wrong with them is said later."""
    from spfem_dist.shard_format import DamagedShard
    from spfem_dist.shard_table import open_index
    from spfem_dist.streaming.store import LocalStore
    from spfem_dist.training.remarks import remarks

    if os.environ.get("RANK", "0") == "0" and "://" not in run.data.shards:
        with suppress(OSError, DamagedShard):
            store = LocalStore(run.data.shards)
            for remark in remarks(run, open_index(store.index(), run.data.shards, store.table)):
                print(f"note: {remark}", flush=True)


def parse(recipe: Callable[[], AnyRun], arguments: list[str]) -> Options[AnyRun]:
    """The recipe's Run with the command line's overrides. A bad value ends the process with its fix, status 2."""
    made, text = recipe(), sys.modules[recipe.__module__].__doc__ or ""
    with errors_in_words():
        arguments = presets.with_preset(made, arguments)
    usage.show_if_asked(arguments, made, text, sys.argv[0], FLAGS)
    kind: type[Options[AnyRun]] = Options[type(made)]  # type: ignore[assignment, misc]  # the recipe decides which fields there are
    with errors_in_words():
        words = usage.with_help_all(arguments, made)
        return read_words(lambda given: tyro.cli(kind, default=Options(made), args=given, description=text), words)


def script(named: str) -> Path:
    """The file of a recipe: `named` is its path, or the name of one that comes with this package. LaunchError where there is none."""
    if Path(named).is_file():
        return Path(named)
    shipped = {file.stem: file for file in map(Path, shipped_recipes())}
    if named in shipped:
        return shipped[named]
    raise LaunchError(
        f"there is no recipe {named}: give the path of a script, or one of those that come with spfem_dist: {', '.join(shipped)}"
    )


def shipped_recipes() -> list[str]:
    """The files of the recipes that come with this package: in a wheel `spfem_dist/recipes`, in a checkout `recipes/`."""
    inside = Path(__file__).parents[1] / "recipes"
    place = inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"
    return sorted(str(file) for file in place.glob("[a-z]*.py"))


def train(arguments: list[str]) -> None:
    """`spfem train RECIPE [OPTIONS]`: run the recipe as `python RECIPE [OPTIONS]` does."""
    if not arguments or arguments[0] in usage.ASKED:
        print(
            "usage: spfem train RECIPE [OPTIONS]\n\nRun a recipe: a script, or one of those that come with spfem_dist.\n"
        )
        for file in shipped_recipes():
            first = (ast.get_docstring(ast.parse(Path(file).read_text())) or "").partition("\n")[0]
            print(f"  {Path(file).stem:<14} {first}")
        print("\nIts options: spfem train RECIPE --help")
        return
    path = str(script(arguments[0]))
    sys.argv = [path, *arguments[1:]]
    sys.path.insert(0, str(Path(path).resolve().parent))  # as `python PATH` has it
    _run(path)


def _run(path: str) -> None:
    """Run the script as the program. LaunchError where it is no Python at all."""
    try:
        runpy.run_path(path, run_name="__main__")
    except SyntaxError as error:
        if error.filename != path:
            raise
        raise LaunchError(f"{path} is no recipe: line {error.lineno} is no Python ({error.msg})") from None


def recipe_at(path: str) -> tuple[Callable[[], Run], Stage]:
    """The recipe and the stage that the script at `path` (see `script`) would start; nothing is started. LaunchError where it starts none."""
    global _reading
    path = str(script(path))
    place = str(Path(path).resolve().parent)
    sys.path.insert(0, place)  # as `python PATH` has it
    _reading = True
    try:
        _run(path)
    except _Read as found:
        return found.args
    finally:
        _reading = False
        sys.path.remove(place)
    raise LaunchError(f"{path} is no recipe: it ends without calling spfem_dist.training.launch.main")


def start(run: Run, stage: Stage, local: bool = False, quiet: bool = False) -> str:
    """Train every job of `run` to its end; returns `finished` or `stopped`. `run` has absolute paths. quiet: show no progress."""
    from spfem_dist.training import ready

    set_retry_policy(run.storage)
    plain = local or _launched()
    ready.check(run, stage, on_ray=not plain)
    if plain:
        from spfem_dist.training.plain import train_plain

        return train_plain(run, stage, quiet)
    from spfem_dist.training.cluster import train_on_ray

    return train_on_ray(run, stage, quiet)


def finished(run: Run, stage: Stage, local: bool = False) -> str:
    """Train `run` to its end, unless an earlier call did: one of several in a script. Returns its folder; a stop ends the process with 130."""
    run = run.absolute()
    if start(run, stage, local=local) != "finished":
        sys.exit(130)
    return run.folder()


def _launched() -> bool:
    """Whether torchrun or `accelerate launch` (which uses torchrun, or for one process only sets variables) started this process.

    Raises LaunchError for variables of several processes that do not say where these meet.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ:
        return True
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return False
    lacking = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if not size.isdecimal() or lacking:
        lacks = (
            f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not set"
            if lacking
            else "that is no number"
        )
        raise LaunchError(
            f"the environment says WORLD_SIZE={size}, as a launcher of several processes does, and {lacks}: start them by "
            "`torchrun --nproc-per-node N RECIPE`, or unset WORLD_SIZE"
        )
    return True
