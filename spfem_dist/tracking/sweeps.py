"""A sweep in MLflow: one run for the sweep, its trials below it, and a saved view of them with parallel coordinates.

Trials are runs like all others: their parameters are numbers already. What each came to is a metric of the same name for every sweep.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spfem_dist.config import Run, Tracking
from spfem_dist.redact import redact
from spfem_dist.tracking import environment, view
from spfem_dist.tracking.outbox import now
from spfem_dist.tracking.store import open_client, open_experiment

log = logging.getLogger(__name__)

#: The last value of the sweep's metric in each trial.
OBJECTIVE = "sweep/objective"
_END = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def begin(base: Run, name: str, facts: Mapping[str, Any], resume: str = "") -> str:
    """Open (or go on with) the run of the sweep `name`; its id, '' where tracking is off. facts: its parameters."""
    tracking = base.tracking
    if not tracking.uri:
        return ""
    from mlflow.exceptions import MlflowException

    client = open_client(tracking.uri)
    place = open_experiment(tracking.uri, tracking.experiment, f"{base.checkpoint.storage.rstrip('/')}/mlartifacts")
    if resume:
        try:
            client.update_run(resume, status="RUNNING")
            return resume
        except MlflowException:
            log.warning("the MLflow run of sweep %s is gone; a new one begins", name)
    tags = environment.tags(base) | {"kind": "sweep", "sweep": name}
    run_id = client.create_run(place, run_name=name, tags={key: redact(text) for key, text in tags.items()}).info.run_id
    for key, value in facts.items():
        client.log_param(run_id, key, redact(value))
    return run_id


def keep_trial(tracking: Tracking, run_id: str, ended: str, figure: float | None, samples: int) -> None:
    """Say in a trial's own run what it came to. run_id: '' where it has none."""
    if tracking.uri and run_id:
        client = open_client(tracking.uri)
        client.set_tag(run_id, "sweep.ended", ended)
        if figure is not None:
            client.log_metric(run_id, OBJECTIVE, figure, step=samples)


def end(tracking: Tracking, run_id: str, status: str) -> None:
    """End the sweep's run. status: finished, stopped or failed."""
    if tracking.uri and run_id:
        open_client(tracking.uri).set_terminated(run_id, _END[status])


def keep_result(tracking: Tracking, run_id: str, best: float, files: Sequence[Path]) -> None:
    """Add what the sweep found to its run: the best figure, and files."""
    if tracking.uri and run_id:
        client = open_client(tracking.uri)
        client.log_metric(run_id, OBJECTIVE, best)
        for file in files:
            client.log_artifact(run_id, str(file))


def keep_view(tracking: Tracking, name: str, fields: Sequence[str], metric: str, mode: str) -> str:
    """Save the view *Sweep NAME* in the experiment: its trials, the best first, as parallel coordinates of `fields` and the metric.

    Returns the view's key, '' where tracking is off.
    """
    if not tracking.uri:
        return ""
    key = f"sweep-{name}"
    client, place = open_client(tracking.uri), open_experiment(tracking.uri, tracking.experiment)
    chart = view.chart("PARALLEL", "sweep", f"{metric} by what was searched")
    chart |= {"selectedParams": list(fields), "selectedMetrics": [OBJECTIVE], "showAllRuns": True}
    state = {
        "searchFilter": f"tags.sweep = '{name}' and tags.kind = 'training'",
        "orderByKey": f"metrics.`{OBJECTIVE}`",
        "orderByAsc": mode == "min",
        "selectedColumns": [*(f"params.`{field}`" for field in fields), f"metrics.`{OBJECTIVE}`", "tags.`sweep.ended`"],
        "compareRunSections": [view.section("sweep", f"Sweep {name}")],
        "compareRunCharts": [chart],
        "isAccordionReordered": True,
    }
    made = now()
    saved = {"name": f"Sweep {name}", "createdAt": made, "updatedAt": made, "state": view.packed(state)}
    client.set_experiment_tag(place, f"mlflow.sharedViewState.{key}", json.dumps(saved))
    return key
