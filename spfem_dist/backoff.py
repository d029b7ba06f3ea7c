"""Pauses between attempts that fail for a passing reason."""

from __future__ import annotations

import random
from collections.abc import Iterator

#: First and longest pause, seconds.
FIRST, LONGEST = 0.2, 20.0


def pauses(first: float | None = None, longest: float | None = None) -> Iterator[float]:
    """Pauses in seconds without end: each is drawn from [half, whole] of a length that doubles up to `longest`.

    Drawn, so that many workers that failed together do not come back together.
    """
    length, limit = FIRST if first is None else first, LONGEST if longest is None else longest
    while True:
        yield random.uniform(length / 2, length)
        length = min(2 * length, limit)
