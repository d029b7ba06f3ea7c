"""A trained generator from where it lies: the folder of a stage-2 run, an exported or a registered model, here or on S3."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from spfem_dist.config import Tracking
from spfem_dist.generators.generator import Generator
from spfem_dist.storage import open_filesystem

#: Files of an exported generator.
FILES = ("config.json", "model.safetensors", "face.safetensors")


def load_generator(location: str | Path) -> Generator:
    """The generator of a finished stage-2 run, the one exported to `location`, or models:/NAME, frozen, on the CPU.

    A registered model is sought in the store that MLFLOW_TRACKING_URI names, or in a run's own default.
    Raises FileNotFoundError that says what is there instead, ValueError for a format or method that is not known.
    """
    if str(location).startswith("models:/"):
        from spfem_dist.tracking.models import fetch_model

        location = fetch_model(location, os.environ.get("MLFLOW_TRACKING_URI") or Tracking().uri)
    fs, root = open_filesystem(str(location))
    inside = next((p for p in (f"{root}/ned/model", root) if fs.exists(f"{p}/face.safetensors")), None)
    if inside is None:
        if fs.exists(f"{root}/run.json"):
            raise FileNotFoundError(
                f"the run {location} holds no finished generator: train it to its end first (python recipes/cdrl_stage2.py)"
            )
        raise FileNotFoundError(
            f"no generator in {location}: give the folder of a stage-2 run, for instance runs/cdrl-stage2, or of an exported model"
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for file in FILES:
            fs.get_file(f"{inside}/{file}", str(folder / file))
        name = json.loads((folder / "config.json").read_text()).get("name")
        if name != "ned":
            raise ValueError(f"{location} holds a generator called {name!r}; this version knows ned")
        from spfem_dist.generators.ned.saved import load_ned

        return load_ned(folder)
