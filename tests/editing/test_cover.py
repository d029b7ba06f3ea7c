"""What covers a face stays still: told on rendered heads whose landmarks are known, something drawn before them."""

import cv2
import numpy as np
import pytest

from spfem_dist.corpora.heads import HeadsCorpus
from spfem_dist.editing.clip import edited_pictures
from spfem_dist.editing.cover import covered, looks, masks
from spfem_dist.editing.face import Followed
from spfem_dist.editing.video import Colour, Picture
from spfem_dist.emotions import Emotion
from spfem_dist.generators.generator import Face, Motion
from spfem_dist.generators.rendered import Rendered
from spfem_dist.prepare.mesh import Region

SIZE, CHIN, MOUTH = 192, 152, 13


@pytest.fixture(scope="module")
def film():
    """Frames and landmarks of a head that speaks, and the frames in which something will be before it."""
    corpus = HeadsCorpus(seed=3, size=SIZE)
    shown = corpus.render(corpus.clip(4, 0, Emotion.NEUTRAL))
    count = len(shown.frames)
    return shown.frames, shown.landmarks, slice(count // 3, count // 2)


def before_the_mouth(frames, landmarks, when, colour):
    """A disc from mouth to chin; returns the frames and its masks."""
    frames, drawn = frames.copy(), np.zeros(frames.shape[:3], np.uint8)
    for number in range(*when.indices(len(frames))):
        middle = landmarks[number, [MOUTH, CHIN]].mean(0)
        radius = np.linalg.norm(landmarks[number, MOUTH] - landmarks[number, CHIN])
        cv2.circle(drawn[number], tuple(int(v) for v in middle), int(radius), 255, -1)
        frames[number][drawn[number] > 0] = colour
    return frames, drawn


def hidden_points(frames, landmarks):
    seen = np.stack([looks(frame, points) for frame, points in zip(frames, landmarks, strict=True)])
    return covered(seen, landmarks, 25.0)


def test_a_face_that_only_speaks_and_winks_is_open(film):
    frames, landmarks, _ = film
    hidden = hidden_points(frames, landmarks)
    assert hidden is None or hidden[:, :468].mean() < 0.01


@pytest.mark.parametrize(
    ("colour", "share"),
    [((35, 35, 40), 0.9), ((235, 235, 235), 0.9), ((150, 110, 90), 0.5)],
    ids=["dark", "bright", "like the skin"],
)
def test_what_comes_before_the_face_is_found_where_and_when_it_is(film, colour, share):
    frames, landmarks, when = film
    changed, drawn = before_the_mouth(frames, landmarks, when, colour)
    hidden = hidden_points(changed, landmarks)
    assert hidden is not None
    places = np.rint(landmarks[:, :468]).astype(int).clip(0, SIZE - 1)
    truth = drawn[np.arange(len(drawn))[:, None], places[..., 1], places[..., 0]] > 0
    assert hidden[:, :468][truth].mean() > share
    assert hidden[:, :468][~truth].mean() < 0.1, "around it, mostly"
    away = np.r_[: max(0, when.start - 5), min(len(frames), when.stop + 5) : len(frames)]
    assert hidden[away, :468].mean() < 0.01


def test_frames_without_a_face_and_short_films_are_left_alone(film):
    frames, landmarks, when = film
    seen = np.stack([looks(frame, points) for frame, points in zip(frames, landmarks, strict=True)])
    assert covered(seen[:10], landmarks[:10], 25.0) is None
    changed, _ = before_the_mouth(frames, landmarks, when, (35, 35, 40))
    seen = np.stack([looks(frame, points) for frame, points in zip(changed, landmarks, strict=True)])
    gone = landmarks.copy()
    seen[:5], gone[:5] = np.nan, np.nan
    hidden = covered(seen, gone, 25.0)
    assert hidden is not None
    assert np.isfinite(hidden).all()
    drawn = masks(hidden, gone, [Region(SIZE / 2, SIZE / 2, SIZE, 0.0)] * len(gone))
    assert not drawn[:5].any()
    assert (drawn[when] == 255).any()


class Shift:
    """A generator that moves the whole crop to the right and paints it brighter."""

    size, topology = 64, "mesh478"

    def render(self, frames, motion, first=0, flow_side=None):
        side = flow_side or self.size
        flow = np.zeros((len(frames), side, side, 2), np.float32)
        flow[..., 0] = -0.05
        return Rendered(flow, np.full(frames.shape, 20, np.float32), np.ones(frames.shape[:3], np.float32))


def test_an_edit_leaves_what_covers_the_face_where_it_is():
    rng = np.random.default_rng(0)
    y, u, v = (rng.integers(60, 180, (side, side), np.uint8) for side in (128, 64, 64))
    picture = Picture(y, u, v, Colour(1, False, 1, 1), 0, 1)
    cover = np.zeros((1, 32, 32), np.uint8)
    cover[:, 16:] = 255
    points = np.zeros((1, 478, 2), np.float32)
    region = [Region(64.0, 64.0, 256.0, 0.0)]  # larger than the picture: no edge of the crop fades within it
    face = Face(points, np.ones(1, bool), 64, "mesh478")
    followed = Followed(region, face, np.ones(1, np.float32), 1, covers=cover)
    ((_, edited),) = edited_pictures([picture], followed, Shift(), Motion(points, points), 0)
    assert (edited.y[104:] == y[104:]).all()
    assert (edited.u[52:] == u[52:]).all()
    assert (edited.y[:40] != y[:40]).mean() > 0.9
    assert followed.hidden == 1
