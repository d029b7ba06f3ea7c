"""Films, and a place of its own for what a page keeps."""

import tempfile

import pytest
from toy_generator import film, talking_head

from spfem_dist.web.visits import Visits


@pytest.fixture(scope="session")
def talk(tmp_path_factory):
    """A film of 30 frames with sound."""
    return film(tmp_path_factory.mktemp("films") / "talk.mp4", talking_head().frames)


@pytest.fixture
def visits(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = Visits()
    yield made
    made.close()
