"""What an attempt is made of: chance, files to spoil, and the words of commands that read them."""

import random
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bad import value
from children import ROOT, WORK
from ground import TINY, Ground

from spfem_dist.training.launch import recipe_at
from spfem_dist.training.usage import fields

RECIPES = (
    "cdrl_stage1",
    "cdrl_stage2",
    "asccl_stage1",
    "family_stage1",
    "pcmecl_stage1",
    "icface_stage2",
    "sserd_stage1",
    "sserd_stage2",
    "compose",
    "metric_nets",
)


@dataclass
class Making:
    chance: random.Random
    ground: Ground
    folder: Path
    more: dict[str, str] = field(default_factory=dict)
    work: float = WORK

    def copy(self, source: Path, name: str = "") -> Path:
        return Path(shutil.copytree(source, self.folder / (name or source.name)))

    def shards(self) -> Path:
        return self.copy(self.ground.toy / "shards")

    def film(self) -> Path:
        shutil.copy(self.ground.films / "talk.npy", self.folder / "talk.npy")
        return Path(shutil.copy(self.ground.films / "talk.mp4", self.folder / "talk.mp4"))


@cache
def settings_of(recipe: str) -> tuple[str, ...]:
    made, _ = recipe_at(str(ROOT / "recipes" / f"{recipe}.py"))
    return tuple(f"--{name.replace('_', '-')}" for name, _, _ in fields(made()))


def recipe_words(making: Making, recipe: str, *more: str, changes: int = 2, storage: str = "runs") -> list[str]:
    """A recipe's call with settings that make no sense."""
    chance, ground = making.chance, making.ground
    words = ["--data.shards", str(ground.toy / "shards"), "--data.split", str(ground.toy / "split.json"), *TINY]
    words += ["--checkpoint.storage", storage, "--name", "r"]
    if "--priors" in settings_of(recipe):
        words += ["--priors", str(ground.toy / "stage1")]
    words += more
    for _ in range(changes):
        words += [
            chance.choice(settings_of(recipe)),
            *(value(chance) for _ in range(chance.choice([0, 1, 1, 1, 1, 1, 2, 3]))),
        ]
    if chance.random() < 0.1:
        words += ["--preset", value(chance)]
    return words


def started(making: Making, recipe: str) -> list[str]:
    if making.chance.random() < 0.5:
        return ["spfem", "train", recipe]
    return ["python", str(ROOT / "recipes" / f"{recipe}.py")]


def edit_of(film: str, *more: str) -> list[str]:
    """An edit of a film whose landmarks lie beside it."""
    return ["spfem", "edit", film, "--faces", "aligned", "--landmarks", "talk.npy", *more]
