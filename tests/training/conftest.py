"""The uninterrupted run in one process, which every other way to train is held against."""

import pytest
from doors import well
from once import made_once
from toy_runs import alone, losses


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Storage of the finished run."""
    return made_once(tmp_path_factory, "reference", lambda storage: well(alone(storage)))


@pytest.fixture(scope="session")
def reference(finished):
    """Its loss by step."""
    return losses(finished)
