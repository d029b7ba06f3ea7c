"""The face's curves as the 68 points of the iBUG 300-W mark-up (Sagonas et al. 2013)."""

from __future__ import annotations

import numpy as np

from spfem_dist.corpora.synthetic.camera import Camera


def landmarks(curves: dict[str, np.ndarray], camera: Camera, size: int) -> np.ndarray:
    """float32 [T, 68, 2] pixels: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, outer lips 48-59, inner lips 60-67."""
    five = [6, 4, 3, 1, 0]  # a brow from its outer end to its inner end, out of 7 points
    left_eye, right_eye = curves["left_eye"], curves["right_eye"]
    outer = curves["lip_outer_upper"][:, [0, 2, 4, 6, 8, 10, 12]], curves["lip_outer_lower"][:, [10, 8, 6, 4, 2]]
    inner = curves["lip_inner_upper"][:, [0, 3, 6, 9, 12]], curves["lip_inner_lower"][:, [9, 6, 3]]
    lens = [0, 4, 8, 12, 17, 21]  # corner, two above, corner, two below, out of 26 points around an eye
    points = [
        curves["outline"][:, :17],
        curves["left_brow_line"][:, five],
        curves["right_brow_line"][:, five[::-1]],
        curves["bridge"],
        curves["nose_base"],
        left_eye[:, lens],
        right_eye[:, lens],
        *outer,
        *inner,
    ]
    return camera.project(np.concatenate(points, axis=1), size).astype(np.float32)
