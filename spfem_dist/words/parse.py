"""A wish in words taken apart: clauses, how strong each is, and whether it says that something is not to be there.

Sentence vectors hardly tell "slightly sad" from "very sad" (nor "not sad"), so strength and negation are read here and never reach the encoder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Factors of words of strength. Two in one clause multiply.
STRENGTHS: dict[str, float] = {
    **dict.fromkeys(("barely", "hardly", "scarcely", "almost imperceptibly", "a trace of", "a hint of", "a touch of"), 0.3),
    **dict.fromkeys(
        ("slightly", "slight", "a little bit", "a little", "a bit of", "a bit", "faintly", "faint", "subtly", "subtle", "mildly", "mild", "weakly", "weak", "lightly", "tiny", "small"),
        0.5,
    ),
    **dict.fromkeys(("somewhat", "moderately", "moderate", "half a", "kind of", "sort of"), 0.7),
    **dict.fromkeys(("rather", "fairly", "quite", "pretty"), 0.85),
    **dict.fromkeys(
        ("very", "really", "strongly", "strong", "broadly", "broad", "big", "deeply", "deep", "intensely", "intense", "highly", "heavily", "clearly", "much", "so", "wide(?= (smile|grin|frown))"),
        1.25,
    ),
    **dict.fromkeys(
        ("extremely", "extreme", "utterly", "totally", "absolutely", "completely", "hugely", "huge", "enormously", "tremendously", "incredibly", "overwhelmingly", "exaggerated", "as .* as possible"),
        1.5,
    ),
}  # fmt: skip
_STRENGTH = [
    (re.compile(rf"\b{word}\b"), factor) for word, factor in sorted(STRENGTHS.items(), key=lambda x: -len(x[0]))
]
_PERCENT = re.compile(r"\b(\d{1,3}) ?(%|percent\b|per cent\b)")
_APART = re.compile(r"[,;:.!?+&/()\n]|\bwith\b|\bbut\b|\bwhile\b|\bplus\b|\bthough\b|\byet\b")
_AND = re.compile(r"\band\b|\bthen\b")
#: "without any emotion" is a calm face, and "not happy" one that is less happy than it was.
_NOT = re.compile(
    r"\b(not|no|without|never|isn't|aren't|doesn't|don't|lacking)\b(?! (any |an |a )?(emotion|expression|feeling|sign|longer))"
)
#: Words that say that a face is meant, and not what it shows. What is left of a text is what the encoder reads.
_FILLER = re.compile(
    r"\b(a|an|the|his|her|their|its|my|your|he|she|it|they|we|i|you|is|are|be|being|am|was|has|have|having|looks?|looking|seems?|seeming|appears?|"
    r"feels?|feeling|shows?|showing|wears?|wearing|puts? on|makes?|make|making|gives?|giving|him|them|person|face|facial|expression|somebody|someone who|"
    r"man|woman|child|people|kind of|as if|as though|please|should|shall|can|want|wants?|to be|more|in the face|on the face|full of|speaker|speaking|talking|who|there)\b"
)


@dataclass(frozen=True)
class Clause:
    """A part of a wish. said: as it was written. core: what the encoder reads. strength: factor, 1 unless words say otherwise. absent: it is not to be there."""

    said: str
    core: str
    strength: float = 1.0
    absent: bool = False


def clauses(text: str) -> list[Clause]:
    """The clauses of a text, parted at commas and words that join; those that say nothing but that a face is meant are left out."""
    return [found for part in _APART.split(_plain(text)) if (found := clause(part)).core]


def parts(whole: Clause) -> list[Clause]:
    """The clauses around each "and" of a clause; the clause itself where there is none."""
    return [found for part in _AND.split(whole.said) if (found := clause(part)).core] or [whole]


def clause(text: str) -> Clause:
    """One clause, not parted."""
    rest = said = " ".join(_plain(text).split())
    strength = 1.0
    if percent := _PERCENT.search(rest):
        strength, rest = strength * int(percent[1]) / 100, _PERCENT.sub(" ", rest)
    absent = bool(_NOT.search(rest))
    rest = _NOT.sub(" ", rest)
    for word, factor in _STRENGTH:
        if word.search(rest):
            strength, rest = strength * factor, word.sub(" ", rest)
    return Clause(said, core(rest), strength, absent)


def core(text: str) -> str:
    """What is left of a text without the words that say that a face is meant."""
    bare = " ".join(_FILLER.sub(" ", _plain(text)).split()).strip("' -")
    return bare.removeprefix("of ").removesuffix(" of")


def _plain(text: str) -> str:
    return text.lower().replace("\u2019", "'")
