"""Whole sweeps over a recipe whose best learning rate is known, as a user starts them."""

import json
import re
from pathlib import Path

import pytest
from doors import process, well
from planted_recipe import loss_after

from spfem_dist.tracking.store import open_client
from spfem_dist.tracking.sweeps import OBJECTIVE

PLANTED = str(Path(__file__).with_name("planted_recipe.py"))
RATE = "first.optimizer.lr"
STEPS = 24
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1500)]


def sweep(storage, *words, **environment):
    """`python recipes/sweep.py planted_recipe.py --local ...`."""
    line = ["recipes/sweep.py", PLANTED, "--metric", "val/toy/error", "--checkpoint.storage", storage]
    return process(*line, *words, **environment)


def record(storage, name="planted-sweep"):
    return json.loads((Path(storage) / name / "sweep.json").read_text())


def test_eight_trials_find_the_planted_rate_survive_a_kill_and_are_compared_in_mlflow(tmp_path):
    """The first trial that comes to step 9 kills its process; it goes on from its checkpoint of step 8."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    happens = {"SPFEM_TOY_SIGNAL": "9:KILL", "SPFEM_TOY_MARKER": str(tmp_path / "fired")}
    words = ["--local", "--space", f"{RATE}=loguniform:0.01,0.49", "--tracking.uri", uri]
    done = well(sweep(tmp_path, *words, **happens))
    assert done.out.count("its process or node was lost") == 1
    logs = {file.stem: file.read_text() for file in (tmp_path / "planted-sweep" / "logs").glob("*.log")}
    resumed = [text for text in logs.values() if "resumed from" in text]
    assert len(resumed) == 1
    assert "at step 8 (32 samples seen)" in resumed[0]

    trials = record(tmp_path)["trials"]
    assert len(trials) == 8
    assert {trial["ended"] for trial in trials} == {"finished", "stopped early"}
    rates = [trial["values"][RATE] for trial in trials]
    nearest = min(rates, key=lambda rate: loss_after(STEPS, rate))
    best = min((t for t in trials if t["ended"] == "finished"), key=lambda trial: trial["figure"])
    assert best["values"][RATE] == nearest
    assert best["figure"] == pytest.approx(loss_after(STEPS, nearest), rel=1e-3)
    assert f"--first.optimizer.lr {nearest}" in done.out
    assert not (tmp_path / "planted-sweep" / "tune").exists(), "Tune's pickles are not left behind"

    client = open_client(uri)
    found = client.search_runs([client.get_experiment_by_name("cdrl").experiment_id])
    whole = next(run for run in found if run.data.tags["kind"] == "sweep")
    mine = [run for run in found if run.data.tags.get("mlflow.parentRunId") == whole.info.run_id]
    assert {run.info.run_name for run in mine} == {trial["name"] for trial in trials}
    assert {run.data.tags["sweep"] for run in mine} == {"planted-sweep"}
    compared = {run.info.run_name: (float(run.data.params[RATE]), run.data.metrics[OBJECTIVE]) for run in mine}
    assert compared == {trial["name"]: (trial["values"][RATE], trial["figure"]) for trial in trials}
    assert {file.path for file in client.list_artifacts(whole.info.run_id)} == {"best.sh", "sweep.png"}
    assert whole.info.status == "FINISHED"
    assert whole.data.metrics[OBJECTIVE] == best["figure"]

    again = well(sweep(tmp_path, *words))
    assert "8 of them ended" in again.out
    assert record(tmp_path)["trials"] == trials
