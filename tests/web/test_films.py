"""What can be edited is let in, and the rest is refused in words for whoever dropped it."""

import numpy as np
import pytest
from toy_generator import film, sound_packets, talking_head

from spfem_dist.web.films import Limits, Refused, accepted, suffix_of


def refused(path, limits=None) -> str:
    with pytest.raises(Refused) as error:
        accepted(path, limits or Limits())
    assert str(path.parent) not in str(error.value), "a path of ours is nobody's business"
    return str(error.value)


def test_a_film_within_the_limits_is_let_in(talk):
    assert accepted(talk, Limits()).frames == 30


def test_too_long_a_film_is_refused_with_its_length_and_the_limit(talk):
    assert "lasts 1 s; up to 0.5 s are taken here" in refused(talk, Limits(seconds=0.5))


def test_too_large_a_file_is_refused(tmp_path):
    path = tmp_path / "noise.mp4"
    path.write_bytes(bytes((1 << 20) + 1))
    assert "larger than 1 MB" in refused(path, Limits(megabytes=1))


def test_what_is_no_film_is_refused(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_text("this is a letter " * 100)
    assert "cannot be edited" in refused(path)


def test_a_film_that_was_cut_short_is_refused(tmp_path, talk):
    path = tmp_path / "film.mp4"
    path.write_bytes(talk.read_bytes()[: talk.stat().st_size // 2])
    assert "damaged" in refused(path)


def test_sound_that_no_container_takes_is_refused_with_the_fix(tmp_path, monkeypatch, talk):
    import spfem_dist.editing.film as films

    assert sound_packets(talk)
    monkeypatch.setattr(films, "_fits", lambda source, suffix: False)
    said = refused(talk)
    assert "its sound (aac) cannot be copied" in said
    assert "-c:a aac" in said


def test_limits_that_let_nothing_in_are_refused():
    with pytest.raises(ValueError, match="--megabytes"):
        Limits(megabytes=0)
    with pytest.raises(ValueError, match="--seconds"):
        Limits(seconds=float("nan"))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("talk.MP4", ".mp4"),
        ("../../etc/passwd", ".bin"),
        ("a.mp4/../../b.sh", ".bin"),
        ("x.webm", ".webm"),
        ("", ".bin"),
    ],
)
def test_of_a_name_only_a_films_ending_is_kept(name, suffix):
    assert suffix_of(name) == suffix


def test_a_film_without_sound_is_let_in(tmp_path):
    silent = film(tmp_path / "silent.mp4", np.stack(talking_head().frames[:12]), sound=None)
    assert accepted(silent, Limits()).sound == ()
