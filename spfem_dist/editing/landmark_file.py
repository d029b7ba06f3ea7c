"""Landmarks that a user gives in a file: read, and held against the film before anything is done with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spfem_dist.editing.video import EditError
from spfem_dist.files import UNREADABLE_ARRAY

TOPOLOGIES = {68: "ibug68", 468: "mesh468", 478: "mesh478"}
#: A face of fewer pixels shows nothing that an edit could change.
_SMALLEST_FACE = 8
#: Eleven hours at 25 frames a second; the landmarks of so many take 4 GB.
_MOST_FRAMES = 1_000_000


def read_landmarks(path: Path) -> np.ndarray:
    """float32 [T, 68, 468 or 478, 2] of an .npy file, NaN where unknown; raises EditError for anything else.

    A frame whose points all lie in one place (zeros, as some write "no face") is unknown too.
    """
    try:
        points = np.load(
            path, mmap_mode="r", allow_pickle=False
        )  # a header may claim more than there is, or memory holds
    except UNREADABLE_ARRAY as error:
        raise EditError(f"{path}: no landmarks can be read ({error}); write them with numpy.save") from error
    if (
        not isinstance(points, np.ndarray)
        or points.ndim != 3
        or points.shape[1] not in TOPOLOGIES
        or points.shape[2] != 2
        or points.dtype.kind not in "fiu"
    ):
        found = f"{list(points.shape)} {points.dtype}" if isinstance(points, np.ndarray) else type(points).__name__
        raise EditError(f"{path}: landmarks are numbers of the shape [frames, 68, 468 or 478, 2], found {found}")
    if len(points) > _MOST_FRAMES:
        raise EditError(
            f"{path}: landmarks of {len(points):,} frames; a film of more than {_MOST_FRAMES:,} is edited in parts"
        )
    points = points.astype(np.float32)
    points[~np.isfinite(points)] = np.nan
    points[np.ptp(points, axis=1).max(1) == 0] = np.nan
    return points


def known(points: np.ndarray) -> np.ndarray:
    """bool [T]: the frames all of whose landmarks [T, L, 2] are known."""
    return np.isfinite(points).all((1, 2))


def refuse_unfit(path: Path, points: np.ndarray, width: int, height: int) -> None:
    """Raises EditError where `points` of the file `path` cannot be landmarks in pixels of a film of that size."""
    there = points[known(points)].astype(np.float64)
    if not len(there):
        raise EditError(f"{path}: no frame has landmarks in it (NaN, or all points in one place); find them again")
    low, high = there.min((0, 1)), there.max((0, 1))
    spans = f"x is {low[0]:.4g} to {high[0]:.4g} and y {low[1]:.4g} to {high[1]:.4g}, the film has {width} x {height} pixels"
    wanted = "landmarks are wanted in pixels of the upright frame"
    if np.abs(there).max() <= 2 < min(width, height) / 4:
        fix = f"multiply them by its size: numpy.save({path.name!r}, numpy.load({path.name!r}) * [{width}, {height}])"
        raise EditError(f"{path}: {spans}: they are normalised, and {wanted}; {fix}")
    extent = float(np.median(np.ptp(there, axis=1).max(1)))
    if extent < _SMALLEST_FACE:
        raise EditError(f"{path}: its faces are {extent:.2g} pixels large ({spans}); {wanted}")
    x, y = np.median(there.mean(1), axis=0)
    if not (0 <= x <= width and 0 <= y <= height) or extent > 3 * max(width, height):
        raise EditError(f"{path}: its faces lie outside of the film ({spans}); {wanted}: are they of another size?")
