"""Source and result side by side, to look at."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from spfem_dist.editing.video import Picture

#: A wider source is shown at half its size: two 4K pictures side by side play nowhere.
_WIDEST = 1920


def side_by_side(source: Picture, edited: Picture) -> Picture:
    """One picture of twice the width, the source on the left, with the source's time."""
    height, width = source.y.shape
    half = width > _WIDEST

    def joined(name: str) -> np.ndarray:
        planes = [getattr(picture, name) for picture in (source, edited)]
        if half:  # to even sides, of which the colour planes have half
            unit = 2 if name == "y" else 1
            shape = (width // 4 * unit, height // 4 * unit)
            planes = [cv2.resize(plane, shape, interpolation=cv2.INTER_AREA) for plane in planes]
        return np.concatenate(planes, axis=1)

    return dataclasses.replace(source, y=joined("y"), u=joined("u"), v=joined("v"))
