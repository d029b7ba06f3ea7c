"""What a recorded face can show of an edited motion: steady over time, and with lips and lids that do not fold."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.ndimage import gaussian_filter1d

from spfem_dist.generators.face.gaps import hold_lids, hold_lips
from spfem_dist.generators.face.topology import topology
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
    hold_lids(motion.source, target, face, _LIDS)
    hold_lips(motion.source, target, face, _LIPS)
    coefficients = motion.coefficients
    if coefficients is not None:
        before, after = coefficients
        coefficients = np.stack([before, before + gaussian_filter1d(after - before, sigma, axis=0, mode="nearest")])
    return dataclasses.replace(motion, target=target.astype(np.float32), coefficients=coefficients)
