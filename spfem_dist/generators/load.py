"""A trained generator from where it lies: the folder of a stage-2 run, an exported or a registered model, here or on S3."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from spfem_dist.config import Tracking
from spfem_dist.files import home
from spfem_dist.generators.generator import Generator, find
from spfem_dist.saved import CONFIG, What, is_saved, misfit, read_config
from spfem_dist.storage import open_filesystem

#: The name of the generator that comes with the package, and where it lies.
SHIPPED = "shipped"
SHIPPED_FOLDER = Path(__file__).parent / SHIPPED
#: Job whose generator is there to be gone on from.
PRETRAINING = "pretraining"


def load_generator(location: str | Path) -> Generator:
    """The generator of a finished stage-2 run, the one exported to `location`, models:/NAME, or `shipped`, frozen, on the GPU where
    there is one.

    A registered model is sought in the store that MLFLOW_TRACKING_URI names, or in a run's own default.
    Raises FileNotFoundError that says what is there instead, ValueError for a damaged one, another version or an unknown kind.
    """
    if str(location) == SHIPPED:
        location = SHIPPED_FOLDER
    if str(location).startswith("models:/"):
        from spfem_dist.tracking.models import fetch_model

        location = fetch_model(location, os.environ.get("MLFLOW_TRACKING_URI") or Tracking().uri)
    fs, root = open_filesystem(str(location))
    inside = model_folder(
        fs, root, str(location), "generator", "a stage-2 run, for instance runs/cdrl-stage2", "cdrl_stage2"
    )
    import torch

    generator: Generator = loaded(inside, fs, "generator", find)
    return generator.to("cuda") if torch.cuda.is_available() else generator


def loaded(inside: str, fs: Any, what: What, find: Callable[[str], ModuleType]) -> Any:
    """The `what` in the folder `inside` of `fs`, by its room's own `load`. find: gives the room of a kind.

    Errors, as `load` and `read_config` have them, name that folder and not the local copy.
    """
    with local_copy(inside, fs) as folder:
        try:
            kind = read_config(folder, what)["kind"]
            try:
                load = find(kind).load
            except ValueError as error:
                raise misfit(folder, what, error) from None
            return load(folder)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(str(error).replace(str(folder), inside)) from None


@contextmanager
def local_copy(location: str, fs: Any = None) -> Iterator[Path]:
    """The files of the model folder `location` (of the filesystem `fs`, or here or s3://), in a local folder that goes afterwards."""
    if fs is None:
        fs, location = open_filesystem(location)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "generator"
        folder.mkdir()
        for path in fs.ls(location, detail=False):
            fs.get_file(path, str(folder / path.rstrip("/").rsplit("/", 1)[-1]))
        yield folder


def newest_generator(storage: str = "runs") -> str:
    """The folder of the run in the local folder `storage` (in SPFEM_HOME, or here) whose generator was finished last; else SHIPPED."""
    found = [
        file
        for file in (Path(home()) / storage).glob(f"*/*/model/{CONFIG}")
        if is_saved(file.read_bytes(), "generator")
    ]
    return str(max(found, key=lambda file: file.stat().st_mtime).parents[2]) if found else SHIPPED


def model_folder(fs: Any, root: str, location: str, what: What, example: str, recipe: str) -> str:
    """The folder of the one `what` in `root`, a pre-training beside it not counted.

    location: `root` as the user named it. example, recipe: what to give instead, and what trains it, for the error.
    Raises FileNotFoundError where there is none, or more than one.
    """
    inside = [path.rsplit("/", 1)[0] for path in (f"{root}/{CONFIG}", *sorted(fs.glob(f"{root}/*/model/{CONFIG}")))]
    there = {path: fs.cat_file(f"{path}/{CONFIG}") for path in inside if fs.exists(f"{path}/{CONFIG}")}
    found = [path for path, config in there.items() if is_saved(config, what)]
    if len(found) > 1:
        found = [path for path in found if path.split("/")[-2] != PRETRAINING]
    if len(found) == 1:
        return found[0]
    if found:
        raise FileNotFoundError(f"{location} holds {len(found)} {what}s: name one, {' or '.join(found)}")
    if fs.exists(f"{root}/run.json"):
        raise FileNotFoundError(
            f"the run {location} holds no finished {what}: train it to its end first (python recipes/{recipe}.py)"
        )
    others = [other for other in get_args(What) if any(is_saved(config, other) for config in there.values())]
    instead = f", but a {' and a '.join(others)}" if others else ""
    raise FileNotFoundError(f"no {what} in {location}{instead}: give the folder of {example}, or of an exported model")
