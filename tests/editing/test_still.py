"""One frame of a film, edited again and again, is the frame that the edited film will have."""

import numpy as np
import pytest
from toy_generator import Brightener, film, talking_head

from spfem_dist.editing.clip import EditTarget, redrawn, wanted_motion
from spfem_dist.editing.face import finder_for, follow
from spfem_dist.editing.still import still
from spfem_dist.editing.video import EditError, footage, pictures
from spfem_dist.emotions import Emotion


@pytest.fixture
def talk(tmp_path, mesh):
    return footage(film(tmp_path / "talk.mp4", talking_head().frames, b_frames=2))


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.16, 99.0])
def test_the_frame_is_the_one_shown_then_whether_found_alone_or_in_the_whole(talk, seconds):
    toy, finder = Brightener(), finder_for("mesh", False)
    followed = follow(talk, finder, toy.size, toy.topology)
    number = min(round(seconds * 25), 29)
    wanted = list(pictures(talk))[number]
    for known in (None, followed):
        found = still(talk, seconds, toy, finder, known)
        assert found.picture.pts == wanted.pts
        assert np.array_equal(found.picture.y, wanted.y)
        assert found.shows_face


def test_a_frame_of_a_followed_film_is_edited_as_the_film_is(talk):
    toy, finder, target = Brightener(), finder_for("mesh", False), EditTarget(Emotion.HAPPY)
    followed = follow(talk, finder, toy.size, toy.topology)
    motion = wanted_motion(talk, followed, toy, target)
    _, wanted = list(redrawn(talk, followed, toy, motion))[13]
    edited = still(talk, 13 / 25, toy, finder, followed).edited(toy, target)
    assert all(np.array_equal(a, b) for a, b in ((edited.y, wanted.y), (edited.u, wanted.u), (edited.v, wanted.v)))


def test_frames_without_a_face_are_said(tmp_path, mesh):
    wall = footage(film(tmp_path / "wall.mp4", np.full((20, 128, 128, 3), 90, np.uint8)))
    with pytest.raises(EditError, match="no face"):
        still(wall, 0.4, Brightener(), finder_for("mesh", False))
