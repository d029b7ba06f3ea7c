"""Under Ray Train: the same losses as one process, also when a worker dies and when the run is stopped and started again."""

import re
import signal
import subprocess
import sys

import pytest
from doors import ROOT, well
from toy_runs import ENVIRONMENT, PATIENCE, RECIPE, alone, launched, losses, state


def test_workers_that_are_told_to_go_or_killed_are_replaced_and_no_loss_differs(reference, tmp_path):
    """The one told to go has a checkpoint made when none is due; that costs no failure, so the one that is allowed is left for the kill."""
    marker = tmp_path / "fired"
    signals = {"SPFEM_TOY_SIGNAL": "8:TERM 15:KILL", "SPFEM_TOY_MARKER": str(marker)}
    ended = well(launched(tmp_path, "--scaling.max-failures", "1", **signals))
    told = re.search(r"the run goes on from step (\d+) elsewhere", ended.out)
    assert told, ended.out
    assert int(told[1]) % 6, "a step with a checkpoint of its own"
    assert f"at step {told[1]} ({8 * int(told[1])} samples seen)" in ended.out
    assert ended.out.count("resumed from") == 2
    assert {file.suffix for file in tmp_path.glob("fired.*")} == {".8", ".15"}
    assert sorted(losses(tmp_path)) == list(range(1, 21))
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)


def test_a_run_stopped_under_ray_goes_on_alone_and_then_under_ray_again(reference, tmp_path):
    """SIGTERM to the driver, SIGKILL to the lone process."""
    stage = ["--zero.stage", "0"]
    run = subprocess.Popen(
        [sys.executable, RECIPE, "--checkpoint.storage", str(tmp_path), *stage],
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
    assert stopped_at < 12
    killed = alone(tmp_path, *stage, SPFEM_TOY_SIGNAL="15:KILL")
    assert killed.code == -signal.SIGKILL
    assert f"at step {stopped_at}" in killed.out
    again = well(launched(tmp_path, *stage))
    assert "at step 12" in again.out
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


def test_the_mailbox_is_there_before_torch_would_be():
    code = "import sys, spfem_dist.training.mailbox; assert not {'torch', 'deepspeed', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
