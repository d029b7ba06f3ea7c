"""What a model card says of a generator; every room of `generators/` has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GeneratorCard:
    """title: what it is, after "NAME: ". about: what it does, a format string with {size} (side of the crop, pixels), {topology}, {form}."""

    title: str
    about: str
