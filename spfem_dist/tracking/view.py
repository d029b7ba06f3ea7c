"""A saved view of an experiment in MLflow's UI: what to look at first, by samples seen, the same for everybody.

The UI keeps its saved views (the menu *Views*) as tags of the experiment, `mlflow.sharedViewState.ID`: JSON of a name, two times and the
state, itself JSON. Fields that are left out have the UI's defaults, and a tag that it cannot read it leaves out of the menu, so a UI of
another version loses the view and nothing else.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from spfem_dist import rooms
from spfem_dist.tracking import stored
from spfem_dist.tracking.outbox import now
from spfem_dist.tracking.store import VIEW

#: The name in the menu, and the last part of the tag, which is also the last word of the view's address.
NAME, KEY = "Losses by samples seen", VIEW
TAG = f"mlflow.sharedViewState.{KEY}"
#: The tag of a run's colour in charts. Left to itself, the UI derives it from the run's id, and two runs may look alike.
COLOR = "mlflow.runColor"
#: Colours that stay apart, also for most who are colour-blind (Okabe and Ito, 2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
#: Columns of the table of runs.
COLUMNS = ["tags.`recipe`", "attributes.`Dataset`", "params.`seed`", "tags.`workers`"]
#: The UI refuses to save longer views.
LIMIT = 20_000
#: What an evaluation adds to a run, as sections after the losses: their bars compare the runs.
FIGURES = {
    "Edits": (
        *("stage2/both/emotion_accuracy", "stage2/both/mouth_corr_minus_copy", "stage2/both/identity_minus_copy"),
        *("stage2/both/changed_error_over_copy", "stage2/both/fad", "stage2/both/lse_d", "stage2/both/csim"),
    ),
}

_BY_SAMPLES = {
    **{"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "lineSmoothness": 0, "range": {}},
    **{"yAxisKey": "metric", "yAxisExpressions": [], "selectedXAxisMetricKey": "", "ignoreOutliers": False},
}
_TAKEN_AWAY = {"deleted": True, "isGenerated": True}
_DIFFERING = {
    **{"chartName": "Parameters that differ", "compareGroups": ["Parameters"], "baselineColumnUuid": ""},
    **{"showChangeFromBaseline": False, "showDifferencesOnly": True},
}


def keep(client: Any, run_id: str) -> None:
    """Save the view of the experiment of `run_id`, with a chart for each loss and picture that its runs have had so far.

    A view that a person saved over stays as it is.
    """
    run = client.get_run(run_id)
    experiment = client.get_experiment(run.info.experiment_id)
    old = experiment.tags.get(TAG)
    envelope = json.loads(old) if old else {}
    if envelope and envelope["createdAt"] != envelope["updatedAt"]:
        return
    before = unpacked(envelope["state"]) if envelope else {}
    pictures = charted(before, "imageKeys")
    for key, step in sorted(stored.pictures(client, run_id)):
        pictures[key] = step
    made = envelope.get("createdAt") or now()
    state = packed(view([*charted(before), *run.data.metrics], pictures))
    text = json.dumps({"name": NAME, "createdAt": made, "updatedAt": made, "state": state})
    if text != old and len(text) <= LIMIT:
        client.set_experiment_tag(experiment.experiment_id, TAG, text)


def _of_priors() -> tuple[str, ...]:
    """The scores that say most of each kind of prior."""
    return tuple(f"priors/{name}" for kind in rooms.kinds("priors") for name in rooms.find("priors", kind).CARD.figures)


def view(metrics: Iterable[str], pictures: Mapping[str, int]) -> dict[str, Any]:
    """The UI's state: a section for each network with a chart for each of its losses, then figures, pictures, and what sets runs apart.

    metrics: names that the runs have. pictures: the keys of theirs, with the step to show first. Training and validation of one loss
    share a chart, whose axis is the step, that is, samples seen.
    """
    metrics = sorted(set(metrics))
    losses: dict[str, dict[str, list[str]]] = {}
    for metric in metrics:
        kind, *path = metric.split("/")
        if kind in ("train", "val") and len(path) == 2:
            losses.setdefault(path[0], {}).setdefault(path[1], []).append(metric)
    sections, charts = [], []
    for network, named in losses.items():
        sections.append(section(network, f"{network}: losses by samples seen"))
        # Losses that are also held out come first: they say whether it learns.
        for loss, keys in sorted(named.items(), key=lambda item: (-len(item[1]), item[0])):
            charts.append(chart("LINE", network, loss, metricKey=keys[0], selectedMetricKeys=keys, **_BY_SAMPLES))
            # The UI makes a chart of its own for every metric that is no chart's first, unless somebody took that one away.
            charts += [chart("LINE", network, key, metricKey=key, **_TAKEN_AWAY) for key in keys[1:]]
    for title, figures in ({"Priors": _of_priors()} | FIGURES).items():
        there = [key for key in figures if key in metrics]
        if there:
            sections.append(section(title, f"{title}: figures of merit"))
            charts += [chart("BAR", title, key.partition("/")[2], metricKey=key) for key in there]
    if pictures:
        sections.append(section("pictures", "Pictures"))
        charts += [_picture(key, step) for key, step in pictures.items()]
    sections.append(section("differences", "What sets the runs apart"))
    charts.append(chart("DIFFERENCE", "differences", "Parameters that differ", **_DIFFERING))
    return {
        "selectedColumns": COLUMNS,
        "compareRunSections": sections,
        "compareRunCharts": charts,
        "isAccordionReordered": True,  # else the UI sorts the sections by name
        "hideEmptyCharts": True,
    }


def packed(state: Mapping[str, Any]) -> str:
    """The state as the UI writes it."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()


def unpacked(text: str) -> dict[str, Any]:
    """The state that `packed` wrote, or the UI."""
    if text.startswith("deflate;"):
        text = zlib.decompress(base64.b64decode(text.removeprefix("deflate;"))).decode()
    return json.loads(text)


def charted(state: Mapping[str, Any], field: str = "selectedMetricKeys") -> dict[str, int]:
    """What the charts of a view show, in order, with the step of each: metrics, or pictures where `field` is imageKeys."""
    found: dict[str, int] = {}
    for chart in state.get("compareRunCharts", []):
        keys = chart.get(field) or (
            [chart["metricKey"]] if field == "selectedMetricKeys" and "metricKey" in chart else []
        )
        found |= {key: chart.get("step", 0) for key in keys}
    return found


def color(client: Any, experiment_id: str) -> str:
    """The colour of the next training run of an experiment: the one that was taken longest ago."""
    runs = client.search_runs([experiment_id], "tags.kind = 'training'", max_results=1000)
    return COLORS[len(runs) % len(COLORS)]


def section(key: str, title: str) -> dict[str, Any]:
    fixed = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    return {"uuid": f"section-{key}", "name": title, **fixed}


def _picture(key: str, step: int) -> dict[str, Any]:
    """With all of a run's parameters above it, as the UI has it unless told, there is no room for the picture."""
    return chart("IMAGE", "pictures", key, imageKeys=[key], step=step, showRunParams=False)


def chart(kind: str, section: str, title: str, **more: Any) -> dict[str, Any]:
    fixed = {"metricSectionId": f"section-{section}", "deleted": False, "isGenerated": False}
    return {"uuid": f"chart-{kind}-{section}-{title}", "type": kind, "displayName": title, **fixed, **more}
