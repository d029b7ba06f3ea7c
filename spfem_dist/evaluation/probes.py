"""Linear probes: what can be read from an embedding, and what cannot.

Probes learn on embeddings of training speakers and are scored on held-out speakers and sentences. BLAS runs on one
thread: on shared cores more threads only wait for each other.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from spfem_dist.evaluation.retrieval import Estimate, bootstrap

#: Numbers of an embedding that a probe sees.
PROBE_WIDTH = 128


def ridge_r2(
    train: np.ndarray,
    train_target: np.ndarray,
    test: np.ndarray,
    test_target: np.ndarray,
    clips: np.ndarray,
    strength: float = 10.0,
) -> Estimate:
    """Share of the target's variance that a ridge regression explains on the test set; 0 is the mean, 1 is perfect.

    train, test: embeddings [N, D] and [M, D]. Targets: [N, K] and [M, K] (or one column); the score is the mean over K targets.
    clips: [M], the clip of each test row, for the confidence interval. strength: ridge penalty on standardised inputs.
    """
    train_target, test_target = train_target.reshape(len(train), -1), test_target.reshape(len(test), -1)
    with threadpool_limits(1):
        train, test = narrowed(train, test)
        scale = StandardScaler().fit(train)
        probe = Ridge(strength).fit(scale.transform(train), train_target)
        predicted = probe.predict(scale.transform(test)).reshape(test_target.shape)
    error = np.square(predicted - test_target)
    spread = np.square(test_target - test_target.mean(0))
    names, rows = np.unique(clips, return_inverse=True)
    errors = np.stack([np.bincount(rows, e, len(names)) for e in error.T], 1)  # [clips, K]
    spreads = np.stack([np.bincount(rows, s, len(names)) for s in spread.T], 1)

    def score(chosen: np.ndarray) -> float:
        return float((1.0 - errors[chosen].sum(0) / np.maximum(spreads[chosen].sum(0), 1e-12)).mean())

    return _interval(score, len(names))


def narrowed(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets on at most PROBE_WIDTH principal components of the training set.

    A probe of a wide embedding (the released form's is a whole map) has more weights than there are clips and fits those; with the
    same width every embedding is asked by a probe of the same capacity.
    """
    if train.shape[1] <= PROBE_WIDTH:
        return train, test
    axes = PCA(PROBE_WIDTH, svd_solver="randomized", random_state=0).fit(train)
    return axes.transform(train), axes.transform(test)


def probe_accuracy(
    train: np.ndarray,
    train_label: np.ndarray,
    test: np.ndarray,
    test_label: np.ndarray,
    clips: np.ndarray,
    strength: float = 1.0,
) -> Estimate:
    """Accuracy on the test set of a linear (logistic) classifier of the training embeddings.

    train, test: [N, D] and [M, D]; labels: [N] and [M]; clips: [M]. strength: inverse penalty on standardised inputs.
    """
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe a little short of its optimum scores the same
        train, test = narrowed(train, test)
        scale = StandardScaler().fit(train)
        probe = LogisticRegression(C=strength, max_iter=200).fit(scale.transform(train), train_label)
        right = (probe.predict(scale.transform(test)) == test_label).astype(float)
    return mean_over_clips(right, clips)


def mean_over_clips(values: np.ndarray, clips: np.ndarray) -> Estimate:
    """Mean of per-frame values [M] with the confidence interval over the clips [M] they come from."""
    names, rows = np.unique(clips, return_inverse=True)
    count = np.bincount(rows, minlength=len(names))
    return bootstrap(np.bincount(rows, values, len(names)) / count, count)


def _interval(score, clips: int, draws: int = 500) -> Estimate:
    everything = np.arange(clips)
    drawn = np.random.default_rng(0).integers(0, clips, (draws, clips))
    low, high = np.percentile([score(chosen) for chosen in drawn], [2.5, 97.5])
    return Estimate(score(everything), float(low), float(high), clips)
