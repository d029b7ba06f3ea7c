"""A fault fires where it says, once in a run, and leaves the losses what they were."""

import json
import re
import signal
import time

import pytest
from doors import well
from toy_recipe import toy
from toy_runs import alone, losses

from spfem_dist.faults import inject
from spfem_dist.faults.inject import FaultError, armed, marked
from spfem_dist.training.world import PlainWorld


def run_with(tmp_path, *faults):
    run = toy()
    run.faults, run.checkpoint.storage = faults, str(tmp_path)
    return run


@pytest.mark.nightly
def test_a_run_killed_at_every_turn_repeats_every_loss_and_is_hit_once_by_each(reference, tmp_path):
    faults = [
        "kill rank 0 during upload 1",
        "kill driver at sample 71",
        "kill rank 0 during checkpoint 2",
        "kill rank 0 during upload 2",
        "corrupt checkpoint 2",
        "kill rank 0 at sample 111",
    ]
    # Uploads that hold the steps: which checkpoint is whole when a fault fires is then not a matter of speed.
    flags = ["--checkpoint.background", "False", "--faults", *faults]
    for goes_on_at in (None, None, 6, 6, 6):
        killed = alone(tmp_path, *flags)
        assert killed.code == -signal.SIGKILL
        assert f"fault that will be injected: {faults[0]}" in killed.said
        assert (f"at step {goes_on_at}" in killed.said) if goes_on_at else ("resumed from" not in killed.said)
    again = well(alone(tmp_path, *flags))
    assert re.search(r"checkpoint_000000012 is damaged \(.*\): the checkpoint before it is tried", again.said)
    assert "at step 6" in again.said
    assert losses(tmp_path) == reference
    marks = [json.loads(mark.read_text()) for mark in (tmp_path / "toy" / "faults").iterdir()]
    assert [mark["fault"] for mark in sorted(marks, key=lambda mark: mark["time"])] == faults


def test_a_fault_that_comes_twice_fires_twice():
    twice = marked(("kill rank 0 at sample 8", "kill rank 1 at sample 8", "kill rank 0 at sample 8"))
    assert [mark for mark, _ in twice] == [
        "kill-rank-0-at-sample-8",
        "kill-rank-1-at-sample-8",
        "kill-rank-0-at-sample-8-again-1",
    ]


def test_a_fault_that_did_not_strike_is_named_at_the_end(tmp_path):
    done = well(alone(tmp_path, "--first.steps", "2", "--faults", "kill rank 0 at sample 4000", "s3 slow 1 s"))
    assert "did not fire: kill rank 0 at sample 4000" in done.said
    assert "did not fire: s3" not in done.said


def test_only_the_step_that_uses_the_sample_is_hit(tmp_path, monkeypatch):
    fired = []
    monkeypatch.setitem(inject._ACTIONS, "kill", lambda fault, where: lambda: fired.append(where["samples"]))
    with armed(run_with(tmp_path, "kill rank 0 at sample 23"), "first", PlainWorld(str(tmp_path))):
        for samples in (0, 8, 16, 24, 16):
            inject.at_step(samples, 8)
    assert fired == [16]


def test_the_fault_of_one_job_leaves_the_other_alone(tmp_path, monkeypatch):
    fired = []
    monkeypatch.setitem(inject._ACTIONS, "kill", lambda fault, where: lambda: fired.append(fault.text))
    run = run_with(tmp_path)
    run.second.enabled = True
    run.faults = ("kill rank 0 at sample 0 in second",)
    for job in ("first", "second"):
        with armed(run, job, PlainWorld(str(tmp_path))):
            inject.at_step(0, 8)
            assert fired == (["kill rank 0 at sample 0 in second"] if job == "second" else [])


def test_without_ray_no_node_can_be_dropped(tmp_path):
    with (
        armed(run_with(tmp_path, "drop node of rank 0 at sample 0"), "first", PlainWorld(str(tmp_path))),
        pytest.raises(FaultError, match="not started by Ray"),
    ):
        inject.at_step(0, 8)


def test_a_slow_loader_is_slow_from_its_sample_on(tmp_path):
    run = run_with(tmp_path, "slow loader of rank 0 by 0.05 s from sample 8")
    with armed(run, "first", PlainWorld(str(tmp_path))):
        waits = [waited for _, waited in inject.stream(iter([(None, 0.0)] * 3), 0, 8, 1)]
    assert waits[0] < min(waits[1:])
    assert min(waits[1:]) >= 0.05


def test_a_loader_hangs_for_as_long_as_it_says(tmp_path):
    run = run_with(tmp_path, "hang loader of rank 0 at sample 9 for 0.2 s")
    began = time.monotonic()
    with armed(run, "first", PlainWorld(str(tmp_path))):
        waits = [waited for _, waited in inject.stream(iter([(None, 0.0)] * 3), 0, 8, 1)]
    assert waits[1] >= 0.2
    assert time.monotonic() - began < 60
