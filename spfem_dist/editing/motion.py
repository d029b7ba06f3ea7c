"""What a recorded face can show of an edited motion: steady over time, and with lips and lids that do not fold."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.ndimage import gaussian_filter1d

from spfem_dist.generators.face.topology import Topology, topology
from spfem_dist.generators.generator import Motion

#: Over this time an edit's shifts are averaged (sigma, seconds): what landmarks tremble, not what a face does.
_STEADY = 0.04
#: An edit leaves the gap between the lips, and between the lids, within these shares of the source's own. A moved picture cannot show
#: teeth behind closed lips, or an eye behind its lid: it would stretch the line between them.
_LIPS, _LIDS = (0.6, 1.5), (0.5, 1.6)


def shown_by_moving(motion: Motion, order: str, fps: float) -> Motion:
    """`motion` as it is to be rendered from a film of `fps` frames a second whose pixels are moved. order: of its landmarks.

    The source's own motion is kept as it is, so the mouth still closes and opens when the speaker's does.
    """
    face, sigma = topology(order), _STEADY * fps
    shift = gaussian_filter1d(motion.target - motion.source, sigma, axis=0, mode="nearest")
    target = motion.source + shift
    down = _down(motion.source, face)
    for outline in face.eyes:
        upper, lower = face.opposite(outline)
        change = _gap_change(motion.source, target, upper, lower, down, _LIDS)
        # A lid moves, and the one below hardly does.
        target[:, list(upper)] -= 0.8 * change[..., None] * down
        target[:, list(lower)] += 0.2 * change[..., None] * down
    upper, lower = face.opposite(face.mouth)
    change = _gap_change(motion.source, target, upper, lower, down, _LIPS)
    for inner, outer, sign in ((upper, face.lips[0], -0.5), (lower, face.lips[1], 0.5)):
        nearest = _nearest(motion.source, outer, inner)
        target[:, list(inner)] += sign * change[..., None] * down
        target[:, list(outer)] += sign * change[:, nearest][..., None] * down
    coefficients = motion.coefficients
    if coefficients is not None:
        before, after = coefficients
        coefficients = np.stack([before, before + gaussian_filter1d(after - before, sigma, axis=0, mode="nearest")])
    return dataclasses.replace(motion, target=target.astype(np.float32), coefficients=coefficients)


def _gap_change(
    source: np.ndarray,
    target: np.ndarray,
    upper: tuple[int, ...],
    lower: tuple[int, ...],
    down: np.ndarray,
    shares: tuple[float, float],
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
