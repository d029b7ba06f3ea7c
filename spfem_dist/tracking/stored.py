"""What the tracking store holds of a run: curves, last steps, pictures."""

from __future__ import annotations

import re
from typing import Any

from spfem_dist.tracking.store import open_client


def curves(uri: str, run_id: str, prefixes: tuple[str, ...] = ("train/", "val/")) -> dict[str, list[tuple[int, float]]]:
    """The points (samples seen, value) of each metric whose name begins with one of `prefixes`, in order."""
    client = open_client(uri)
    names = [name for name in sorted(client.get_run(run_id).data.metrics) if name.startswith(prefixes)]
    return {name: sorted((m.step, m.value) for m in client.get_metric_history(run_id, name)) for name in names}


def last_steps(client: Any, run_id: str) -> dict[str, int]:
    """The last step of each metric."""
    return {metric.key: metric.step for metric in client.get_run(run_id).data.to_proto().metrics}


def pictures(client: Any, run_id: str) -> set[tuple[str, int]]:
    """Key and step of every picture. MLflow keeps both in the file's name, with `~` for `/`."""
    found = set()
    for file in client.list_artifacts(run_id, "images"):
        parts = re.fullmatch(r"images/(.+)[+%]step[+%](\d+)[+%]timestamp[+%].*\.png", file.path)
        if parts:
            found.add((parts[1].replace("~", "/"), int(parts[2])))
    return found
