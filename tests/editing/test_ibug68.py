"""The mesh's landmarks stand for iBUG's 68."""

import numpy as np
import pytest
from toy_generator import talking_head

from spfem_dist.prepare.faces import MeshFinder
from spfem_dist.prepare.landmarks import converted, mouth_opening


def test_every_reading_of_a_mesh_is_that_of_its_68_points():
    mesh = np.random.default_rng(0).normal(size=(5, 468, 2)).astype(np.float32)
    points = converted(mesh, "mesh468", "ibug68")
    assert points.shape == (5, 68, 2)
    assert points.dtype == np.float32
    np.testing.assert_allclose(mouth_opening(points, "ibug68"), mouth_opening(mesh, "mesh468"), rtol=1e-5)


def test_unknown_frames_stay_unknown_and_other_counts_are_refused():
    assert np.isnan(converted(np.full((2, 468, 2), np.nan), "mesh468", "ibug68")).all()
    with pytest.raises(ValueError, match="468, 2"):
        converted(np.zeros((2, 68, 2)), "mesh468", "ibug68")


def test_the_points_lie_on_a_face_where_its_true_68_do(mesh):
    """Within a fifth of the eye distance on a drawn face, whose ears and brows are not a photograph's."""
    head = talking_head(size=256)
    found = converted(MeshFinder().track(head.frames[:8]).landmarks, "mesh478", "ibug68")
    eyes = np.linalg.norm(head.landmarks[:8, 45] - head.landmarks[:8, 36], axis=-1)
    away = np.linalg.norm(found - head.landmarks[:8], axis=-1) / eyes[:, None]
    for part in (slice(17, 27), slice(27, 36), slice(36, 48), slice(48, 68)):
        assert away[:, part].mean() < 0.2
    assert away[:, :17].mean() < 0.35
