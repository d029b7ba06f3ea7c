"""The leaderboard's own run in MLflow: one run for each board, with its differences as metrics and its files as artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spfem_dist.config import Tracking
from spfem_dist.tracking.store import open_client, open_experiment

#: The name of the board's run; a board that is written again goes on with it.
NAME = "leaderboard"


def keep_board(tracking: Tracking, experiment: str, numbers: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Bring the board's run up to date. numbers: `<regime>/<variant>/<figure>/difference`, nested. Nothing where tracking is off."""
    if not tracking.uri:
        return
    client, place = open_client(tracking.uri), open_experiment(tracking.uri, experiment)
    found = client.search_runs([place], f"attributes.run_name = '{NAME}'", max_results=1)
    run = found[0] if found else client.create_run(place, run_name=NAME)
    for regime, variants in numbers.items():
        if regime in ("rows", "claims", "guidance", "facts"):
            continue
        for variant, figures in variants.items():
            for figure, cell in figures.items():
                if cell["difference"] is not None:
                    client.log_metric(run.info.run_id, f"{regime}/{variant}/{figure}", cell["difference"])
    for file in files:
        client.log_artifact(run.info.run_id, str(file))
    client.set_terminated(run.info.run_id)
