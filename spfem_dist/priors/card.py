"""What a model card says of a prior; every room of `priors/` has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PriorCard:
    """title: what it is, after "NAME: ". about: what it does, a format string with {form} and {size} (side of the crop, pixels).

    figures: the scores that say most of it, in the names that the room's `scores` give them.
    """

    title: str
    about: str
    figures: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The first part of the names of its figures; empty where it has none."""
        return self.figures[0].split("/")[0] if self.figures else ""
