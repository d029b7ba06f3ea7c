"""An edit brought to its full frame: the frame's own pixels are moved, and what is painted is added to them."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from spfem_dist.editing.video import Picture
from spfem_dist.prepare.mesh import Region

#: Within this share of the crop's side the edit fades out towards an edge of the crop that lies inside the picture.
_EDGE = 1 / 16
#: Over this share of the crop's side a flow is averaged (sigma). Between landmarks it has kinks, at which a brow would be stretched and not
#: raised as a whole.
_SMOOTH = 0.025


def blend(picture: Picture, region: Region, flow: np.ndarray, residual: np.ndarray, mask: np.ndarray) -> Picture:
    """`picture` with the edit of its crop `region`, at the picture's own resolution.

    flow: float32 [F, F, 2], residual: float32 [S, S, 3], mask: float32 [S, S], as `Rendered` has them for one crop. The pixels that the
    flow moves are the picture's, so that skin, teeth and hair stay as sharp as they were. Where flow and residual (or its mask) are 0,
    every number of the picture stays as it was. Y, Cb and Cr are linear in R, G and B, so the planes themselves are moved and added to:
    nothing passes through a conversion.
    """
    moves, paints = bool(flow.any()), bool(residual.any() and mask.any())
    height, width = picture.y.shape
    x0, y0, x1, y1 = box_of(region, width, height)
    if not (moves or paints) or x0 >= x1 or y0 >= y1:
        return picture
    planes = [picture.y, picture.u, picture.v]
    box = slice(y0, y1), slice(x0, x1)
    half = slice(y0 // 2, y1 // 2), slice(x0 // 2, x1 // 2)
    if moves:
        shift = _shift(region, flow, (x0, y0, x1, y1), width, height)
        halved = 0.5 * _halved(shift)
        planes = [
            _moved(plane, part, by)
            for plane, part, by in zip(planes, (box, half, half), (shift, halved, halved), strict=True)
        ]
    if paints:
        change = cv2.transform(
            _painted(region, residual, mask, (x0, y0, x1, y1), width, height), picture.colour.from_rgb()
        )
        colours = _halved(change[..., 1:])
        changes = change[..., 0], colours[..., 0], colours[..., 1]
        planes = [_added(plane, part, by) for plane, part, by in zip(planes, (box, half, half), changes, strict=True)]
    y, u, v = planes
    return dataclasses.replace(picture, y=y, u=u, v=v)


def _halved(box: np.ndarray) -> np.ndarray:
    smaller: np.ndarray = cv2.resize(box, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return smaller


def _shift(region: Region, flow: np.ndarray, box: tuple[int, int, int, int], width: int, height: int) -> np.ndarray:
    """Where each pixel of the box comes from, float32 [h, w, 2]: away from its own place, in pixels of the picture."""
    x0, y0, x1, y1 = box
    smooth = cv2.GaussianBlur(flow, (0, 0), _SMOOTH * len(flow), borderType=cv2.BORDER_REPLICATE)
    faded = smooth * _edge_fade(region, len(flow), width, height)[..., None]
    matrix = _crop_from_box(region, len(flow), x0, y0)
    drawn = _drawn(faded, matrix, (x1 - x0, y1 - y0), cv2.INTER_LINEAR)
    turn = region.to_picture(np.eye(2), 1.0) - region.to_picture(np.zeros(2), 1.0)  # a turn and a scale
    return cv2.transform(drawn, turn.T.astype(np.float32))


def _moved(plane: np.ndarray, box: tuple[slice, slice], shift: np.ndarray) -> np.ndarray:
    rows, columns = box
    x, y = np.arange(columns.start, columns.stop, dtype=np.float32), np.arange(rows.start, rows.stop, dtype=np.float32)
    result = plane.copy()
    # Lanczos: what is moved by a part of a pixel stays as sharp. A shift of 0 copies the number.
    result[box] = cv2.remap(
        plane, shift[..., 0] + x, shift[..., 1] + y[:, None], cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE
    )
    return result


def _painted(
    region: Region, residual: np.ndarray, mask: np.ndarray, box: tuple[int, int, int, int], width: int, height: int
) -> np.ndarray:
    """What is added to the box, float32 [h, w, 3] in R, G, B."""
    x0, y0, x1, y1 = box
    weight = mask * _edge_fade(region, len(mask), width, height)
    if round(region.side) < len(mask):  # a face smaller than its crop: averaged down first, which avoids aliasing
        side = max(1, round(region.side))
        residual, weight = (cv2.resize(a, (side, side), interpolation=cv2.INTER_AREA) for a in (residual, weight))
    matrix = _crop_from_box(region, len(weight), x0, y0)
    shape = (x1 - x0, y1 - y0)
    # Cubic, as the residual of a small crop is drawn large; the weight linear, so that it stays within 0..1.
    return _drawn(residual, matrix, shape, cv2.INTER_CUBIC) * _drawn(weight, matrix, shape, cv2.INTER_LINEAR)[..., None]


def _added(plane: np.ndarray, box: tuple[slice, slice], change: np.ndarray) -> np.ndarray:
    result = plane.copy()
    result[box] = np.clip(np.rint(plane[box] + change), 0, 255).astype(np.uint8)
    return result


def box_of(region: Region, width: int, height: int, margin: int = 0) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the picture's part that the crop covers, at even pixels as colour is stored for pairs of them.

    margin: so many pixels more on each side, an even number.
    """
    corners = region.to_picture(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 1.0)
    low = np.floor(corners.min(0) / 2) * 2 - margin
    high = np.ceil(corners.max(0) / 2) * 2 + margin
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
