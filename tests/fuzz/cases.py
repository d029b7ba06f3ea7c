"""Attempts: a command with something wrong in it, or in what it reads. The same seed and number give the same attempt."""

import contextlib
import importlib
import io
import os
import pkgutil
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import command_lines
import spoilt_files
import spoilt_tables
from children import ROOT, WORK
from ground import Ground, environment
from making import RECIPES, Making
from verdict import CANARY

import spfem_dist
from spfem_dist.training.launch import Options, recipe_at


@dataclass
class Attempt:
    """A command, its folder and environment. work: seconds until Ctrl-C."""

    kind: str
    words: list[str]
    folder: Path
    environment: dict[str, str]
    work: float = WORK


def attempt(seed: int, number: int, ground: Ground, folder: Path, kinds: tuple[str, ...] = ()) -> Attempt:
    """The attempt of that number. folder: an empty one, in which the command will run. kinds: only of these."""
    chance = random.Random(f"{seed}/{number}")
    chosen = {kind: KINDS[kind] for kind in kinds or KINDS}
    [kind] = chance.choices(list(chosen), [weight for weight, _ in chosen.values()])
    for name in ("home", "tmp"):
        (folder / name).mkdir(parents=True)
    for name, target in {"zero": "/dev/zero", "full": "/dev/full", "mem": "/proc/self/mem", "circle": "circle"}.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe")
    making = Making(chance, ground, folder)
    words = chosen[kind][1](making)
    secrets = {"AWS_ACCESS_KEY_ID": f"{CANARY}-id", "AWS_SECRET_ACCESS_KEY": f"{CANARY}/key+x"}
    secrets |= {
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": f"{CANARY} word",
        "OTHER_API_TOKEN": f"{CANARY}:t",
    }
    words = [word.replace("\0", "") for word in words]
    return Attempt(kind, words, folder, environment(folder, **(secrets | making.more)), making.work)


def warm_up() -> None:
    """Import what commands import, and read the recipes' settings once: both cost seconds, which no child spends again."""
    import deepspeed  # noqa: F401
    import mlflow  # noqa: F401
    import tyro

    for module in pkgutil.walk_packages(spfem_dist.__path__, "spfem_dist."):
        if (
            not module.name.startswith(("spfem_dist.web", "spfem_dist.doctor", "spfem_dist.training.cluster"))
            and "__main__" not in module.name
        ):
            importlib.import_module(module.name)
    for recipe in RECIPES:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            made = recipe_at(str(ROOT / "recipes" / f"{recipe}.py"))[0]()
            tyro.cli(Options[type(made)], default=Options(made), args=["--name", "r"])


#: Kind -> how often, and what makes one.
KINDS: dict[str, tuple[float, Callable[[Making], list[str]]]] = {
    "arguments": (22, command_lines.with_arguments),
    "settings": (22, command_lines.with_settings),
    "plan": (4, command_lines.with_plan),
    "environment": (4, command_lines.with_environment),
    "addresses": (8, command_lines.with_addresses),
    "stored": (10, spoilt_files.with_stored),
    "shards": (8, spoilt_files.with_shards),
    "films": (5, spoilt_files.with_films),
    "landmarks": (4, spoilt_files.with_landmarks),
    "weights": (4, spoilt_files.with_weights),
    "tables": (4, spoilt_tables.with_tables),
    "features": (2, spoilt_tables.with_features),
    "sweeps": (4, spoilt_tables.with_sweeps),
    "own": (2, spoilt_tables.with_own_commands),
    "trained": (1.5, spoilt_files.with_trained),
    "tracked": (1, spoilt_files.with_tracked),
    "stopped": (1.5, spoilt_files.with_stopped),
}
