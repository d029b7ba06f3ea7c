"""The toy recipe of the training tests, for faults to fire."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

import pytest
from doors import well
from once import made_once
from toy_runs import alone, losses


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The losses of the toy run that nothing disturbs, by step."""
    return losses(made_once(tmp_path_factory, "reference", lambda storage: well(alone(storage))))
