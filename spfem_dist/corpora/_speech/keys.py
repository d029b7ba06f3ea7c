"""Random streams keyed by what they decide, so that no draw depends on any other draw or on call order."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Factor(IntEnum):
    """What a random stream decides. The numbers are part of the corpus: changing one changes every rendered frame."""

    IDENTITY = 1
    SENTENCE = 2
    TIMING = 3
    EXPRESSION = 4
    CAMERA = 5
    VOICE = 6
    BLINK = 7
    STYLE = 8


def stream(seed: int, factor: Factor, *key: int) -> np.random.Generator:
    """An independent generator for one factor of one recording; equal arguments give an equal stream everywhere."""
    return np.random.default_rng(np.random.SeedSequence([seed, int(factor), *key]))


def wander(rng: np.random.Generator, times: np.ndarray, slow: float = 0.15, fast: float = 0.8) -> np.ndarray:
    """A smooth random curve over `times` (seconds), about unit variance: three sinusoids between slow and fast Hz."""
    frequency = rng.uniform(slow, fast, 3)
    phase = rng.uniform(0, 2 * np.pi, 3)
    weight = rng.uniform(0.5, 1.0, 3)
    curve = (weight * np.sin(2 * np.pi * times[:, None] * frequency + phase)).sum(1)
    return curve / np.sqrt((weight**2).sum() / 2)
