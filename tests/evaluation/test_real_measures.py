"""What an edit of a real film changed that it should not have, and how figures are made of it."""

import numpy as np
import pytest
from pulled import pulled
from toy_generator import film, talking_head

from spfem_dist.editing.video import footage
from spfem_dist.emotions import SIX
from spfem_dist.evaluation.generator import ClipScore
from spfem_dist.evaluation.open_judges.seen import track_of
from spfem_dist.evaluation.real.figures import bars, real_figures
from spfem_dist.evaluation.real.measures import Comparison, background, lag, series_correlation, skin
from spfem_dist.evaluation.real.scores import distances_of_films
from spfem_dist.prepare.landmarks import mouth_region


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """(frames of a rendered head, its track by the mesh)."""
    pulled("face-mesh")
    frames = talking_head(frames=8).frames
    return frames, track_of(footage(film(tmp_path_factory.mktemp("heads") / "head.mp4", frames)))


def measured(head, edited) -> tuple[dict[str, float], dict[str, float]]:
    frames, track = head
    comparison = Comparison(track, track, 25.0)
    for number, (frame, edit) in enumerate(zip(frames, edited, strict=True)):
        comparison.look(number, frame, edit)
    return comparison.values()


def test_a_copy_changes_nothing(head):
    mine, copy = measured(head, head[0])
    assert mine == copy
    assert (mine["background_change"], mine["sharpness"]) == (0, 1)
    assert 0 < mine["jitter_skin"] < 5


def test_a_change_outside_of_the_face_is_counted_and_one_inside_is_not(head):
    frames, track = head
    inside = background([track.landmarks[0]], frames[0].shape[:2]) == 0
    face, around = (
        np.where(mask[..., None], frames.astype(int) + 10, frames).clip(0, 255).astype(np.uint8)
        for mask in (inside, ~inside)
    )
    assert (
        measured(head, face)[0]["background_change"] < 0.5
    )  # the head moves a little within the first frame's outline
    assert measured(head, around)[0]["background_change"] == pytest.approx(10, abs=1.5)


def test_a_smeared_mouth_is_less_sharp_and_the_rest_does_not_matter(head):
    import cv2

    frames, track = head
    x0, y0, x1, y1 = mouth_region(track.landmarks[0], "mesh478").astype(int)
    mouth, rest = frames.copy(), frames.copy()
    for number, frame in enumerate(frames):
        soft = cv2.GaussianBlur(frame, (0, 0), 2.0)
        mouth[number, y0 - 4 : y1 + 4, x0 - 4 : x1 + 4] = soft[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4]
        rest[number, : y0 - 12] = soft[: y0 - 12]
    assert measured(head, mouth)[0]["sharpness"] < 0.6
    assert measured(head, rest)[0]["sharpness"] == pytest.approx(1, abs=0.05)


def test_shimmer_is_seen_where_it_is(head):
    frames, track = head
    outside = background([track.landmarks[0]], frames[0].shape[:2]) > 0
    sign = np.where(np.arange(len(frames)) % 2, 4, -4)[:, None, None, None]
    shimmering = {
        name: np.where(mask[..., None], frames.astype(int) + sign, frames).clip(0, 255).astype(np.uint8)
        for name, mask in (("background", outside), ("skin", ~outside))
    }
    for name, other in (("background", "skin"), ("skin", "background")):
        mine, copy = measured(head, shimmering[name])
        assert mine[f"jitter_{name}"] > copy[f"jitter_{name}"] + 5
        assert mine[f"jitter_{other}"] < copy[f"jitter_{other}"] + 1


def test_skin_is_neither_lips_nor_eyes(head):
    points = head[1].landmarks[0].astype(float)
    low, high = points.min(0), points.max(0)
    scaled = (points - low) * (128 / (high - low).max())
    mask = skin(scaled, 128)
    for number, there in ((4, True), (50, True), (280, True), (13, False), (14, False), (159, False), (386, False)):
        x, y = scaled[number].round().astype(int)
        assert mask[y, x] == there, number


def test_a_late_mouth_is_found_late_by_its_frames():
    source = np.random.default_rng(0).normal(size=60).cumsum()
    assert lag(source, source, 25) == 0
    assert lag(np.r_[[np.nan] * 3, source[:-3]], source, 25) == 3
    assert lag(source[2:], source[:-2], 25) == -2
    assert np.isnan(lag(np.ones(60), source, 25))
    for frames in range(3, 9):  # shorter than the search is long
        assert lag(source[:frames], source[:frames], 25) == 0
    assert np.isnan(lag(source[:2], source[:2], 25))
    assert series_correlation(np.r_[np.nan, source[1:]], source) == pytest.approx(1)


def test_distances_are_of_one_person_and_of_two_and_nobody_unknown_counts():
    a, b = np.zeros((4, 128)), np.zeros((3, 128))
    b[:, 0] = 0.5
    same, others = distances_of_films([("x", a), ("x", b), ("y", b), ("", a)]).values()
    assert same == pytest.approx([0.5])
    assert sorted(others) == pytest.approx([0.0, 0.5])


# --- figures ------------------------------------------------------------------------------------------------------


def rows(film: str, emotion: str, edit: float, copy: float, **more: float) -> list[ClipScore]:
    names = ("emotion_probability", "fer_probability", "face_api_probability")
    return [
        ClipScore(row, "label", film, emotion, "", dict.fromkeys(names, value) | (more if row == "edit" else {}))
        for row, value in (("edit", edit), ("copy", copy))
    ]


def test_means_are_over_films_and_differences_are_paired():
    scores = [*rows("a", "happy", 0.9, 0.1), *rows("a", "sad", 0.5, 0.3), *rows("b", "happy", 0.3, 0.2)]
    found = real_figures(scores)
    happy = found["real/edit/by_emotion/happy/emotion_probability"]
    assert (happy.value, happy.clips) == (pytest.approx(0.6), 2)
    over = found["real/edit/emotion_probability"]
    assert (over.value, over.clips) == (
        pytest.approx((0.7 + 0.3) / 2),
        2,
    )  # film a counts once, whatever it was edited into
    assert found["real/edit/by_emotion/happy/emotion_probability_minus_copy"].value == pytest.approx((0.8 + 0.1) / 2)
    assert "real/copy/emotion_probability_minus_copy" not in found
    assert found["real/copy/by_emotion/sad/fer_probability"].value == pytest.approx(0.3)


def test_an_edit_has_to_be_above_its_bar_and_above_the_copy():
    def verdicts(edit, copy):
        figures = real_figures(rows("a", "sad", edit, copy, sharpness=1.3, mouth_lag=0.0))
        return [(bar.name.rpartition("/")[2], bar.met(figures)) for bar in bars(figures)]

    others = [("mouth_lag", True), ("sharpness", True), ("sharpness", False)]
    name = "emotion_probability"
    assert verdicts(0.40, 0.05) == [(name, True), (name, True), *others]
    assert verdicts(0.40, 0.35) == [(name, True), (name, False), *others]
    assert verdicts(0.30, 0.05) == [(name, False), (name, True), *others]
    assert [str(emotion) for emotion in SIX] == ["angry", "disgusted", "fear", "happy", "sad", "surprised"]
