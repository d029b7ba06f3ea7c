"""Readings of landmarks mean the same for every topology, and do not depend on size or roll."""

import numpy as np
import pytest

from spfem_dist.prepare.landmarks import mouth_opening, mouth_region

COUNTS = {"mesh468": 468, "ibug68": 68}
INNER = {"mesh468": ((82, 13, 312), (87, 14, 317)), "ibug68": ((61, 62, 63), (67, 66, 65))}
EYES = {"mesh468": (33, 263), "ibug68": (36, 45)}
LIPS = {"mesh468": (61, 291, 0, 17), "ibug68": (48, 54, 51, 57)}  # left, right, top, bottom of the outline


def face(topology: str, opening: float) -> np.ndarray:
    """A face of eye distance 2 whose lips, from (-0.5, 1) to (0.5, 1), are `opening` apart."""
    points = np.zeros((COUNTS[topology], 2))
    points[:, 1] = 1.0  # all points of the mouth that are not named lie on its line
    points[list(EYES[topology])] = [[-1, 0], [1, 0]]
    upper, lower = INNER[topology]
    points[list(upper), 1] = 1 - opening / 2
    points[list(lower), 1] = 1 + opening / 2
    left, right, top, bottom = LIPS[topology]
    points[[left, right, top, bottom]] = [[-0.5, 1], [0.5, 1], [0, 0.75], [0, 1.25]]
    return points


@pytest.mark.parametrize("topology", COUNTS)
def test_opening_is_lip_distance_in_eye_distances(topology):
    shut, wide = face(topology, 0.0), face(topology, 0.8)
    assert mouth_opening(np.stack([shut, wide]), topology) == pytest.approx([0.0, 0.4])


@pytest.mark.parametrize("topology", COUNTS)
def test_opening_does_not_depend_on_size_place_or_roll(topology):
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = face(topology, 0.3)
    moved = points @ turn.T * 37.0 + [100, -20]
    assert mouth_opening(moved, topology) == pytest.approx(mouth_opening(points, topology))


@pytest.mark.parametrize("topology", COUNTS)
def test_region_is_the_lips_grown_by_the_margin(topology):
    box = mouth_region(np.stack([face(topology, 0.2)] * 3), topology, margin=0.1)
    assert box.shape == (3, 4)
    assert box[0] == pytest.approx([-0.6, 0.65, 0.6, 1.35])


def test_missing_landmarks_stay_missing():
    assert np.isnan(mouth_opening(np.full((2, 468, 2), np.nan), "mesh468")).all()


def test_unknown_topology_and_wrong_count_are_named():
    with pytest.raises(ValueError, match=r"mesh5.*mesh468, ibug68, mesh478"):
        mouth_opening(np.zeros((478, 2)), "mesh5")
    with pytest.raises(ValueError, match=r"468, 2.*68, 2"):
        mouth_region(np.zeros((68, 2)), "mesh468")
