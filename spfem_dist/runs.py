"""The resolved configuration of a run that was trained before, whichever recipe declared it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import create_model

from spfem_dist import rooms
from spfem_dist.config import GuidedRun, Run
from spfem_dist.storage import open_filesystem, read_json


def read_configuration(location: str) -> dict[str, Any]:
    """The run.json of the run folder `location`, local or s3://. Raises FileNotFoundError where there is none."""
    fs, root = open_filesystem(location)
    if not fs.exists(f"{root}/run.json"):
        raise FileNotFoundError(
            f"no run.json in {location}: give the folder of a training run, for instance runs/cdrl-stage1"
        )
    return read_json(fs, f"{root}/run.json")


def read_run(location: str) -> Run:
    """The configuration of the run in `location`; ValueError where it is of another version (pydantic's names the field)."""
    return run_of(read_configuration(location))


def run_of(values: Mapping[str, Any]) -> Run:
    """A run of the jobs that run.json's `values` name; their kinds say whose settings they are (see `rooms`).

    Fields that a recipe added to its run and that are no jobs are kept as they are.
    """
    base = GuidedRun if "priors" in values else Run
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name not in base.model_fields:
            kind = value.get("kind") if isinstance(value, dict) else None
            of = rooms.settings_of(kind, value.get("settings_class", "Settings")) if kind else Any
            fields[name] = (of, ...)
    return create_model("RecordedRun", __base__=base, **fields).model_validate(values)
