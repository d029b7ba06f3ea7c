"""A corpus and priors for stage 2, and one finished run on them."""

import pytest
from doors import well
from once import made_once
from toy_stage2 import alone, toy_of


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return toy_of(tmp_path_factory)


@pytest.fixture(scope="session")
def finished(toy, tmp_path_factory):
    """Storage of a run of six steps in one process, with a checkpoint every three and a profile of the second and third."""

    def train(storage):
        well(alone(toy, storage, "--checkpoint.every-steps", "3", "--profile.steps", "2", "3"))

    return made_once(tmp_path_factory, "finished-ned", train)
