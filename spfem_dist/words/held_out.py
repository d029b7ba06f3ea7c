"""Words that the map has never seen, with the units that they mean: what `spfem evaluate words` and the tests ask about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spfem_dist.words.captions import NAMES, coloured_smile, compound, row
from spfem_dist.words.feelings import FEELINGS
from spfem_dist.words.vocabulary import ACTIONS

#: Synonyms of feelings; no word of their family is in the vocabulary. Words that lie between feelings ("horrified", "appalled") are left out.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "happy": ("elated", "ecstatic", "blissful", "euphoric"),
    "sad": ("heartbroken", "despondent", "crestfallen", "forlorn"),
    "angry": ("furious", "livid", "incensed", "seething"),
    "surprised": ("flabbergasted", "dumbfounded", "gobsmacked", "thunderstruck"),
    "fear": ("petrified", "apprehensive", "horror-struck", "intimidated"),
    "disgusted": ("grossed out", "repelled", "loathing", "yuck"),
    "contempt": ("condescending", "haughty", "sneering at everybody"),
    "neutral": ("stone-faced", "unemotional", "unmoved"),
    "amused": ("chuckling", "mirthful"),
    "worried": ("fraught", "perturbed"),
    "tired": ("knackered", "yawny"),
    "skeptical": ("dubious", "cynical"),
    "confused": ("bemused", "nonplussed"),
    "pained": ("anguished", "racked"),
    "embarrassed": ("sheepish", "mortified"),
}
#: Further synonyms, written down when the map's settings were chosen, and asked once: choosing had the list above in view.
ASKED_ONCE: dict[str, tuple[str, ...]] = {
    "happy": ("ebullient", "jocund"),
    "sad": ("tear-stained", "dolorous"),
    "angry": ("apoplectic", "maddened"),
    "surprised": ("bug-eyed", "goggling"),
    "fear": ("white-knuckled", "heart-pounding"),
    "disgusted": ("stomach-churning", "putrid"),
    "contempt": ("spurning", "uppity"),
    "tired": ("groggy", "conked out"),
    "confused": ("at sea", "clouded"),
    "worried": ("nail-biting", "beset"),
}
#: The seven emotions of the project and of the published table; the others are asked for as well.
SEVEN = ("happy", "sad", "angry", "surprised", "fear", "disgusted", "neutral")
SENTENCES = ("{}", "a {} face", "he seems {}", "make her look {}", "a {} expression", "as if {}")
#: Descriptions of movements in words that the vocabulary does not have.
ACTIONS_SAID: dict[str, str] = {
    "eyebrows hoisted": "brows up",
    "brows elevated": "brows up",
    "eyebrows shooting towards the hairline": "brows up",
    "a scowl": "frown",
    "scowling": "frown",
    "creased brow": "brows down",
    "eyebrows contracted": "brows down",
    "bulging eyes": "eyes wide",
    "eyes like saucers": "eyes wide",
    "eyes popping out": "eyes wide",
    "peering through a slit": "eyes narrow",
    "screwed-up eyes": "eyes narrow",
    "lids hanging low": "lids down",
    "nose crumpled": "nose wrinkled",
    "crumpling the nose": "nose wrinkled",
    "a grin": "smile",
    "grinning from ear to ear": "smile",
    "lips curved upwards": "corners up",
    "lips curved downwards": "corners down",
    "sagging corners of the mouth": "corners down",
    "a smirk": "one-sided smile",
    "smirking": "one-sided smile",
    "cheeks hoisted": "cheeks up",
    "lips tautened sideways": "stretched",
}
#: Pairs of feelings whose compound was never seen in these words: (text, the two).
COMPOUNDS: tuple[tuple[str, str, str], ...] = (
    ("tearfully astonished", "sad", "surprised"),
    ("delightedly astonished", "happy", "surprised"),
    ("an expression between rage and grief", "angry", "sad"),
    ("frightened but amazed", "fear", "surprised"),
    ("revolted and irate", "disgusted", "angry"),
    ("half frightened, half sickened", "fear", "disgusted"),
    ("gloomy and scared", "sad", "fear"),
    ("startled with disgust", "surprised", "disgusted"),
)
#: Smiles coloured by a feeling, in pairs that were never seen.
SMILES: tuple[tuple[str, str], ...] = (
    ("a tearful smile", "sad"),
    ("a smile full of worry", "worried"),
    ("an irritated grin", "angry"),
    ("a smile of bitterness", "bitter"),
    ("an astonished grin", "surprised"),
)
#: What is to be refused, or to edit hardly anything.
NONSENSE = (
    "cupboard", "a bowl of soup", "flimzor wuggle", "qzxv", "the parliament votes on Thursday", "a woman with curly hair", "merge the pull request",
    "seventy-three", "a stapler", "lips parted wide", "an aeroplane lands", "rotate the head", "pick up the parcel", "vrumpt", "a parking ticket",
    "his portrait", "thermodynamics", "half past six", "a wet sponge", "somebody's face",
)  # fmt: skip
#: Words of strength from weak to strong, for any feeling.
STRENGTHS = ("barely {}", "slightly {}", "somewhat {}", "{}", "very {}", "extremely {}")


@dataclass(frozen=True)
class Question:
    """A text that was never seen, and the units float64 [len(NAMES)] that it means. kind: synonyms; synonyms, once; actions; compounds. feeling: of a
    synonym of the first list."""

    text: str
    units: np.ndarray
    kind: str
    feeling: str = ""


def questions() -> list[Question]:
    """Every held-out text."""
    asked = [
        Question(sentence.format(word), row(FEELINGS[feeling].units), "synonyms", feeling)
        for feeling, words in SYNONYMS.items()
        for word in words
        for sentence in SENTENCES
    ]
    asked += [
        Question(sentence.format(word), row(FEELINGS[feeling].units), "synonyms, once")
        for feeling, words in ASKED_ONCE.items()
        for word in words
        for sentence in ("{}", "a {} face")
    ]
    asked += [Question(text, row(ACTIONS[name].units), "actions") for text, name in ACTIONS_SAID.items()]
    asked += [
        Question(text, compound(row(FEELINGS[a].units), row(FEELINGS[b].units)), "compounds")
        for text, a, b in COMPOUNDS
    ]
    asked += [Question(text, coloured_smile(row(FEELINGS[name].units)), "compounds") for text, name in SMILES]
    return asked


assert len(NAMES) == 26
