"""Hosts die and come, links are cut and slow, drivers are killed: a run on hosts ends with the losses of one process."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest
from comparing import LONG, curves, same_losses
from mlflow import MlflowClient

RUN = (*LONG, "--checkpoint.every-steps", "5")
#: As many workers as there are hosts.
ELASTIC = ("--scaling.workers", "1", "2", "--scaling.resize-check-s", "5", "--scaling.max-failures")


def unhurried(seconds):
    """A step takes at least this long, so that something can happen between two, and everything before the last."""
    return ("--faults", f"slow loader of rank 0 by {seconds} s from sample 0")


@pytest.fixture
def ends_well(cluster, shared, reference):
    """(job) -> None: it ends with every loss of every step as one process computes it, each point once in MLflow.

    under_way: steps whose points may be there twice: on their way when a link was cut, they arrived once it was mended.
    """

    def check(job, under_way=()) -> None:
        job.wait()
        wanted = reference(*LONG)["ccrl"]
        largest = same_losses(shared.json(f"{job.name}/ccrl/history.json"), wanted)
        print(f"{job.name}: largest difference of a loss {largest:.1e}")
        for name, points in curves(MlflowClient(shared.tracking), shared, job.name, "ccrl").items():
            steps = Counter(point.step // 4 for point in points)
            if name in {key for _, key in wanted}:
                assert sorted(steps) == sorted(step for step, key in wanted if key == name), name
                assert {step for step, count in steps.items() if count > 1} <= set(under_way), name

    return check


def test_a_run_shrinks_when_a_host_dies_and_grows_when_one_comes(cluster, ends_well):
    """All processes of a host end at once, its address is gone; later a new one joins: 2 -> 1 -> 2 workers."""
    job = cluster.submit("elastic", *RUN, *ELASTIC, "1", *unhurried(0.4))
    job.reach(12)
    said, died = len(job.text()), time.monotonic()
    cluster.hosts.pop().kill()
    shrunk = job.goes_on(1, said)
    new = cluster.join()
    said, joined = len(job.text()), time.monotonic()
    grown = job.goes_on(2, said)
    print(f"host dead to next step {shrunk - died:.1f} s; new host joined to next step of two {grown - joined:.1f} s")
    ends_well(job)
    assert new.address in job.hosts()


def test_a_cut_link_is_a_lost_host_and_a_drained_host_is_left_in_time(cluster, ends_well):
    """Nobody is told of the cut; of the drain everybody is, so it is no failure: one is allowed, and the cut was it."""
    job = cluster.submit("cut-and-drained", *RUN, *ELASTIC, "1", *unhurried(1.2))
    job.reach(12)
    said, cut = len(job.text()), time.monotonic()
    cluster.hosts[-1].cut()
    at = job.steps()["ccrl"]
    noticed = cluster.gone(cluster.hosts[-1])
    shrunk = job.goes_on(1, said)
    print(f"a cut link was noticed after {noticed - cut:.1f} s; cut to next step {shrunk - cut:.1f} s")

    cluster.hosts[-1].mend()
    said = len(job.text())
    cluster.rejoin(cluster.hosts[-1])
    job.goes_on(2, said)

    said, told = len(job.text()), time.monotonic()
    cluster.drain(cluster.hosts[-1])
    left = job.goes_on(1, said)
    print(f"drain notice to next step {left - told:.1f} s")
    leaving = re.search(r"about to be taken away; the run goes on from step (\d+)", job.text())
    assert leaving is not None
    assert f"at step {leaving[1]} (" in job.text()[said:]
    ends_well(job, under_way=range(at - 1, at + 3))


def test_a_slow_network_and_a_killed_driver_change_no_loss(cluster, ends_well):
    """100 Mbit/s, 2 ms of delay where the kernel has netem; the driver is killed, and the same command given again."""
    flags = (*RUN, "--scaling.workers", "2", "--scaling.placement", "STRICT_SPREAD")
    way = cluster.hosts[-1].slow(megabits=100, delay_ms=2)
    try:
        killed = cluster.submit("slow-network", *flags, "--faults", "kill driver at sample 70")
        assert killed.process.wait(400) != 0, killed.text()[-3000:]
        again = cluster.submit("slow-network", *flags)
        ends_well(again)
    finally:
        cluster.hosts[-1].hurry()
    print(f"slowed by {way}")
    assert "2 workers resumed from" in again.text()
