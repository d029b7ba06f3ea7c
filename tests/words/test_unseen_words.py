"""What the shipped map makes of words that it has never seen; their meaning is known (`words/held_out.py`)."""

import re

import numpy as np
import pytest

from spfem_dist.corpora.heads.acting import EMOTIONS
from spfem_dist.evaluation.words import words_found
from spfem_dist.head.asset import head
from spfem_dist.words import held_out
from spfem_dist.words.captions import captions
from spfem_dist.words.feelings import FEELINGS
from spfem_dist.words.vocabulary import MOVED
from spfem_dist.words.wish import NotUnderstood, understand

#: The held-out words, once more: whoever moves one into the vocabulary changes what the figures mean.
SYNONYMS = """
elated ecstatic blissful euphoric | heartbroken despondent crestfallen forlorn | furious livid incensed seething |
flabbergasted dumbfounded gobsmacked thunderstruck | petrified apprehensive horror-struck intimidated |
grossed-out repelled loathing yuck | condescending haughty sneering-at-everybody | stone-faced unemotional unmoved | chuckling mirthful |
fraught perturbed | knackered yawny | dubious cynical | bemused nonplussed | anguished racked | sheepish mortified
"""
ACTIONS = """
hoisted elevated shooting scowl scowling creased contracted bulging saucers popping peering screwed hanging crumpled crumpling grin grinning
curved sagging smirk smirking tautened
"""


@pytest.fixture(scope="module")
def found(shipped):
    return words_found(shipped)


def test_the_held_out_words_are_these_and_no_text_teaches_them():
    listed = [word.replace("-", " ") for word in re.sub(r"[|\n]", " ", SYNONYMS).split()]
    assert listed == [word.replace("-", " ") for words in held_out.SYNONYMS.values() for word in words]
    said = " ".join(held_out.ACTIONS_SAID)
    assert all(word in said for word in ACTIONS.split())
    taught = set(re.findall(r"[a-z]+", " ".join(caption.text.lower() for caption in captions())))
    alone = {word for word in (*SYNONYMS.split(), *ACTIONS.split()) if "-" not in word and word != "|"}
    # Nor another form of the word.
    assert [(a, b) for a in alone for b in taught if a[:6] == b[:6] and len(a) > 5] == []
    assert {w for w in alone if len(w) < 6} & taught == set()
    assert {question.text for question in held_out.questions()}.isdisjoint(caption.text for caption in captions())


def test_the_six_emotions_are_those_by_which_rendered_heads_act():
    for emotion, units in EMOTIONS.items():
        assert FEELINGS[emotion.value].units == {name: w for name, w in units.items() if name in MOVED}, emotion


def test_unseen_synonyms_movements_and_compounds_ask_for_their_units(found):
    kinds = {row.kind: row for row in found.kinds}
    assert kinds["synonyms"].cosine >= 0.6
    assert kinds["synonyms"].known >= 0.85
    assert found.nearest >= 0.6, "of seven"
    assert kinds["actions"].cosine >= 0.7
    assert kinds["actions"].rank >= 0.6
    assert kinds["compounds"].cosine >= 0.85
    assert kinds["compounds"].rank >= 0.6


def test_nonsense_is_refused_and_words_of_strength_keep_their_order(found):
    assert found.refused >= 0.85
    assert found.ordered == 1.0


@pytest.mark.parametrize("text", ["table", "a face", "open mouth", "flimzor wuggle", "", " , "])
def test_what_is_not_known_is_said_with_an_example_of_what_is(shipped, text):
    with pytest.raises(NotUnderstood, match=r"I do not know this.*a bitter smile, eyebrows raised"):
        understand(text, shipped)


@pytest.mark.parametrize("text", ["neutral", "expressionless", "a calm face"])
def test_a_neutral_text_asks_for_a_face_at_rest(shipped, text):
    understood = understand(text, shipped)
    assert understood.level.max() < 0.2
    assert understood.named.min() == 1, "every unit that words move is to be at rest"


def test_a_clause_that_is_not_known_is_left_aside_and_said(shipped):
    understood = understand("eyebrows raised, jaw open", shipped)
    assert understood.unknown == ("jaw open",)
    assert "I do not know 'jaw open'" in understood.in_words()
    assert not understood.wish().named[understood.level.argmax()] > 1


def test_a_movement_names_itself_and_its_opposite_alone(shipped):
    wish = understand("left eyebrow raised", shipped).wish()
    named = {name for name, share in zip(head().names, wish.named, strict=True) if share > 0.5}
    assert named == {"browOuterUpLeft", "browDownLeft"}
    assert not {name for name, share in zip(head().names, wish.named, strict=True) if share} & {
        "jawOpen",
        "mouthClose",
        "mouthPucker",
        "mouthFunnel",
        "tongueOut",
    }


def test_not_smiling_takes_a_smile_away(shipped):
    understood = understand("not smiling", shipped)
    assert understood.level.max() == 0
    assert 0 < understood.named.sum() < len(understood.named) / 2
    less, more = (np.linalg.norm(understand(f"{how} happy", shipped).level) for how in ("slightly", "very"))
    assert less < 0.6 * more
