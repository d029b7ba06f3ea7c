"""Under Ray Train: the same losses as one process, also when a worker dies and when the run is stopped and started again."""

import signal
import subprocess
import sys

import pytest
from doors import ROOT, well
from toy_runs import ENVIRONMENT, PATIENCE, RECIPE, alone, launched, losses, state


def test_a_killed_worker_is_replaced_and_no_loss_differs(reference, tmp_path):
    marker = tmp_path / "killed"
    well(launched(tmp_path, SPFEM_TOY_SIGNAL="9:KILL", SPFEM_TOY_MARKER=str(marker)))
    assert marker.exists(), "no worker was killed, so nothing was shown"
    found = losses(tmp_path)
    assert sorted(found) == list(range(1, 21))
    assert found == pytest.approx(reference, abs=1e-5)


def test_sigterm_to_the_driver_leaves_a_checkpoint_and_the_same_command_goes_on(reference, tmp_path):
    run = subprocess.Popen(
        [sys.executable, RECIPE, "--checkpoint.storage", str(tmp_path)],
        cwd=ROOT,
        env=ENVIRONMENT | {"SPFEM_TOY_SLOW": "7"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for line in run.stdout:
            if "ccrl 7/20" in line:
                run.send_signal(signal.SIGTERM)
                break
        rest, _ = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
    assert run.returncode == 130, rest[-3000:]
    assert state(tmp_path)["status"] == "stopped"
    stopped_at = state(tmp_path)["step"]
    assert stopped_at < 20
    again = well(launched(tmp_path))
    assert f"at step {stopped_at}" in again.out
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)


def test_a_run_begun_without_ray_goes_on_under_ray_with_the_same_losses(reference, tmp_path):
    stage = ["--zero.stage", "0"]
    assert alone(tmp_path, *stage, SPFEM_TOY_SIGNAL="9:KILL").code == -signal.SIGKILL
    again = well(launched(tmp_path, *stage))
    assert "at step 6" in again.out
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)


def test_a_worker_that_is_told_to_go_leaves_a_checkpoint_and_the_run_goes_on_elsewhere(reference, tmp_path):
    """No failure is allowed, and no other checkpoint is due."""
    flags = ["--scaling.max-failures", "0", "--checkpoint.every-steps", "100"]
    told = {"SPFEM_TOY_SIGNAL": "9:TERM", "SPFEM_TOY_MARKER": str(tmp_path / "told")}
    ended = well(launched(tmp_path, *flags, **told))
    assert "the run goes on from step 10 elsewhere" in ended.out
    assert "at step 10 (80 samples seen)" in ended.out
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)


def test_two_jobs_run_side_by_side_where_the_cluster_has_room(tmp_path):
    """Each job waits in its third step for the other to get there, so in turns they would never end well."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    flags = ["--scaling.workers", "1", "--cerl.enabled", "True", "--ccrl.steps", "4", "--cerl.steps", "4"]
    well(launched(tmp_path, *flags, SPFEM_TOY_MEET=str(meeting)))
    assert {file.name for file in meeting.iterdir()} == {"ccrl", "cerl"}


def test_a_failure_that_would_repeat_is_reported_once_and_not_tried_again(tmp_path):
    failed = launched(tmp_path, "--ccrl.optimizer.lr", "1e30", "--ccrl.optimizer.clip", "0")
    assert failed.code == 1
    assert "toy/error became" in failed.err.splitlines()[-2]
    assert state(tmp_path)["status"] == "failed"


def test_more_workers_than_the_cluster_holds_are_refused_before_anything_starts(tmp_path):
    refused = launched(tmp_path, "--scaling.workers", "2", "--scaling.gpu", "True")
    assert refused.code == 1
    assert "has 0 GPUs" in refused.err
