"""The chart's release, run by a kubelet in small; skipped where namespaces, rules or PostgreSQL cannot be had."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
for folder in ("k8s", "hosts"):  # the chart as objects; hosts and the services on them
    sys.path.append(str(TESTS / folder))

from network import BIN, ROOT, Network, unavailable  # noqa: E402
from release import Release  # noqa: E402
from services import postgres_programs  # noqa: E402


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in Path(item.fspath).parents:
            item.add_marker(pytest.mark.kubelet)
            item.add_marker(pytest.mark.timeout(1800))  # the first one waits for all; `make kubelet` has its own bound


def _missing() -> str:
    if reason := unavailable():
        return reason
    if not shutil.which("nft"):
        return "nft is not here, by which network policies are enforced (Debian: apt-get install nftables)"
    if postgres_programs() is None:
        return "PostgreSQL's programs are not here (Debian: apt-get install postgresql)"
    if any(str(place).startswith("/tmp/") for place in (Path(sys.prefix), Path(sys.base_prefix), ROOT)):
        return "the project or its interpreter lies in /tmp, which every pod has for itself"
    return ""


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """The release after its job has ended; head, workers, MLflow and PostgreSQL are still there."""
    if reason := _missing():
        pytest.skip(reason)
    begin = time.monotonic()
    shards = tmp_path_factory.mktemp("shards")
    line = [BIN / "spfem", "prepare", "synthetic", "--out", shards, "--identities", "4"]
    done = subprocess.run([*line, "--synthetic-sentences", "3", "--local"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    network = Network()
    try:
        made = Release(network, tmp_path_factory.mktemp("pods"))
        made.seconds["synthetic shards"] = time.monotonic() - begin
        try:
            made.start_store(shards)
            made.run()
            yield made
        except AssertionError:
            made.show()
            raise
        finally:
            made.close()
    finally:
        network.close()
