"""Under Ray Train: the same losses as one process, also when workers die and when the run is stopped and goes on."""

import os
import re
import signal
import subprocess
import sys

import pytest
from doors import ENVIRONMENT, PATIENCE, ROOT, well
from toy_runs import RECIPE, alone, launched, losses, state


@pytest.mark.nightly
def test_a_run_goes_from_one_process_to_ray_and_back_and_no_loss_differs(reference, tmp_path):
    """Under Ray a worker is told to go, one is killed, and then the driver is stopped.

    The one told to go has a checkpoint made when none is due; that costs no failure, so the one that is allowed is left for the kill.
    """
    assert alone(tmp_path, SPFEM_TOY_SIGNAL="6:KILL").code == -signal.SIGKILL
    happens = {
        "SPFEM_TOY_SIGNAL": "7:TERM 10:KILL",
        "SPFEM_TOY_MARKER": str(tmp_path / "fired"),
        "SPFEM_TOY_SLOW": "12",
    }
    code, said = driven(tmp_path, "--scaling.max-failures", "1", stop_at=r"first 1[2-9]/20", **happens)
    assert code == 130, said[-3000:]
    assert "at step 6" in said
    told = re.search(r"the run goes on from step (\d+) elsewhere", said)
    assert told, said
    assert int(told[1]) % 6, "a step with a checkpoint of its own"
    assert f"at step {told[1]} ({8 * int(told[1])} samples seen)" in said
    assert said.count("resumed from") == 3
    assert {file.suffix for file in tmp_path.glob("fired.*")} == {".7", ".10"}
    stopped = state(tmp_path)
    assert stopped["status"] == "stopped"
    assert 12 <= stopped["step"] < 20
    again = well(alone(tmp_path))
    assert f"at step {stopped['step']}" in again.out
    assert sorted(losses(tmp_path)) == list(range(1, 21))
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)


def driven(storage, *flags, stop_at, **environment):
    """(status, output) of the recipe under Ray, whose driver gets SIGTERM once a line of it has `stop_at`."""
    run = subprocess.Popen(
        [sys.executable, RECIPE, "--checkpoint.storage", str(storage), *flags],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    try:
        for line in run.stdout:
            said += line
            if re.search(stop_at, line):
                run.send_signal(signal.SIGTERM)
                break
        rest, _ = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
    return run.returncode, said + rest


@pytest.mark.nightly
def test_two_jobs_run_side_by_side_where_the_cluster_has_room(tmp_path):
    """Each job waits in its third step for the other to get there, so in turns they would never end well."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    flags = ["--scaling.workers", "1", "--second.enabled", "True", "--first.steps", "4", "--second.steps", "4"]
    well(launched(tmp_path, *flags, SPFEM_TOY_MEET=str(meeting)))
    assert {file.name for file in meeting.iterdir()} == {"first", "second"}


@pytest.mark.nightly
def test_a_failure_that_would_repeat_is_reported_once_and_not_tried_again(tmp_path):
    failed = launched(tmp_path, "--first.optimizer.lr", "1e30", "--first.optimizer.clip", "0")
    assert failed.code == 1
    assert "toy/error became" in failed.err.splitlines()[-2]
    assert state(tmp_path)["status"] == "failed"


def test_the_mailbox_is_there_before_torch_would_be():
    code = "import sys, spfem_dist.training.mailbox; assert not {'torch', 'deepspeed', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
