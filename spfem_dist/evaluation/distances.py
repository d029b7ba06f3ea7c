"""The arithmetic of the field's three figures, apart from the networks that give the features (definitions of CDRL's released scripts).

FAD: Frechet distance of ArcFace features, realism. CSIM: cosine similarity of expression features. LSE-D: distance of
lip and speech embeddings at the best of 21 offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.spatial.distance import cdist

#: Added to both covariances' diagonals where their product has no finite square root, as published.
RIDGE = 1e-6
#: Added to each difference before the distance, as torch's pairwise distance does.
PAIRWISE_EPSILON = 1e-6


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Frechet distance of two Gaussians fitted to features [N, D] and [M, D], as float64.

    ||mu_r - mu_g||^2 + Tr(S_r + S_g - 2 (S_r S_g)^(1/2)). The covariance of fewer frames than features is singular, and
    frames of one clip are alike: compare sets of like size only. Raises ValueError where a set has fewer than two rows.
    """
    if min(len(real), len(generated)) < 2 or real.shape[1:] != generated.shape[1:]:
        raise ValueError(
            f"features {real.shape} and {generated.shape}: two sets of at least two rows and one width are needed"
        )
    means = [features.mean(0, dtype=np.float64) for features in (real, generated)]
    spreads = [np.atleast_2d(np.cov(features.astype(np.float64), rowvar=False)) for features in (real, generated)]
    root = linalg.sqrtm(spreads[0] @ spreads[1])
    if not np.isfinite(root).all():
        ridge = RIDGE * np.eye(len(spreads[0]))
        root = linalg.sqrtm((spreads[0] + ridge) @ (spreads[1] + ridge))
    difference = means[0] - means[1]
    return float(difference @ difference + np.trace(spreads[0]) + np.trace(spreads[1]) - 2 * np.trace(root.real))


def mean_cosine(real: np.ndarray, generated: np.ndarray) -> float:
    """Mean cosine over all pairs of features [N, D] x [M, D]. Below 1 also for a set with itself: print real against real beside it."""
    return float(1 - cdist(real, generated, "cosine").mean())


@dataclass(frozen=True)
class Synchrony:
    """How lips and speech of one clip meet.

    distances: mean distance at each offset, [2 K + 1]. offset: frames by which the speech is late where they meet best.
    """

    distances: np.ndarray
    offset: int

    @property
    def lse_d(self) -> float:
        """The least mean distance over offsets; lower is better."""
        return float(self.distances.min())

    @property
    def lse_c(self) -> float:
        """The median over offsets minus the least; higher is better. With an even count the lower median, as torch has it."""
        return float(np.sort(self.distances)[(len(self.distances) - 1) // 2] - self.distances.min())


def synchrony(lips: np.ndarray, speech: np.ndarray, reach: int = 10) -> Synchrony:
    """Distances of lip and speech embeddings [T, D] of one clip at every offset from -reach to +reach frames.

    Beyond the clip the speech is zero, as published; unrelated embeddings are therefore nearest at an extreme offset.
    """
    if lips.shape != speech.shape:
        raise ValueError(
            f"lip embeddings {lips.shape} and speech embeddings {speech.shape}: one of each for every window is needed"
        )
    padded = np.pad(speech, ((reach, reach), (0, 0)))
    distances = np.stack(
        [
            np.linalg.norm(lips - padded[k : k + len(lips)] + PAIRWISE_EPSILON, axis=1).mean()
            for k in range(2 * reach + 1)
        ]
    )
    return Synchrony(distances, reach - int(distances.argmin()))
