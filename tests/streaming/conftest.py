"""The coded shards of the streaming tests: one set for all, and copies of it to break."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from coded_shards import Small, make_group, write_shards

from spfem_dist.emotions import SEVEN


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    groups = [
        make_group(f"S{g // 3:02d}", f"{g % 3:03d}", SEVEN if g % 2 == 0 else SEVEN[:3], 8 * g) for g in range(11)
    ]
    groups.append(make_group("S99", "000", SEVEN[:1], 88))
    root = write_shards(tmp_path_factory.mktemp("shards") / "small", [groups[n : n + 2] for n in range(0, 12, 2)])
    return Small(root, groups)


@pytest.fixture
def copy_of_small(small: Small, tmp_path: Path) -> Callable[[], Small]:
    """A copy of the small shards that a test may break."""

    def copy() -> Small:
        return Small(Path(shutil.copytree(small.root, tmp_path / "copy")), small.groups)

    return copy
