"""Under Ray Train: the same losses as one process, also when a worker dies and when the run is stopped and started again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(Path(__file__).with_name("toy_recipe.py"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "SPFEM_HOME": str(ROOT)}


def train(storage, *arguments, **environment):
    command = [sys.executable, RECIPE, "--checkpoint.storage", str(storage), *arguments]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=300)


def losses(storage):
    history = json.loads((Path(storage) / "toy" / "ccrl" / "history.json").read_text())
    return {row["step"]: row["values"]["train/toy/error"] for row in history if "train/toy/error" in row["values"]}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    storage = tmp_path_factory.mktemp("reference")
    done = train(storage, "--local")
    assert done.returncode == 0, done.stdout + done.stderr
    return losses(storage)


def test_a_killed_worker_is_replaced_and_no_loss_differs(reference, tmp_path):
    marker = tmp_path / "killed"
    done = train(tmp_path, SPFEM_TOY_DIE="9", SPFEM_TOY_MARKER=str(marker))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert marker.exists(), "no worker was killed, so nothing was shown"
    found = losses(tmp_path)
    assert sorted(found) == list(range(1, 21))
    assert found == pytest.approx(reference, abs=1e-5)


def test_sigterm_to_the_driver_leaves_a_checkpoint_and_the_same_command_goes_on(reference, tmp_path):
    command = [sys.executable, RECIPE, "--checkpoint.storage", str(tmp_path)]
    run = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT | {"TOY_SLEEP": "0.3"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in run.stdout:
        if "ccrl 7/20" in line:
            run.send_signal(signal.SIGTERM)
            break
    rest, _ = run.communicate(timeout=120)
    assert run.returncode == 130, rest[-3000:]
    state = json.loads((tmp_path / "toy" / "ccrl" / "state.json").read_text())
    assert state["status"] == "stopped"
    assert state["step"] < 20
    again = train(tmp_path)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert f"at step {state['step']}" in again.stdout
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)


def test_a_failure_that_would_repeat_is_reported_once_and_not_tried_again(tmp_path):
    failed = train(tmp_path, "--ccrl.optimizer.lr", "1e30", "--ccrl.optimizer.clip", "0")
    assert failed.returncode == 1
    assert "toy/error became" in failed.stderr.splitlines()[-2]
    assert json.loads((tmp_path / "toy" / "ccrl" / "state.json").read_text())["status"] == "failed"


def test_more_workers_than_the_cluster_holds_are_refused_before_anything_starts(tmp_path):
    refused = train(tmp_path, "--scaling.workers", "2", "--scaling.gpu", "True")
    assert refused.returncode == 1
    assert "has 0 GPUs" in refused.stderr
