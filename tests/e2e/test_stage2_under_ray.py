"""Stage 2 under Ray Train, as the documented command starts it."""

import json

import pytest
from doors import well
from toy_stage2 import RAY, alone, losses, make_toy, started

BRIEF = ["--ned.steps", "3", "--zero.precision", "fp64", "--validation.every-steps", "0"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("stage2"))


def test_two_ray_workers_repeat_the_losses_of_one_process(toy, tmp_path):
    well(alone(toy, tmp_path / "alone", *BRIEF))
    well(started(RAY, toy, tmp_path / "ray", *BRIEF))
    expected = losses(tmp_path / "alone")
    assert losses(tmp_path / "ray") == pytest.approx(expected, abs=1e-5)
    recorded = [
        json.loads((tmp_path / way / "r" / "ned" / "model" / "config.json").read_text())["facts"]["priors"]
        for way in ("alone", "ray")
    ]
    assert recorded[0] == recorded[1]
