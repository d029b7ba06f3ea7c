"""Two hosts, what they share, and the run that every run on them is held against."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import services
from cluster import Cluster, Shared
from comparing import losses_of
from network import BIN, ROOT, Network, unavailable
from small_corpus import SPLIT


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in Path(item.fspath).parents:
            item.add_marker(pytest.mark.hosts)
            item.add_marker(pytest.mark.timeout(900))  # where the machine is busy with much else


@pytest.fixture(scope="session")
def network():
    """A bridge for hosts."""
    if reason := unavailable():
        pytest.skip(reason)
    if services.postgres_programs() is None:
        pytest.skip("PostgreSQL's programs are not here (Debian: apt-get install postgresql)")
    made = Network()
    yield made
    made.close()


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """A folder of shards of four synthetic speakers, and the split beside it."""
    folder = tmp_path_factory.mktemp("data")
    line = [BIN / "spfem", "prepare", "synthetic", "--out", folder / "shards", "--identities", "4"]
    done = subprocess.run(
        [*line, "--synthetic-sentences", "3", "--local"], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "split.json").write_text(json.dumps(SPLIT))
    return folder


@pytest.fixture(scope="session")
def shared(network, shards, tmp_path_factory):
    """S3 with those shards in the bucket `faces`, PostgreSQL and MLflow's server, all on the bridge's address."""
    folder = tmp_path_factory.mktemp("services")
    made = Shared(network, folder)
    try:
        made.start(shards)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def reference(shards, tmp_path_factory):
    """(flags) -> losses of `recipes/cdrl_stage1.py --local` with them, by job, step and name; each is run once."""
    found: dict[tuple[str, ...], dict] = {}

    def run(*flags: str) -> dict:
        if flags not in found:
            storage = tmp_path_factory.mktemp("reference")
            places = ["--data.shards", shards / "shards", "--data.split", shards / "split.json"]
            places += [
                "--checkpoint.storage",
                storage,
                "--tracking.uri",
                "",
                "--name",
                "hosts",
                "--scaling.workers",
                "1",
            ]
            done = subprocess.run(
                [str(w) for w in (sys.executable, "recipes/cdrl_stage1.py", "--local", *flags, *places)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=400,
                env=os.environ | {"DS_ACCELERATOR": "cpu"},
            )
            assert done.returncode == 0, done.stderr[-3000:]
            histories = storage.glob("hosts/*/history.json")
            found[flags] = {file.parent.name: losses_of(json.loads(file.read_text())) for file in histories}
        return found[flags]

    return run


@pytest.fixture(scope="session")
def cluster(network, shared, tmp_path_factory, request):
    """Two hosts with one CPU each, joined to one Ray cluster; gone after the last test."""
    made = Cluster(network, shared, tmp_path_factory.mktemp("cluster"))
    try:
        made.head()
        made.join()
        yield made
        if request.session.testsfailed:
            made.show()
    finally:
        made.close()


@pytest.fixture(autouse=True)
def left_as_it_was(request):
    """A test leaves no job behind, and two hosts in the cluster, whatever became of it."""
    yield
    if "cluster" in request.fixturenames:
        cluster = request.getfixturevalue("cluster")
        for job in cluster.jobs:
            job.end()
        cluster.repair()
