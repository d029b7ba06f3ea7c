"""A few small shards to read."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "streaming"))

from coded_shards import make_group, write_shards

from spfem_dist.emotions import SEVEN


@pytest.fixture(scope="session")
def coded(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), [[make_group("S00", "000", SEVEN[:2], 0)]])
