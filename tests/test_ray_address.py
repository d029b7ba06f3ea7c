"""How the processes of Ray authenticate, decided before Ray is imported."""

import os
import re
import sys

import pytest

from spfem_dist.ray_address import NoCluster, authenticate, start_here


@pytest.fixture
def fresh(monkeypatch):
    """An environment that says nothing of Ray, in a process that has not imported it."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS", "RAY_JOB_ID"):
        monkeypatch.setenv(name, "")  # so that it is given back, whatever the call sets
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    return monkeypatch


def test_a_ray_of_ones_own_has_a_token_that_nobody_else_has(fresh):
    authenticate()
    first = os.environ["RAY_AUTH_TOKEN"]
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert re.fullmatch("[0-9a-f]{64}", first)
    authenticate()
    assert os.environ["RAY_AUTH_TOKEN"] == first, "a second start in this process is of the same Ray"


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_what_the_environment_says_stands(fresh, mode):
    fresh.setenv("RAY_AUTH_MODE", mode)
    authenticate()
    assert os.environ["RAY_AUTH_MODE"] == mode
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_nothing_is_made_up_for_a_cluster_that_is_there(fresh):
    fresh.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    authenticate()
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.fixture
def starts(monkeypatch):
    """How each call of `ray.init` ends, to be filled by a test: an error, or None."""
    import ray

    ends = []

    def init(**settings):
        assert settings["address"] == "local"
        if error := ends.pop(0):
            raise error

    monkeypatch.setattr(ray, "init", init)
    return ends


LATE = Exception("The current node timed out during startup. This could happen because ...")


def test_a_ray_that_a_busy_machine_kept_from_starting_is_started_again(starts, capsys):
    starts += [LATE, LATE, None]
    start_here(cpus=2)
    assert capsys.readouterr().err.count("it is started again") == 2
    assert starts == []


def test_a_machine_that_is_too_busy_for_ray_is_said_with_what_to_do(starts):
    starts += [LATE] * 3
    with pytest.raises(NoCluster, match=r"tried 3 times: .*--local"):
        start_here(cpus=2)


def test_any_other_failure_of_rays_start_is_not_tried_again(starts):
    starts += [ValueError("num_cpus"), None]
    with pytest.raises(ValueError, match="num_cpus"):
        start_here(cpus=-1)
