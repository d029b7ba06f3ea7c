"""What a model card says of a prior; every room of `priors/` has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PriorCard:
    """title: what it is, after "NAME: ". about: what it does, a format string with {form} and {size} (side of the crop, pixels)."""

    title: str
    about: str
