"""What a recorded face is asked to show: steady shifts, and lips and lids that keep to the speaker's own gaps."""

import numpy as np
import pytest
from toy_generator import talking_head

from spfem_dist.editing.motion import shown_by_moving
from spfem_dist.generators.face.topology import topology
from spfem_dist.generators.generator import Motion
from spfem_dist.prepare.landmarks import mouth_opening

ORDER, FPS = "ibug68", 25.0
UPPER, LOWER = [61, 62, 63, 50, 51, 52], [65, 66, 67, 56, 57, 58]


@pytest.fixture
def points():
    return talking_head().landmarks.astype(np.float32)


def closed(points):
    """The same face with its inner lips on one line."""
    shut = points.copy()
    shut[:, [61, 62, 63]] = shut[:, [67, 66, 65]] = (shut[:, [61, 62, 63]] + shut[:, [67, 66, 65]]) / 2
    return shut


def parted(points, by):
    """The same face with its lips `by` pixels further apart."""
    open_ = points.copy()
    open_[:, UPPER, 1] -= by / 2
    open_[:, LOWER, 1] += by / 2
    return open_


def test_closed_lips_stay_closed(points):
    shut = closed(points)
    result = shown_by_moving(Motion(shut, parted(shut, 6.0)), ORDER, FPS)
    assert mouth_opening(result.target, ORDER).max() < 0.01, "eye distances"


def test_lips_are_never_drawn_past_each_other(points):
    result = shown_by_moving(Motion(points, parted(points, -12.0)), ORDER, FPS)
    gaps = result.target[:, [67, 66, 65], 1] - result.target[:, [61, 62, 63], 1]
    assert gaps.min() > -0.2, "pixels"


def test_the_mouth_moves_with_the_speakers(points):
    """An edit that opens the mouth by a fixed amount would lose the words; its opening follows the source's instead."""
    result = shown_by_moving(Motion(points, parted(points, 8.0)), ORDER, FPS)
    source, edited = (mouth_opening(p, ORDER) for p in (points, result.target))
    assert np.corrcoef(source, edited)[0, 1] > 0.95
    assert (edited <= 1.5 * source + 0.02).all()


def test_the_outer_lips_go_with_the_inner_ones(points):
    shut = closed(points)
    result = shown_by_moving(Motion(shut, parted(shut, 6.0)), ORDER, FPS).target
    thickness = lambda p: p[:, [61, 62, 63], 1] - p[:, [50, 51, 52], 1]  # noqa: E731
    assert np.abs(thickness(result) - thickness(shut)).max() < 0.3, "pixels"


def test_a_shut_eye_is_not_opened(points):
    shut = points.copy()
    shut[:, [37, 38]] = shut[:, [41, 40]]
    wide = shut.copy()
    wide[:, [37, 38], 1] -= 5
    result = shown_by_moving(Motion(shut, wide), ORDER, FPS).target
    assert (result[:, [41, 40], 1] - result[:, [37, 38], 1]).max() < 0.2, "pixels"


def test_corners_and_brows_move_as_asked(points):
    wanted = points.copy()
    wanted[:, [48, 54], 1] -= 3
    wanted[:, 17:27, 1] -= 4
    result = shown_by_moving(Motion(points, wanted), ORDER, FPS).target
    np.testing.assert_allclose(result[:, [48, 54, *range(17, 27)]], wanted[:, [48, 54, *range(17, 27)]], atol=1e-3)


def test_a_trembling_edit_becomes_steady_and_the_sources_own_motion_stays(points):
    rng = np.random.default_rng(0)
    wanted = points + np.array([0.0, -2.0], np.float32) + rng.normal(0, 0.6, points.shape).astype(np.float32)
    result = shown_by_moving(Motion(points, wanted, rng.normal(size=(2, len(points), 51))), ORDER, FPS)
    tremble = lambda target: np.diff(target - points, axis=0)[:, :17].std()  # noqa: E731
    assert tremble(result.target) < 0.55 * tremble(wanted)
    np.testing.assert_array_equal(result.source, points)
    change = result.coefficients[1] - result.coefficients[0]
    assert np.diff(change, axis=0).std() < 1.0


@pytest.mark.parametrize("order", ["ibug68", "mesh478"])
def test_upper_and_lower_points_lie_above_each_other(order):
    face = topology(order)
    for outline in (*face.eyes, face.mouth):
        upper, lower = face.opposite(outline)
        assert len(upper) == len(lower) == len(outline) // 2 - 1
        assert not {*upper, *lower} & {outline[0], outline[len(outline) // 2]}
    assert not {*face.lips[0]} & {*face.lips[1]}
    assert not {*face.lips[0], *face.lips[1]} & {*face.mouth}
