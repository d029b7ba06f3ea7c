"""A way to a face for machines without the mesh's weights."""

import numpy as np
import pytest
from toy_generator import talking_head


@pytest.fixture(scope="session")
def known(tmp_path_factory):
    """A file of the talking head's true landmarks, which make the mesh unnecessary."""
    path = tmp_path_factory.mktemp("landmarks") / "head.npy"
    np.save(path, talking_head().landmarks)
    return path
