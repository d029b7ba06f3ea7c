"""Films are taken, looked at, followed and edited for whoever dropped them; the page is another matter."""

import shutil

import av
import numpy as np
import pytest
from toy_generator import Brightener, film, sound_packets, talking_head

from spfem_dist.web.editor import Choice, Editor
from spfem_dist.web.films import Limits, Refused
from spfem_dist.web.visits import Gone


@pytest.fixture
def editor(visits, mesh):
    return Editor(visits, Brightener(), "toy", Limits(seconds=5), faces=mesh)


def upload(editor, source):
    path = editor.visits.upload(source.suffix)
    shutil.copy(source, path)
    return path


@pytest.fixture
def faceless(tmp_path):
    return film(tmp_path / "wall.mp4", np.full((20, 128, 128, 3), 90, np.uint8))


def test_a_dropped_film_is_seen_edited_at_one_frame_before_it_was_followed(editor, talk):
    editor.take("a", upload(editor, talk))
    editor.look("a", 0.6)
    before, after = editor.preview("a", Choice("happy"))
    assert before.shape == after.shape
    assert after.mean() > before.mean() + 2


def test_a_followed_film_is_edited_with_its_sound_and_its_progress_told(editor, talk):
    editor.take("a", upload(editor, talk))
    followed, edited = [], []
    editor.follow("a", followed.append)
    result = editor.edit("a", Choice("sad", 0.9), edited.append)
    assert followed[-1] == edited[-1] == 1
    assert edited == sorted(edited)
    assert sound_packets(result.edited.out) == sound_packets(talk)
    with av.open(str(result.edited.out)) as container:
        assert container.metadata["comment"].startswith("edited by spfem: emotion sad, strength 0.9")
    with av.open(str(result.side)) as container:
        assert container.streams.video[0].width == 256
    assert editor._generator.seen["strength"] == 0.9


def test_a_film_is_edited_also_where_nobody_waited_until_it_was_followed(editor, talk):
    editor.take("a", upload(editor, talk))
    edited = []
    assert editor.edit("a", Choice(), edited.append).edited.frames == 30
    assert edited[-1] == 1


def test_a_reference_gives_its_manner_and_may_stand_alone(editor, talk):
    editor.take("a", upload(editor, talk))
    editor.look("a", 0.6)
    with pytest.raises(Refused, match="Drop a reference film, or choose an emotion"):
        editor.preview("a", Choice(""))
    editor.take("a", upload(editor, talk), "reference")
    editor.take_manner("a")
    editor.preview("a", Choice(""))
    seen = editor._generator.seen
    assert seen["emotion"] is None
    assert len(seen["reference"].landmarks) == 30
    assert "in the manner of reference.mp4" in editor.edit("a", Choice("")).comment


def test_each_emotion_has_a_strength_of_its_own():
    assert Choice("surprised").usual_strength > Choice("happy").usual_strength > 0


def test_a_film_without_a_face_is_refused_in_words(editor, faceless):
    editor.take("a", upload(editor, faceless))
    with pytest.raises(Refused, match="The film cannot be edited: no face in any of 20 frames"):
        editor.follow("a")


def test_a_frame_that_shows_the_face_is_sought_for_the_preview(editor, tmp_path):
    heads = np.stack(talking_head().frames)
    late = film(tmp_path / "late.mp4", np.concatenate([np.full((40, 128, 128, 3), 90, np.uint8), heads[:20]]))
    editor.take("a", upload(editor, late))
    with pytest.raises(Refused):
        editor.look("a", 0.4)
    assert editor.follow("a") > 1.5
    assert editor.visits.of("a").film.still.shows_face


def test_a_refused_film_is_kept_for_the_page_alone_and_not_edited(editor, talk):
    editor.limits = Limits(seconds=0.5)
    path = upload(editor, talk)
    with pytest.raises(Refused, match="lasts 1 s"):
        editor.take("a", path)
    with pytest.raises(Refused, match="Drop a film first"):
        editor.edit("a", Choice())
    editor.visits.end("a")
    assert not path.exists()


def test_an_edit_whose_page_is_closed_stops_and_leaves_nothing(editor, talk):
    editor.take("a", upload(editor, talk))
    editor.take("b", upload(editor, talk))

    def closed(share):
        if share > 0.7:
            editor.visits.end("a")

    with pytest.raises(Gone):
        editor.edit("a", Choice(), closed)
    left = [p for p in editor.visits.root.rglob("*") if p.is_file() and p.name != ".lock"]
    assert left == [editor.visits.of("b").film.film.path]


def test_another_film_stops_the_search_in_the_one_before(editor, talk):
    editor.take("a", upload(editor, talk))

    def replaced(share):
        if share > 0.5:
            editor.take("a", None)

    with pytest.raises(Gone):
        editor.follow("a", replaced)


@pytest.mark.parametrize(
    "choice", [Choice("happy", -1), Choice("happy", float("nan")), Choice("happy", 1, 2), Choice("calm")]
)
def test_what_the_page_would_never_ask_for_is_refused(editor, talk, choice):
    editor.take("a", upload(editor, talk))
    editor.look("a", 0.6)
    with pytest.raises(Refused):
        editor.preview("a", choice)
