"""Texts with the units that they mean, made from `feelings` and `vocabulary`: what the map learns from. No chance is in them, and strength words are in none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from spfem_dist.words.feelings import FEELINGS
from spfem_dist.words.vocabulary import ACTIONS, ALONE, MOVED, UNKNOWN, UPPER, Action

#: The units of a wish, with their sides: what the map answers.
NAMES = tuple(name + side for name in MOVED for side in (("",) if name in ALONE else ("Left", "Right")))
#: What a coloured smile shows of the smile and of its feeling's upper face: conventions of ours.
COLOURED_SMILE, COLOURED_UPPER = 0.65, 0.85
_BROWS = ("browInnerUp", "browOuterUp", "browDown")
_EYES = ("eyeBlink", "eyeSquint", "eyeWide", "cheekSquint")
_MOUTH = tuple(name for name in MOVED if name not in UPPER)
_ADJECTIVE = ("{}", "a {} face", "looking {}", "she looks {}", "a {} expression", "he is {}", "a {} look", "feeling {}")
_NOUN = ("{}", "an expression of {}", "a face full of {}", "{} in the face", "showing {}")
_SAYING = ("{}", "a face as if {}")
_ACTION = ("{}", "with {}", "a face with {}", "she has {}", "the person is {}")
_REGIONS = {"eyebrows": _BROWS, "eyes": _EYES, "mouth": _MOUTH}
_SIDES = ("Left", "Right")


@dataclass(frozen=True)
class Concept:
    """Something that words mean. units: float64 [len(NAMES)], 0 to 1. whole: whether it is about the whole face, so that a unit which it does not name
    is to be at rest."""

    name: str
    units: np.ndarray
    whole: bool


@dataclass(frozen=True)
class Caption:
    """A text and the names of the concepts that it means, in equal shares; none where it speaks of nothing that words may move."""

    text: str
    means: tuple[str, ...]


def row(units: Mapping[str, float]) -> np.ndarray:
    """Weights float64 [len(NAMES)] of named units; a name without a side means both. Raises KeyError for one that words do not move."""
    weights = np.zeros(len(NAMES))
    for name, value in units.items():
        found = [i for i, own in enumerate(NAMES) if own in (name, f"{name}Left", f"{name}Right")]
        if not found:
            raise KeyError(f"{name!r} is no unit that words move; those are {', '.join(MOVED)}")
        weights[found] = value
    return weights


def compound(*units: np.ndarray) -> np.ndarray:
    """What several feelings at once show, each by its equal share (a convention of ours): float64 [len(NAMES)]."""
    return np.mean(units, 0)


def coloured_smile(feeling: np.ndarray) -> np.ndarray:
    """A smile over the upper face of a feeling."""
    return np.maximum(COLOURED_SMILE * row(ACTIONS["smile"].units), COLOURED_UPPER * _only(feeling, UPPER))


@cache
def concepts() -> tuple[Concept, ...]:
    """Every concept, in one order."""
    made = []
    for name, feeling in FEELINGS.items():
        units = row(feeling.units)
        made.append(Concept(name, units, True))
        made += [Concept(f"{name} {part}", own, False) for part, own in _parts(units)]
        if name != "neutral":
            made.append(Concept(f"{name} smile", coloured_smile(units), False))
    for name, action in ACTIONS.items():
        made.append(Concept(name, row(action.units), False))
        made += [
            Concept(f"{name}, {side}", row({unit + side: action.units[unit]}), False)
            for unit in action.sided
            for side in _SIDES
        ]
    return tuple(made)


@cache
def captions() -> tuple[Caption, ...]:
    """Every caption, each text once, in one order on every machine."""
    made = [*_feelings(), *_compounds(), *_actions(), *(Caption(text, ()) for text in UNKNOWN)]
    by_text: dict[str, Caption] = {}
    for caption in made:
        by_text.setdefault(caption.text, caption)
    return tuple(by_text.values())


def _parts(units: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The regions in which a feeling is seen, with what it shows there."""
    for part, names in _REGIONS.items():
        own = _only(units, names)
        if own.max() > 0.3:
            yield part, own


def _feelings() -> Iterator[Caption]:
    for name, feeling in FEELINGS.items():
        for patterns, words in (
            (_ADJECTIVE, feeling.adjectives),
            (_NOUN, feeling.nouns),
            (("{}", "speaking {}"), feeling.adverbs),
            (_SAYING, feeling.sayings),
        ):
            yield from (Caption(pattern.format(word), (name,)) for word in words for pattern in patterns)
        for part, _ in _parts(row(feeling.units)):
            for adjective in feeling.adjectives[:5]:
                yield Caption(f"{adjective} {part}", (f"{name} {part}",))
                if part == "eyebrows":
                    yield Caption(f"{adjective} brows", (f"{name} {part}",))
        if name != "neutral":
            for adjective in feeling.adjectives[:6]:
                for word in ("smile", "smiling mouth", "smiling face"):
                    yield Caption(f"a {adjective} {word}", (f"{name} smile",))


def _compounds() -> Iterator[Caption]:
    for one, first in FEELINGS.items():
        for other, second in FEELINGS.items():
            if "neutral" in (one, other) or one == other:
                continue
            said = [f"{adverb} {adjective}" for adverb in first.adverbs[:2] for adjective in second.adjectives[:2]]
            said.append(f"a mixture of {first.nouns[0]} and {second.nouns[0]}")
            said.append(f"both {first.adjectives[0]} and {second.adjectives[0]}")
            yield from (Caption(text, (one, other)) for text in said)


def _actions() -> Iterator[Caption]:
    for name, action in ACTIONS.items():
        for phrase in _phrases(action):
            yield from (Caption(pattern.format(phrase), (name,)) for pattern in _ACTION)
        for noun in action.sided.values():
            for side in _SIDES:
                said = [f"{side.lower()} {noun} {done}" for done in action.done[:4]]
                said += [f"{doing} the {side.lower()} {noun}" for doing in action.doing[:3]]
                for phrase in said:
                    for pattern in ("{}", "with {}", "the {}"):
                        yield Caption(pattern.format(phrase), (f"{name}, {side}",))


def _phrases(action: Action) -> Iterator[str]:
    yield from action.phrases
    for subject in action.subjects:
        for done in action.done:
            yield f"{subject} {done}"
            if " " not in done and " " not in subject:
                yield f"{done} {subject}"
        for doing in action.doing:
            yield f"{doing} the {subject.removeprefix('the ')}"


def _only(units: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    kept = [own.removesuffix("Left").removesuffix("Right") in names for own in NAMES]
    return units * np.array(kept)
