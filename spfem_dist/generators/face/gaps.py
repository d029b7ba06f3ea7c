"""The gaps between the lips and between the lids: how much of the source's own a moved face keeps."""

from __future__ import annotations

import numpy as np

from spfem_dist.generators.face.topology import Topology

Shares = tuple[float, float]


def hold_lids(source: np.ndarray, target: np.ndarray, face: Topology, shares: Shares) -> None:
    """Move the lids of `target` [T, L, 2] in place, until each gap lies within `shares` of the one in `source` [T, L, 2]."""
    down = _down(source, face)
    for outline in face.eyes:
        upper, lower = face.opposite(outline)
        change = _gap_change(source, target, upper, lower, down, shares)
        # A lid moves, and the one below hardly does.
        target[:, list(upper)] -= 0.8 * change[..., None] * down
        target[:, list(lower)] += 0.2 * change[..., None] * down


def hold_lips(source: np.ndarray, target: np.ndarray, face: Topology, shares: Shares) -> None:
    """Move the lips of `target` likewise; the outer lips go with the inner ones."""
    down = _down(source, face)
    upper, lower = face.opposite(face.mouth)
    change = _gap_change(source, target, upper, lower, down, shares)
    for inner, outer, sign in ((upper, face.lips[0], -0.5), (lower, face.lips[1], 0.5)):
        nearest = _nearest(source, outer, inner)
        target[:, list(inner)] += sign * change[..., None] * down
        target[:, list(outer)] += sign * change[:, nearest][..., None] * down


def _gap_change(
    source: np.ndarray,
    target: np.ndarray,
    upper: tuple[int, ...],
    lower: tuple[int, ...],
    down: np.ndarray,
    shares: Shares,
) -> np.ndarray:
    """How much wider each gap of `target` must be [T, K], in pixels, to lie within `shares` of the source's."""
    gaps = [((p[:, list(lower)] - p[:, list(upper)]) * down).sum(-1) for p in (source, target)]
    own = gaps[0].clip(min=0)
    return gaps[1].clip(shares[0] * own, shares[1] * own) - gaps[1]


def _down(points: np.ndarray, face: Topology) -> np.ndarray:
    """The head's own downward direction [T, 1, 2]."""
    left, right = (points[:, corner] for corner in face.outer_eyes)
    across = (right - left) / np.linalg.norm(right - left, axis=-1, keepdims=True).clip(min=1e-6)
    return np.stack([-across[:, 1], across[:, 0]], -1)[:, None]


def _nearest(points: np.ndarray, of: tuple[int, ...], to: tuple[int, ...]) -> np.ndarray:
    """For each point `of` the place in `to` of the nearest one, over the clip's mean shape."""
    mean = points.mean(0)
    return np.linalg.norm(mean[list(of)][:, None] - mean[list(to)], axis=-1).argmin(1)
