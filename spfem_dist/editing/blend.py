"""An edited crop brought back into its full frame: what changed is added, so the frame keeps its own sharpness."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from spfem_dist.editing.video import Picture
from spfem_dist.prepare.mesh import Region

#: Within this share of the crop's side the edit fades out towards an edge of the crop that lies inside the picture.
_EDGE = 1 / 16


def blend(picture: Picture, region: Region, source: np.ndarray, edited: np.ndarray, mask: np.ndarray) -> Picture:
    """`picture` with the difference of two crops of `region` added at full resolution.

    source, edited: uint8 [S, S, 3], the crop before and after. mask: float32 [S, S] in 0..1, the difference's weight.
    Where the mask is 0 or the crops agree, every number of the picture stays as it was. Y, Cb and Cr are linear in R, G
    and B, so the difference is added to the planes themselves and nothing else passes through a conversion.
    """
    difference = edited.astype(np.float32) - source
    if not difference.any() or not mask.any():
        return picture
    height, width = picture.y.shape
    x0, y0, x1, y1 = _box(region, width, height)
    if x0 >= x1 or y0 >= y1:
        return picture
    weight = mask.astype(np.float32) * _edge_fade(region, len(mask), width, height)
    if round(region.side) < len(mask):  # a face smaller than its crop: averaged down first, which avoids aliasing
        side = max(1, round(region.side))
        difference, weight = (cv2.resize(a, (side, side), interpolation=cv2.INTER_AREA) for a in (difference, weight))
    matrix = _crop_from_box(region, len(weight), x0, y0)
    shape = (x1 - x0, y1 - y0)
    # Cubic, as the difference of a small crop is drawn large; the weight linear, so that it stays within 0..1.
    change = (
        _drawn(difference, matrix, shape, cv2.INTER_CUBIC) * _drawn(weight, matrix, shape, cv2.INTER_LINEAR)[..., None]
    )
    change = cv2.transform(change, picture.colour.from_rgb())
    halved = cv2.resize(change[..., 1:], (shape[0] // 2, shape[1] // 2), interpolation=cv2.INTER_AREA)
    half = slice(y0 // 2, y1 // 2), slice(x0 // 2, x1 // 2)
    return dataclasses.replace(
        picture,
        y=_added(picture.y, (slice(y0, y1), slice(x0, x1)), change[..., 0]),
        u=_added(picture.u, half, halved[..., 0]),
        v=_added(picture.v, half, halved[..., 1]),
    )


def _added(plane: np.ndarray, box: tuple[slice, slice], change: np.ndarray) -> np.ndarray:
    result = plane.copy()
    result[box] = np.clip(np.rint(plane[box] + change), 0, 255).astype(np.uint8)
    return result


def _box(region: Region, width: int, height: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the picture's part that the crop covers, at even pixels as colour is stored for pairs of them."""
    corners = region.to_picture(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 1.0)
    low = np.floor(corners.min(0) / 2) * 2
    high = np.ceil(corners.max(0) / 2) * 2
    (x0, y0), (x1, y1) = np.clip(low, 0, (width, height)), np.clip(high, 0, (width, height))
    return int(x0), int(y0), int(x1), int(y1)


def _crop_from_box(region: Region, side: int, x0: int, y0: int) -> np.ndarray:
    """The affine matrix [2, 3] from pixels of the box to pixels of the crop of `side`, both counted at their centres."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    in_crop = region.from_picture(corners + np.array([x0 + 0.5, y0 + 0.5]), side) - 0.5
    return cv2.getAffineTransform(corners.astype(np.float32), in_crop.astype(np.float32))


def _drawn(crop: np.ndarray, matrix: np.ndarray, shape: tuple[int, int], how: int) -> np.ndarray:
    drawn: np.ndarray = cv2.warpAffine(
        crop, matrix, shape, flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT
    )
    return drawn


def _edge_fade(region: Region, side: int, width: int, height: int) -> np.ndarray:
    """float32 [S, S]: 1, and a ramp down to 0 at each edge of the crop that the picture goes on beyond."""
    ramp = np.minimum(1.0, (np.arange(side, dtype=np.float32) + 0.5) / (side * _EDGE))
    middles = region.to_picture(np.array([[0.0, 0.5], [1.0, 0.5], [0.5, 0.0], [0.5, 1.0]]), 1.0)
    inside = [1 < x < width - 1 and 1 < y < height - 1 for x, y in middles]
    one = np.ones(side, np.float32)
    across = (ramp if inside[0] else one) * (ramp[::-1] if inside[1] else one)
    down = (ramp if inside[2] else one) * (ramp[::-1] if inside[3] else one)
    return down[:, None] * across[None]
