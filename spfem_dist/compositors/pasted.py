"""Ways to put a head into a scene that learn nothing; what a trained compositor is held against.

scenes, heads: uint8 [N, S, S, 3] RGB; masks: bool [N, S, S], the holes. A head's picture is whole, with what is around it, and lies where it
shall be put. Outside the holes every number stays the scene's.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np

#: Width over which a feathered paste fades in from the edge of the hole, and levels of the Laplacian pyramid.
FEATHER, BANDS = 4, 3


def feathered(scenes: np.ndarray, masks: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """The heads, faded in over FEATHER pixels."""
    inside = np.stack([cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) for mask in masks])
    share = np.clip(inside / FEATHER, 0, 1)[..., None]
    return np.rint(share * heads + (1 - share) * scenes).astype(np.uint8)


def laplacian(scenes: np.ndarray, masks: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Blended in bands of a Laplacian pyramid (Burt and Adelson 1983): colours fade over a wide seam, fine detail over a narrow one."""
    result = []
    for scene, mask, head in zip(scenes, masks, heads, strict=True):
        shares = _shrunk(mask.astype(np.float32))
        parts = zip(_bands(head), _bands(scene), shares, strict=True)
        mixed = [share[..., None] * own + (1 - share[..., None]) * around for own, around, share in parts]
        whole = mixed.pop()
        while mixed:
            band = mixed.pop()
            whole = band + cv2.pyrUp(whole, dstsize=band.shape[1::-1])
        result.append(np.where(mask[..., None], np.rint(whole).clip(0, 255).astype(np.uint8), scene))
    return np.stack(result)


def _shrunk(picture: np.ndarray) -> list[np.ndarray]:
    found: list[np.ndarray] = [picture.astype(np.float32)]
    for _ in range(BANDS):
        found.append(cv2.pyrDown(found[-1]))
    return found


def _bands(picture: np.ndarray) -> list[np.ndarray]:
    sizes = _shrunk(picture)
    fine = [large - cv2.pyrUp(small, dstsize=large.shape[1::-1]) for large, small in itertools.pairwise(sizes)]
    return [*fine, sizes[-1]]


def poisson(scenes: np.ndarray, masks: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """The heads' gradients in the scenes' colours (Perez et al. 2003), by OpenCV."""
    result = []
    for scene, mask, head in zip(scenes, masks, heads, strict=True):
        if not mask.any():
            result.append(scene)
            continue
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        centre = (x + width // 2, y + height // 2)
        cloned = cv2.seamlessClone(head, scene, mask.astype(np.uint8) * 255, centre, cv2.NORMAL_CLONE)
        result.append(np.where(mask[..., None], cloned, scene))
    return np.stack(result)


WAYS = {"feathered paste": feathered, "Laplacian blend": laplacian, "Poisson": poisson}
