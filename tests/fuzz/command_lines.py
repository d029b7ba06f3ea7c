"""Command lines, environments and addresses that make no sense."""

import inspect
import shutil
import typing
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from bad import secret, spoil, value
from children import ROOT
from ground import STAGE1
from making import RECIPES, Making, edit_of, recipe_words, started

from spfem_dist import cli
from spfem_dist.prepare.plan import PrepareSettings


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
            "evaluate words": cli.evaluate_words,
            "evaluate compositor": cli.evaluate_compositor,
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


def with_arguments(making: Making) -> list[str]:
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


def with_settings(making: Making) -> list[str]:
    chance = making.chance
    recipe = chance.choice(RECIPES)
    end = chance.choice(["--dry-run", "--dry-run", "--dry-run", "--print-config", "--help", "--help-all"])
    words = recipe_words(making, recipe, end, changes=chance.choice([1, 1, 2, 3]))
    return [*started(making, recipe), *words]


def with_plan(making: Making) -> list[str]:
    chance = making.chance
    recipe = chance.choice(RECIPES)
    command = chance.choice(["plan", "plan", "doctor"])
    words = recipe_words(making, recipe, changes=chance.choice([0, 1]))
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


def with_environment(making: Making) -> list[str]:
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
    edit = edit_of("talk.mp4", "--emotion", "happy")
    dry = [*started(making, "cdrl_stage1"), *recipe_words(making, "cdrl_stage1", "--dry-run", changes=0)]
    at = dry.index("--tracking.uri")
    own = [*dry[:at], *dry[at + 2 :]]
    train = [word for word in dry if word != "--dry-run"]
    listed = ["spfem", "weights", chance.choice(["list", "check"])]
    show = ["spfem", "data", "show", chance.choice([str(making.ground.toy / "shards"), "s3://bucket/shards"])]
    return chance.choice([edit, own, own, dry, listed, show, [*train, *STAGE1]])


def with_addresses(making: Making) -> list[str]:
    """Secrets in addresses, in each place that takes one."""
    chance = making.chance
    uri = secret(chance)
    dry = [
        *started(making, "cdrl_stage1"),
        *recipe_words(making, "cdrl_stage1", chance.choice(["--dry-run", "--print-config"]), changes=0),
    ]
    train = [*started(making, "cdrl_stage1"), *recipe_words(making, "cdrl_stage1", *STAGE1, changes=0)]
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
        edit_of("talk.mp4", "--emotion", "happy", "--generator", uri),
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
