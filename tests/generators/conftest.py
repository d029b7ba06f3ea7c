"""A corpus and priors for stage 2, and one finished run on them."""

import pytest
from doors import well
from toy_stage2 import alone, make_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("stage2"))


@pytest.fixture(scope="session")
def finished(toy, tmp_path_factory):
    """Storage of a run of six steps in one process, with a checkpoint every three and a profile of the second and third."""
    storage = tmp_path_factory.mktemp("finished")
    well(alone(toy, storage, "--checkpoint.every-steps", "3", "--profile.steps", "2", "3"))
    return storage
