"""One SQLite store for all tracking tests (making one takes seconds); each test has its own experiment and run folder."""

from __future__ import annotations

import pytest
from cdrl_stage1 import CDRLPriors

from spfem_dist.tracking.store import open_client


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    open_client(uri).search_experiments()  # makes the tables
    return uri


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What is fetched goes here, not to the user's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def run(store, tmp_path, request):
    """A run that tracks into the shared store, in an experiment of this test's own."""
    run = CDRLPriors(name="demo", recipe="cdrl_stage1")
    run.tracking.uri = store
    run.tracking.experiment = request.node.name
    run.checkpoint.storage = str(tmp_path / "runs")
    return run


@pytest.fixture
def client(store):
    return open_client(store)
