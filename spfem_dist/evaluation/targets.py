"""A bar that a figure has to reach."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from spfem_dist.evaluation.retrieval import Estimate

Figures = Mapping[str, Estimate | float]


@dataclass(frozen=True)
class Target:
    """A bar that a figure has to reach: at least (or at most) `value`, counted from figure `than` where that is given."""

    name: str
    sign: str
    value: float
    than: str = ""

    def limit(self, figures: Figures) -> float:
        """The number to reach; not a number where `than` has not been measured."""
        return (
            self.value
            if not self.than
            else value_of(figures[self.than]) + self.value
            if self.than in figures
            else math.nan
        )

    def met(self, figures: Figures) -> bool | None:
        """Whether it is reached; None where a figure is missing or undefined."""
        found = value_of(figures[self.name]) if self.name in figures else math.nan
        limit = self.limit(figures)
        if math.isnan(found) or math.isnan(limit):
            return None
        return found >= limit if self.sign == ">=" else found <= limit


def value_of(figure: Estimate | float) -> float:
    """The number of a figure."""
    return float(figure.value if isinstance(figure, Estimate) else figure)
