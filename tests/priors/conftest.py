"""A batch for each prior."""

import pytest
from batches import make_batch

from spfem_dist.records import Batch


@pytest.fixture
def content_batch() -> Batch:
    return make_batch(4, 2, 6)


@pytest.fixture
def emotion_batch() -> Batch:
    return make_batch(3, 7, 2)
