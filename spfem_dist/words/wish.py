"""A text becomes a wish about units: clause by clause, what is not known is said, and strength and negation do what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spfem_dist.generators.face.unit_wish import UnitWish
from spfem_dist.head.asset import head
from spfem_dist.words.captions import NAMES, compound
from spfem_dist.words.parse import Clause, clauses, parts
from spfem_dist.words.text_map import TextMap
from spfem_dist.words.vocabulary import OPPOSED

#: Below this confidence a clause is not known.
CONFIDENT = 0.4
#: A unit's weight up to which a description does not speak of it, and from which it fully does.
_UNNAMED, _NAMED = 0.10, 0.25
_EXAMPLE = "say what it feels or how brows, eyes, nose and the corners of the mouth lie, such as: a bitter smile, eyebrows raised"


class NotUnderstood(ValueError):
    """A text of which nothing is known."""


@dataclass(frozen=True)
class Heard:
    """A clause as it was understood. meant: units float64 [len(NAMES)], strength counted. known: confidence."""

    clause: Clause
    meant: np.ndarray
    whole: bool
    known: float


@dataclass(frozen=True)
class Understood:
    """A text as it was understood. level, named: float64 [len(NAMES)], see `UnitWish`. unknown: clauses that are left aside."""

    heard: tuple[Heard, ...]
    level: np.ndarray
    named: np.ndarray
    unknown: tuple[str, ...]

    def in_words(self) -> str:
        """One line: the units that are asked for most, and what was not known."""
        most = sorted(range(len(NAMES)), key=lambda i: -self.level[i])[:6]
        asked = (
            ", ".join(f"{NAMES[i]} {self.level[i]:.2f}" for i in most if self.level[i] >= _UNNAMED) or "a face at rest"
        )
        aside = f"; I do not know {', '.join(map(repr, self.unknown))}, which is left aside" if self.unknown else ""
        return f"understood: {asked}{aside}"

    def wish(self, strength: float = 1.0) -> UnitWish:
        """The same for the head's 52 units."""
        names, every = head().names, np.zeros((2, len(head().names)), np.float32)
        every[:, [names.index(name) for name in NAMES]] = self.level, self.named
        return UnitWish(every[0], every[1], strength)


def understand(text: str, text_map: TextMap) -> Understood:
    """What a text asks for. Raises NotUnderstood where none of its clauses is known, with an example of what is."""
    asked = clauses(text)
    heard = [one for whole in asked for one in _heard(whole, text_map)]
    known = [one for one in heard if one.known >= CONFIDENT]
    if not known:
        surest = f" ({max(one.known for one in heard):.0%} sure, {CONFIDENT:.0%} are needed)" if heard else ""
        raise NotUnderstood(
            f"I do not know this: {text!r}{surest}; {_EXAMPLE}. Words move no jaw, tongue, gaze or head: what a mouth says is kept"
        )
    level, named = _together(known)
    unknown = tuple(one.clause.said for one in heard if one.known < CONFIDENT)
    return Understood(tuple(known), level, named, unknown)


def _heard(whole: Clause, text_map: TextMap) -> list[Heard]:
    """A clause, or the clauses around its "and" where all of them are known by themselves."""
    apart = _meant(parts(whole), text_map)
    if len(apart) > 1 and all(one.known >= CONFIDENT for one in apart):
        return apart
    return _meant([whole], text_map)


def _meant(asked: Sequence[Clause], text_map: TextMap) -> list[Heard]:
    means = text_map([one.core for one in asked])
    return [
        Heard(clause, clause.strength * np.where(units < _UNNAMED, 0, units), bool(whole > 0.5), float(known))
        for clause, units, whole, known in zip(asked, means.units, means.whole, means.known, strict=True)
    ]


def _together(known: Sequence[Heard]) -> tuple[np.ndarray, np.ndarray]:
    """Level and named of clauses: feelings of the whole face first, then what single movements say about it."""
    level, named = np.zeros((2, len(NAMES)))
    feelings = [one.meant for one in known if one.whole and not one.clause.absent]
    if feelings:
        level, named = compound(*feelings), np.ones(len(NAMES))
    for one in known:
        if one.whole and not one.clause.absent:
            continue
        unstrengthened = one.meant / max(one.clause.strength, 1e-6)
        spoken = np.clip((unstrengthened - _UNNAMED) / (_NAMED - _UNNAMED), 0, 1)
        if one.clause.absent:
            level, named = level * (1 - spoken), np.maximum(named, spoken)
            continue
        against = np.where(spoken > 0, 0, _opposites(spoken))
        level = np.where(spoken > 0, one.meant, level * (1 - against))
        named = np.maximum(named, np.maximum(spoken, against))
    return level, named


def _opposites(spoken: np.ndarray) -> np.ndarray:
    """How far each unit is what a description is the opposite of."""
    against = np.zeros(len(NAMES))
    for pair in OPPOSED:
        for one, other in (pair, pair[::-1]):
            for side in ("Left", "Right"):
                a, b = NAMES.index(one + side), NAMES.index(other + side)
                against[b] = max(against[b], spoken[a])
    return against
