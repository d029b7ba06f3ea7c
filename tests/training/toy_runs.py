"""What the training tests share: the toy recipe started in each way, and the losses that it left."""

import json
from pathlib import Path

from doors import PATIENCE, Ended, command, process

RECIPE = str(Path(__file__).with_name("toy_recipe.py"))


def alone(storage, *arguments, **environment) -> Ended:
    """`python toy_recipe.py --local ...`: one process, no Ray."""
    return together(1, storage, "--local", *arguments, **environment)


def together(workers, storage, *arguments, recipe=RECIPE, **environment) -> Ended:
    """The processes that torchrun would start, without its own seconds."""
    places = ["--checkpoint.storage", storage]
    return command("python", recipe, *places, *arguments, workers=workers, timeout=PATIENCE, **environment)


def launched(storage, *arguments, launcher=(), recipe=RECIPE, **environment) -> Ended:
    """`python LAUNCHER toy_recipe.py ...` in processes of its own; without a launcher that is Ray Train."""
    return process(*launcher, recipe, "--checkpoint.storage", storage, *arguments, **environment)


def losses(storage) -> dict[int, float]:
    """The training loss by step, of the run's history."""
    rows = json.loads((Path(storage) / "toy" / "first" / "history.json").read_text())
    return {row["step"]: row["values"]["train/toy/error"] for row in rows if "train/toy/error" in row["values"]}


def state(storage) -> dict:
    """How the job says that it stands."""
    return json.loads((Path(storage) / "toy" / "first" / "state.json").read_text())
