"""The mesh's weights, and a second way to a face for machines without them."""

import numpy as np
import pytest
from toy_generator import talking_head

from spfem_dist import weights


@pytest.fixture(scope="session")
def mesh() -> str:
    """The name of the finder; its tests are skipped where its weights cannot be had."""
    try:
        weights.pull("face-mesh")
    except weights.MissingWeights as error:
        pytest.skip(str(error).splitlines()[0])
    return "mesh"


@pytest.fixture(scope="session")
def known(tmp_path_factory):
    """A file of the talking head's true landmarks, which make the mesh unnecessary."""
    path = tmp_path_factory.mktemp("landmarks") / "head.npy"
    np.save(path, talking_head().landmarks)
    return path
