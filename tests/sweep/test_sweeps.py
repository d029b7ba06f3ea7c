"""Whole sweeps over a recipe whose best learning rate is known, as a user starts them."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from doors import ENVIRONMENT, PATIENCE, ROOT, process, well
from planted_recipe import CURVATURES, loss_after

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


def test_a_sweep_that_is_stopped_goes_on_under_its_name_and_refuses_another_search(tmp_path):
    """Ctrl-C while the last two of three trials train slowly; the next start trains what is left, from the checkpoints."""
    words = ["--local", "--space", f"{RATE}=grid:0.02,0.1,0.3", "--scheduler", "none", "--name", "stopped"]
    line = [sys.executable, "recipes/sweep.py", PLANTED, "--metric", "val/toy/error"]
    line += ["--checkpoint.storage", str(tmp_path), *words]
    happens = ENVIRONMENT | {"SPFEM_TOY_SLOW": "10"}
    run = subprocess.Popen(line, cwd=ROOT, env=os.environ | happens, stdout=subprocess.PIPE, text=True)
    try:
        for text in run.stdout:
            if "32 samples" in text:
                run.send_signal(signal.SIGINT)
                break
        said, _ = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
    assert run.returncode == 130, said
    assert "the same command goes on" in said
    assert [trial["ended"] for trial in record(tmp_path, "stopped")["trials"]] == ["", "", ""]
    stopped = json.loads((tmp_path / "stopped-t000" / "first" / "state.json").read_text())
    assert stopped["status"] == "stopped"

    other = sweep(tmp_path, *words, "--first.steps", "30")
    assert other.code == 1
    assert "--first.steps: was 24, now 30" in other.err
    well(sweep(tmp_path, *words))
    trials = record(tmp_path, "stopped")["trials"]
    assert [trial["ended"] for trial in trials] == ["finished"] * 3
    assert [t["figure"] for t in trials] == pytest.approx(
        [loss_after(STEPS, rate) for rate in (0.02, 0.1, 0.3)], rel=1e-3
    )
    log = (tmp_path / "stopped" / "logs" / "stopped-t000.log").read_text()
    assert f"at step {stopped['step']}" in log


def test_in_a_population_the_worse_goes_on_from_the_betters_checkpoint(tmp_path):
    """A step takes a second, so that the better is not far ahead when it is looked at."""
    words = [
        "--local",
        "--space",
        f"{RATE}=loguniform:0.001,0.49",
        "--scheduler",
        "pbt",
        "--trials",
        "2",
        "--patience",
        "2",
    ]
    well(sweep(tmp_path, *words, SPFEM_TOY_SLOW="0"))
    worse, better = sorted(record(tmp_path)["trials"], key=lambda trial: trial["run"] == trial["name"])
    assert re.fullmatch(rf"{worse['name']}-g\d\d", worse["run"])
    origin = json.loads((tmp_path / f"{worse['name']}-g01" / "origin.json").read_text())
    assert origin["run"] == better["name"]
    begun = origin["samples"]["first"]
    assert 32 <= begun < 4 * STEPS
    rows = json.loads((tmp_path / f"{worse['name']}-g01" / "first" / "history.json").read_text())
    rate = origin["values"][RATE]
    assert rate != better["values"][RATE]
    losses = {row["samples"]: row["values"]["train/toy/error"] for row in rows if "train/toy/error" in row["values"]}
    at_first = sum(
        0.5 * h * (1 - better["values"][RATE] * h) ** (2 * begun // 4) for h in CURVATURES
    )  # what the better had come to
    assert losses[begun + 4] == pytest.approx(at_first, rel=1e-3)
    after = sum(
        0.5 * h * (1 - better["values"][RATE] * h) ** (2 * begun // 4) * (1 - rate * h) ** 2 for h in CURVATURES
    )
    assert losses[begun + 8] == pytest.approx(after, rel=1e-3)


def test_trials_on_ray_train_are_watched_and_stopped_too(tmp_path):
    words = ["--space", f"{RATE}=grid:0.02,0.3", "--scaling.workers", "1", "--reduction", "2", "--concurrent", "1"]
    well(sweep(tmp_path, *words))
    trials = {trial["values"][RATE]: trial for trial in record(tmp_path)["trials"]}
    assert trials[0.3]["ended"] == "finished"
    assert trials[0.3]["figure"] == pytest.approx(loss_after(STEPS, 0.3), rel=1e-3)
    log = (tmp_path / "planted-sweep" / "logs" / f"{trials[0.3]['name']}.log").read_text()
    assert "(Ray, 1 workers on CPUs)" in log


def test_a_figure_that_no_validation_gives_ends_the_sweep_with_those_that_there_are(tmp_path):
    done = sweep(tmp_path, "--local", "--space", f"{RATE}=grid:0.1", "--metric", "val/toy/eror")
    assert done.code == 1
    assert "no validation gave val/toy/eror; there are val/toy/error" in done.err
