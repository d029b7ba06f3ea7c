"""What this process does at the moment, said by whoever does it: signs of life, which the watchdog reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Activity:
    """What this process does. step: optimiser steps done. begun: whether one was done here. count: how often any of it changed."""

    what: str = "starting"
    step: int = 0
    begun: bool = False
    count: int = 0


activity = Activity()


def restart() -> None:
    """Begin anew, as at the start of a job."""
    global activity
    activity = Activity()


def beat(what: str) -> None:
    """Say what this process begins to do."""
    activity.what = what
    activity.count += 1


def stepped(step: int) -> None:
    """Say that optimiser step `step` is done."""
    activity.what, activity.step, activity.begun = "between steps", step, True
    activity.count += 1
