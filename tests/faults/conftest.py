"""The toy recipe of the training tests, for faults to fire."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

import pytest
from doors import well
from toy_runs import alone, losses


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The losses of the toy run that nothing disturbs, by step."""
    storage = tmp_path_factory.mktemp("undisturbed")
    well(alone(storage))
    return losses(storage)
