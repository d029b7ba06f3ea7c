"""A wish in words is taken apart: clauses, strength, what is not to be there, and what is left for the encoder."""

import pytest

from spfem_dist.words.parse import clause, clauses, parts


def test_clauses_are_parted_and_those_that_say_nothing_are_left_out():
    assert [c.core for c in clauses("A bitter smile, eyebrows raised")] == ["bitter smile", "eyebrows raised"]
    assert [c.core for c in clauses("a face with raised eyebrows but sad")] == ["raised eyebrows", "sad"]
    assert clauses("a face") == clauses(" , ") == []
    assert [c.core for c in parts(clause("happy and surprised"))] == ["happy", "surprised"]


@pytest.mark.parametrize(
    ("text", "core", "strength"),
    [
        ("she looks slightly worried", "worried", 0.5),
        ("a hint of a smile", "smile", 0.3),
        ("very, very sad".replace(",", ""), "sad", 1.25),
        ("extremely angry", "angry", 1.5),
        ("70% happy", "happy", 0.7),
        ("wide eyes", "wide eyes", 1.0),
        ("a wide grin", "grin", 1.25),
        ("half-closed eyes", "half-closed eyes", 1.0),
    ],
)
def test_words_of_strength_are_read_and_never_reach_the_encoder(text, core, strength):
    found = clause(text)
    assert (found.core, found.strength) == (core, strength)


def test_what_is_not_to_be_there_is_known():
    assert clause("not smiling").absent
    assert clause("without a frown").core == "frown"
    assert not clause("without any emotion").absent, "that is a calm face"
