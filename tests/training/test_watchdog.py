"""A worker that hangs says where, names who holds the others up, and makes way for another attempt."""

import json
import re

import pytest
from doors import well
from toy_runs import alone, losses, together

from spfem_dist.training.watchdog import HUNG, Report, verdict

QUICK = ["--scaling.hang-seconds", "6"]


def test_a_hang_ends_the_process_with_its_stacks_and_the_same_command_goes_on(reference, tmp_path):
    flags = [*QUICK, "--faults", "hang rank 0 at sample 71"]
    hung = alone(tmp_path, *flags)
    assert hung.code == HUNG
    assert "rank 0 stands still" in hung.out
    (stacks,) = (tmp_path / "toy" / "first" / "hangs").glob("*-rank-0.txt")
    assert re.search(r"\(trains\):.*in at_step\n.*inject\.py", stacks.read_text(), re.DOTALL)
    assert "after step 8, between steps" in stacks.read_text()
    again = well(alone(tmp_path, *flags))
    assert "at step 6" in again.said
    assert losses(tmp_path) == reference


def test_a_loader_that_hangs_is_told_from_a_computation(tmp_path):
    hung = alone(tmp_path, *QUICK, "--faults", "hang loader of rank 0 at sample 71")
    assert hung.code == HUNG
    assert "after step 8, waiting for data" in hung.out


def test_who_holds_the_others_up_is_named(tmp_path):
    """Rank 1 stands still before the step, rank 0 waits for it in the step's first collective."""
    hung = together(2, tmp_path, *QUICK, "--faults", "hang rank 1 at sample 71")
    assert hung.code == HUNG
    assert re.search(r"first: rank 0 waited for rank 1 on \S+ \(.*inject\.py", hung.out), hung.out[-3000:]
    waits, stands = (
        json.loads((tmp_path / "toy" / "first" / "hangs" / f"rank-{rank}.json").read_text()) for rank in (0, 1)
    )
    assert "gloo:" in waits["pending"][0]
    assert stands["pending"] == []


def report(rank, pending=(), begun=5):
    return Report(rank, "host", 8, "updating first", 3.0, "a.py:1 in f", list(pending), {"0": begun}, 0.0)


@pytest.mark.parametrize(
    ("reports", "says"),
    [
        ([report(0, ["gloo:all_reduce"]), report(2, ["gloo:all_reduce"])], "rank 1 did not report"),
        ([report(0), report(1, ["g"]), report(2, ["g"])], "ranks 1, 2 waited for rank 0 on host"),
        ([report(0, ["g"], 7), report(1, ["g"], 6), report(2, ["g"], 7)], "ranks 0, 2 waited for rank 1 on host"),
        ([report(0, ["g"]), report(1, ["g"]), report(2, ["g"])], "all ranks wait for each other"),
        ([report(0), report(1), report(2)], "rank 0 stands still, updating first, at a.py:1 in f; rank 1 stands still"),
    ],
)
def test_the_verdict(reports, says):
    assert says in verdict(reports, 3)
