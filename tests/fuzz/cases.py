"""Attempts: a command with something wrong in it, or in what it reads. The same seed and number give the same attempt."""

import contextlib
import importlib
import inspect
import io
import os
import pkgutil
import random
import shutil
import tarfile
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bad import damaged, secret, spoil, spoil_shards, value
from children import ROOT, WORK
from ground import STAGE1, STAGE2, TINY, Ground, environment
from verdict import CANARY

import spfem_dist
from spfem_dist import cli
from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.training.launch import Options, recipe_at
from spfem_dist.training.usage import fields

RECIPES = (
    "cdrl_stage1",
    "cdrl_stage2",
    "asccl_stage1",
    "family_stage1",
    "pcmecl_stage1",
    "icface_stage2",
    "metric_nets",
)
#: Files by names that people and machines give.
FILM_NAMES = [
    "t[red]x.mp4",
    "[x.mp4",
    "a b.mp4",
    "-x.mp4",
    "é.mov",
    "日本.mkv",
    "a\nb.mp4",
    "\udcff.mp4",
    "%s.mp4",
    "x.MP4",
    ".mp4",
]
FILM_NAMES += [
    f"{CANARY[:3]}{'a' * 240}.mp4",
    "{0}.mp4",
    ":smile:.mp4",
    "a'b\".mp4",
    "x.mp4.avi",
    "\x1b[31mred.mp4",
    "~.mp4",
]


@dataclass
class Attempt:
    """A command, its folder and environment. work: seconds until Ctrl-C."""

    kind: str
    words: list[str]
    folder: Path
    environment: dict[str, str]
    work: float = WORK


@dataclass
class _Making:
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
    making = _Making(chance, ground, folder)
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


# --- command lines ------------------------------------------------------------------------------------------------


@cache
def _signatures() -> dict[str, tuple[int, tuple[str, ...]]]:
    """Command -> number of positional words, and its flags, of which some take a word."""
    commands: dict[str, Callable[..., Any]] = {
        **{"edit": cli.edit, "demo": cli.demo, "export": cli.export, "data show": cli.show_data},
        **{"evaluate priors": cli.evaluate_priors, "evaluate generator": cli.evaluate_generator},
        **{
            "evaluate real": cli.evaluate_real,
            "evaluate judges": cli.evaluate_judges,
            "evaluate units": cli.evaluate_units,
        },
        **{
            "evaluate compare": cli.evaluate_compare,
            "weights list": cli.list_weights,
            "weights pull": cli.pull_weights,
        },
        "weights check": cli.check_weights,
    }
    found = {}
    for name, function in commands.items():
        hints = typing.get_type_hints(function, include_extras=True)
        names = inspect.signature(function).parameters
        positional = [n for n in names if typing.get_origin(hints[n]) is typing.Annotated]
        found[name] = (len(positional), tuple(f"--{n.replace('_', '-')}" for n in names if n not in positional))
    settings = tuple(f"--{n.replace('_', '-')}" for n in PrepareSettings.model_fields if n not in ("corpus", "root"))
    return found | {"prepare": (2, settings)}


@cache
def _settings(recipe: str) -> tuple[str, ...]:
    made, _ = recipe_at(str(ROOT / "recipes" / f"{recipe}.py"))
    return tuple(f"--{name.replace('_', '-')}" for name, _, _ in fields(made()))


def _arguments(making: _Making) -> list[str]:
    """A command with words that say nothing, which ends before it begins, or soon after."""
    chance = making.chance
    command = chance.choice(
        [name for name in _signatures() if name != "demo"] + ["train", "plan", "doctor", "nonsense", ""]
    )
    positional, flags = _signatures().get(command, (1, ("--json", "--workers", "--zero.stage", "--help", "--version")))
    if chance.random() < 0.5 and command in (
        "edit",
        "export",
        "data show",
        "evaluate units",
        "evaluate judges",
        "prepare",
    ):
        making.film()
        making.copy(making.ground.films / "M1")
        making.shards()
    places = ["talk.mp4", "talk.npy", "shards", "M1", "shards/index.json", "happy", "folder", "mead", "auto", "shipped"]

    def word() -> str:
        return chance.choice(places) if chance.random() < 0.4 else value(chance)

    words = [word() for _ in range(max(0, positional + chance.choice([-1, 0, 0, 0, 0, 1])))]
    if command == "prepare" and chance.random() < 0.8:
        words[:1] = [chance.choice(["folder", "mead", "ravdess", "cremad"])]
    for _ in range(chance.choice([0, 1, 1, 2, 3, 5]) if flags else 0):
        flag = chance.choice(flags)
        if flag in ("--ray", "--local"):
            continue
        words += [flag, *(word() for _ in range(chance.choice([0, 1, 1, 1, 1, 2])))]
    if command == "prepare":
        words.append("--local")
    if chance.random() < 0.1:
        chance.shuffle(words)
    if chance.random() < 0.05:
        words.append(chance.choice(["--help", "--version", "-h", "--", "--no-json", "--json=x", "=", "--=x"]))
    return ["spfem", *command.split(), *words]


def _recipe(making: _Making, recipe: str, *more: str, changes: int = 2, storage: str = "runs") -> list[str]:
    """A recipe's call with settings that make no sense."""
    chance, ground = making.chance, making.ground
    words = ["--data.shards", str(ground.toy / "shards"), "--data.split", str(ground.toy / "split.json"), *TINY]
    words += ["--checkpoint.storage", storage, "--name", "r"]
    if recipe in ("cdrl_stage2", "icface_stage2"):
        words += ["--priors", str(ground.toy / "stage1")]
    words += more
    for _ in range(changes):
        words += [
            chance.choice(_settings(recipe)),
            *(value(chance) for _ in range(chance.choice([0, 1, 1, 1, 1, 1, 2, 3]))),
        ]
    if chance.random() < 0.1:
        words += ["--preset", value(chance)]
    return words


def _settings_dry(making: _Making) -> list[str]:
    chance = making.chance
    recipe = chance.choice(RECIPES)
    end = chance.choice(["--dry-run", "--dry-run", "--dry-run", "--print-config", "--help", "--help-all"])
    words = _recipe(making, recipe, end, changes=chance.choice([1, 1, 2, 3]))
    return [*_started(making, recipe), *words]


def _started(making: _Making, recipe: str) -> list[str]:
    if making.chance.random() < 0.5:
        return ["spfem", "train", recipe]
    return ["python", str(ROOT / "recipes" / f"{recipe}.py")]


def _plan(making: _Making) -> list[str]:
    chance = making.chance
    recipe = chance.choice(RECIPES)
    command = chance.choice(["plan", "plan", "doctor"])
    words = _recipe(making, recipe, changes=chance.choice([0, 1]))
    words.remove("--local")
    flags = [
        "--workers",
        "--per-worker",
        "--per-node",
        "--shares",
        "--steps",
        "--save",
        "--constants",
        "--cluster",
        "--bandwidth",
    ]
    flags += ["--assume", "--json", "--probe-mb", "--measure-workers"]
    words += ["--assume", chance.choice(["h100", "a100", value(chance)])] if command == "plan" else []
    constants = ROOT / "spfem_dist" / "planning" / "assumptions"
    if command == "plan" and chance.random() < 0.4:
        file = Path(shutil.copy(chance.choice(sorted(constants.glob("*.json"))), making.folder / "constants.json"))
        spoil(chance, file)
        return [
            "spfem",
            command,
            recipe,
            *words[:-2],
            chance.choice(["--constants", "--constants", "--cluster"]),
            "constants.json",
        ]
    for _ in range(chance.choice([0, 1, 2])):
        words += [chance.choice(flags), *(value(chance) for _ in range(chance.choice([0, 1, 1, 2])))]
    return ["spfem", command, *([recipe] if chance.random() < 0.95 else [value(chance)]), *words]


def _environment(making: _Making) -> list[str]:
    """Sound words in an environment that makes no sense."""
    chance = making.chance
    names = [
        "MLFLOW_TRACKING_URI",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_DEFAULT_REGION",
        "AWS_PROFILE",
        "SPFEM_HOME",
    ]
    names += [
        "WORLD_SIZE",
        "RANK",
        "LOCAL_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        "TORCHELASTIC_RUN_ID",
        "SPFEM_WEIGHTS",
        "TMPDIR",
    ]
    names += [
        "XDG_CACHE_HOME",
        "HOME",
        "SPFEM_ROOMS",
        "SPFEM_STATUS_SECONDS",
        "COLUMNS",
        "LANG",
        "OMP_NUM_THREADS",
        "RAY_ADDRESS",
    ]
    names += [
        "AWS_CONFIG_FILE",
        "MLFLOW_EXPERIMENT_NAME",
        "SPFEM_TRACEBACK",
        "PYTHONIOENCODING",
        "TERM",
        "NO_COLOR",
        "http_proxy",
    ]
    names.remove("SPFEM_TRACEBACK")  # asks for a traceback
    making.more = {name: value(chance) for name in chance.sample(names, chance.choice([1, 1, 2, 3]))}
    for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "SPFEM_HOME"):  # not outside of the folder
        if making.more.get(name, "").startswith("/"):
            making.more[name] = "/proc/x"
    if "MASTER_ADDR" in making.more:
        making.more["MASTER_ADDR"] = "127.0.0.1"  # a name would be looked up
    making.film()
    edit = ["spfem", "edit", "talk.mp4", "--faces", "aligned", "--landmarks", "talk.npy", "--emotion", "happy"]
    dry = [*_started(making, "cdrl_stage1"), *_recipe(making, "cdrl_stage1", "--dry-run", changes=0)]
    at = dry.index("--tracking.uri")
    own = [*dry[:at], *dry[at + 2 :]]
    train = [word for word in dry if word != "--dry-run"]
    listed = ["spfem", "weights", chance.choice(["list", "check"])]
    show = ["spfem", "data", "show", chance.choice([str(making.ground.toy / "shards"), "s3://bucket/shards"])]
    return chance.choice([edit, own, own, dry, listed, show, [*train, *STAGE1]])


def _addresses(making: _Making) -> list[str]:
    """Secrets in addresses, in each place that takes one."""
    chance = making.chance
    uri = secret(chance)
    dry = [
        *_started(making, "cdrl_stage1"),
        *_recipe(making, "cdrl_stage1", chance.choice(["--dry-run", "--print-config"]), changes=0),
    ]
    train = [*_started(making, "cdrl_stage1"), *_recipe(making, "cdrl_stage1", *STAGE1, changes=0)]
    flags = [
        "--tracking.uri",
        "--data.shards",
        "--checkpoint.storage",
        "--data.cache",
        "--tracking.samples",
        "--name",
        "--data.split",
    ]
    flags += [
        "--tracking.experiment",
        "--faults",
        "--tracking.uri",
        "--tracking.uri",
        "--checkpoint.best-metric",
        "--tracking.ur",
    ]
    making.film()
    others = [
        [
            "spfem",
            "edit",
            "talk.mp4",
            "--faces",
            "aligned",
            "--landmarks",
            "talk.npy",
            "--emotion",
            "happy",
            "--generator",
            uri,
        ],
        ["spfem", "edit", uri, "--emotion", "happy"],
        ["spfem", "edit", "talk.mp4", "--emotion", uri],
        ["spfem", "edit", "talk.mp4", "--emotion", "happy", "--out", uri],
        ["spfem", "export", uri],
        ["spfem", "export", str(making.ground.runs / "r"), "--out", uri],
        ["spfem", "evaluate", "priors", uri],
        ["spfem", "evaluate", "generator", uri],
        ["spfem", "evaluate", "compare", uri, uri],
        ["spfem", "evaluate", "units", uri],
        ["spfem", "data", "show", uri],
        ["spfem", "prepare", "folder", uri, "--out", uri, "--local"],
        ["spfem", "plan", uri],
        ["spfem", "train", uri],
        ["spfem", "weights", "pull", uri],
        ["spfem", uri, "--x", uri],
    ]
    call = chance.choice([dry, dry, dry, train, train, None])
    return [*call, chance.choice(flags), uri] if call else chance.choice(others)


# --- files --------------------------------------------------------------------------------------------------------


def _stored(making: _Making) -> list[str]:
    """A finished run with something wrong in one of its files."""
    chance, ground = making.chance, making.ground
    guided = chance.random() < 0.3 and "guided" in ground.__dict__
    source = ground.guided if guided else ground.runs
    run = making.copy(source / "r", "stored/r")
    whole = [path for path in run.rglob("*") if path.is_file()]
    first = [
        path
        for path in whole
        if path.parent == run or path.parent.name in ("model", "lock") or path.name == "state.json"
    ]
    for _ in range(chance.choice([1, 1, 1, 2])):
        file = chance.choice(first if chance.random() < 0.7 else whole)
        if file.is_file():
            spoil(chance, file)
    recipe, more = ("cdrl_stage2", STAGE2) if guided else ("cdrl_stage1", STAGE1)
    steps = "--ned.steps" if guided else "--ccrl.steps"
    words = [*_started(making, recipe), *_recipe(making, recipe, *more, changes=0, storage="stored")]
    split = ["--data.split", str(ground.toy / "split.json") if guided else "none"]
    on = [*words, *split, steps, "3", "--checkpoint.allow-other", "True"]
    dry = [*words, *split, "--dry-run"]
    calls = [
        on,
        [*words, *split],
        dry,
        ["spfem", "export", "stored/r"],
        ["spfem", "evaluate", "compare", "stored/r", "stored/r"],
    ]
    calls.append(["spfem", "export", "stored/r", "--checkpoint", chance.choice(["latest", "2", "1"])])
    if guided:
        film = making.film().name
        calls += [
            [
                "spfem",
                "edit",
                film,
                "--faces",
                "aligned",
                "--landmarks",
                "talk.npy",
                "--emotion",
                "sad",
                "--generator",
                "stored/r",
            ]
        ] * 2
        calls.append(["spfem", "evaluate", "generator", "stored/r"])
    else:
        calls.append(["spfem", "evaluate", "priors", "stored/r", "--probe-groups", "2"])
        stage2 = _recipe(making, "cdrl_stage2", chance.choice(["--dry-run", "--local"]), *STAGE2, changes=0)
        calls.append([*_started(making, "cdrl_stage2"), *stage2, "--priors", "stored/r"])
    return chance.choice(calls)


def _shards(making: _Making) -> list[str]:
    chance = making.chance
    folder = making.shards()
    for _ in range(chance.choice([1, 1, 2])):
        if all(path.is_file() for path in folder.iterdir()) and (folder / "index.json").exists():
            try:
                spoil_shards(chance, folder)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError, tarfile.TarError):
                spoil(chance, chance.choice([path for path in folder.iterdir() if path.is_file()]))
    recipe, more = chance.choice([("cdrl_stage1", STAGE1), ("cdrl_stage1", STAGE1), ("cdrl_stage2", STAGE2)])
    words = [
        *_started(making, recipe),
        *_recipe(making, recipe, *more, changes=0),
        "--data.shards",
        "shards",
        "--data.split",
        "none",
    ]
    show = ["spfem", "data", "show", "shards"]
    calls = [words, words, [*words, "--dry-run"], show, [*show, "--json"], [*show, "--sheet", "sheet.png"]]
    calls += [["spfem", "evaluate", "units", "shards", "--most", "2"], [*show, "--sample", "S00_00", "--out", "x.mp4"]]
    calls.append(
        [
            "spfem",
            "prepare",
            "synthetic",
            "--identities",
            "4",
            "--synthetic-sentences",
            "3",
            "--size",
            "32",
            "--local",
            "--out",
            "shards",
            "--limit",
            "2",
        ]
    )
    return chance.choice(calls)


def _films(making: _Making) -> list[str]:
    """Films that are none, or whose names say something else."""
    chance = making.chance
    film = making.film()
    if chance.random() < 0.6:
        name = chance.choice(FILM_NAMES)
        try:
            film = film.rename(film.with_name(name))
        except (OSError, ValueError):  # longer than this file system takes
            film = film.rename(film.with_name("[red].mp4"))
    if chance.random() < 0.7:
        film.write_bytes(damaged(chance, film.read_bytes()))
    place = f"./{film.name}" if film.name.startswith("-") else film.name
    folder = making.copy(making.ground.films / "M1", "films/M1")
    shutil.copy(film, folder / film.name)
    if chance.random() < 0.3:
        other = chance.choice([path for path in folder.rglob("*.mp4") if path.is_file()])
        other.write_bytes(damaged(chance, other.read_bytes()))
    edit = ["spfem", "edit", place, "--emotion", chance.choice(["happy", "surprised"])]
    aligned = [*edit, "--faces", "aligned", "--landmarks", "talk.npy"]
    table = (
        "path,speaker,sentence,emotion,start,end\n"
        + f"{film.name},A,1,{chance.choice(['happy', '', 'x'])},0,{value(chance)}\n"
    )
    (making.folder / "table.csv").write_text(table, encoding="utf-8", errors="surrogateescape")
    if chance.random() < 0.5:
        (making.folder / "table.csv").write_bytes(damaged(chance, (making.folder / "table.csv").read_bytes()))
    prepare = [
        "spfem",
        "prepare",
        "folder",
        chance.choice(["films", "films", "table.csv"]),
        "--out",
        "shards",
        "--local",
    ]
    prepare += ["--size", "32", "--faces", chance.choice(["aligned", "aligned", "cascade", "mesh"])]
    folders = ["spfem", "edit", "films", "--emotion", "sad", "--faces", "aligned-mesh", "--out", "edited"]
    calls = [aligned, aligned, [*edit, "--faces", "aligned-mesh"], edit, prepare, prepare, folders]
    calls += [["spfem", "evaluate", "units", place], ["spfem", "evaluate", "judges", "films"]]
    calls.append([*aligned, "--preview", "side.mp4", "--reference", place])
    return chance.choice(calls)


def _landmarks(making: _Making) -> list[str]:
    chance = making.chance
    film = making.film()
    spoil(chance, making.folder / "talk.npy")
    words = [
        "spfem",
        "edit",
        film.name,
        "--faces",
        "aligned",
        "--emotion",
        chance.choice(["happy", "fear"]),
        "--out",
        "out.mp4",
    ]
    if chance.random() < 0.2:
        shutil.copy(making.ground.films / "talk.npy", making.folder / "sound.npy")
        return [*words, "--landmarks", "sound.npy", "--reference", film.name, "--reference-landmarks", "talk.npy"]
    return [*words, "--landmarks", "talk.npy", "--strength", chance.choice(["0", "1", "10", "2.5"])]


def _weights(making: _Making) -> list[str]:
    chance = making.chance
    folder = making.copy(making.ground.generator)
    spoil(chance, chance.choice([path for path in folder.iterdir() if path.suffix != ".md"]))
    film = making.film()
    edit = [
        "spfem",
        "edit",
        film.name,
        "--faces",
        "aligned",
        "--landmarks",
        "talk.npy",
        "--emotion",
        "happy",
        "--generator",
        "generator",
    ]
    tune = [*_started(making, "cdrl_stage2"), *_recipe(making, "cdrl_stage2", "--dry-run", *STAGE2, changes=0)]
    calls = [
        edit,
        edit,
        edit,
        [*tune, "--pretrained", "generator"],
        ["spfem", "evaluate", "real", film.name, "--out", "x", "--generator", "generator"],
    ]
    return chance.choice(calls[:4] if chance.random() < 0.95 else calls)


def _trained(making: _Making) -> list[str]:
    """Settings that make no sense, and are trained with."""
    chance = making.chance
    recipe, more = chance.choice([("cdrl_stage1", STAGE1), ("cdrl_stage2", STAGE2)])
    words = _recipe(making, recipe, *more, changes=chance.choice([1, 1, 2]))
    return [
        *_started(making, recipe),
        *words,
        *more[:4],
        "--ccrl.steps" if recipe == "cdrl_stage1" else "--ned.steps",
        "2",
    ]


def _tracked(making: _Making) -> list[str]:
    """A store of MLflow with something wrong in it."""
    chance = making.chance
    store = Path(shutil.copy(making.ground.runs / "mlflow.db", making.folder / "mlflow.db"))
    if chance.random() < 0.6:
        store.write_bytes(damaged(chance, store.read_bytes()))
    words = [*_started(making, "cdrl_stage1"), *_recipe(making, "cdrl_stage1", *STAGE1, changes=0)]
    words += ["--tracking.uri", "sqlite:///mlflow.db", "--tracking.wait-s", "1", "--tracking.system-metrics", "False"]
    words += ["--tracking.experiment", value(chance)] if chance.random() < 0.4 else []
    film = making.film()
    edit = [
        "spfem",
        "edit",
        film.name,
        "--emotion",
        "happy",
        "--generator",
        chance.choice(["models:/ned@champion", "models:/ccrl/1"]),
    ]
    making.more = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    return chance.choice([words, words, [*words, "--dry-run"], edit])


def _stopped(making: _Making) -> list[str]:
    """Sound commands that get Ctrl-C at any time."""
    chance = making.chance
    making.work = chance.uniform(0.02, 4)
    making.film()
    train = [
        *_started(making, "cdrl_stage1"),
        *_recipe(making, "cdrl_stage1", *STAGE1, changes=0),
        "--ccrl.steps",
        "40",
    ]
    edit = ["spfem", "edit", "talk.mp4", "--emotion", "happy", "--faces", chance.choice(["aligned-mesh", "mesh"])]
    prepare = [
        "spfem",
        "prepare",
        "synthetic",
        "--identities",
        "4",
        "--synthetic-sentences",
        "2",
        "--size",
        "32",
        "--out",
        "x",
        "--local",
    ]
    demo = ["spfem", "demo", "--port", "0", "--no-examples", "--generator", "shipped"]
    priors = ["spfem", "evaluate", "priors", str(making.copy(making.ground.runs / "r")), "--probe-groups", "2"]
    return chance.choice(
        [train, train, edit, edit, prepare, demo, priors, ["spfem", "export", str(making.ground.runs / "r")]]
    )


#: Kind -> how often, and what makes one.
KINDS: dict[str, tuple[float, Callable[[_Making], list[str]]]] = {
    "arguments": (22, _arguments),
    "settings": (22, _settings_dry),
    "plan": (8, _plan),
    "environment": (6, _environment),
    "addresses": (8, _addresses),
    "stored": (10, _stored),
    "shards": (8, _shards),
    "films": (5, _films),
    "landmarks": (4, _landmarks),
    "weights": (4, _weights),
    "trained": (1.5, _trained),
    "tracked": (1, _tracked),
    "stopped": (1.5, _stopped),
}
