"""The emotions of every corpus and method in one enum. Files and checkpoints store names, never indexes."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing it takes seconds, and most that name emotions compute nothing
    import torch


class Emotion(StrEnum):
    """The project's emotion names. The first seven are those of the published tables, in their order."""

    NEUTRAL = "neutral"
    ANGRY = "angry"
    DISGUSTED = "disgusted"
    FEAR = "fear"
    HAPPY = "happy"
    SAD = "sad"
    SURPRISED = "surprised"
    CONTEMPT = "contempt"
    CALM = "calm"

    @classmethod
    def parse(cls, name: str) -> Emotion:
        """The emotion called `name`; raises ValueError that lists the known names."""
        try:
            return cls(name.strip().lower())
        except ValueError:
            known = ", ".join(e.value for e in cls)
            raise ValueError(f"unknown emotion {name!r}; known emotions: {known}") from None


#: The seven classes of CDRL, in the order of every table in the papers.
SEVEN: tuple[Emotion, ...] = (
    Emotion.NEUTRAL,
    Emotion.ANGRY,
    Emotion.DISGUSTED,
    Emotion.FEAR,
    Emotion.HAPPY,
    Emotion.SAD,
    Emotion.SURPRISED,
)

#: Those of them that an edit is asked for: all but neutral.
SIX: tuple[Emotion, ...] = SEVEN[1:]

#: The same seven in the alphabetical order of some published code and checkpoints.
ALPHABETICAL: tuple[Emotion, ...] = tuple(sorted(SEVEN, key=str))


def class_of(emotion: torch.Tensor) -> torch.Tensor:
    """Index into `list(Emotion)` (int64, any shape) -> index into SEVEN, -1 for emotions outside it; on the same device."""
    return _classes(emotion.device)[emotion]


@cache
def _classes(device: torch.device) -> torch.Tensor:
    import torch

    return torch.tensor([SEVEN.index(e) if e in SEVEN else -1 for e in Emotion], device=device)
