"""RAVDESS's seven codes become clips, and everything else becomes a reject with its reason."""

import os
from pathlib import Path

import pytest
from closed import close

from spfem_dist.corpora import ravdess
from spfem_dist.emotions import Emotion


def put(root: Path, *names: str, folder: str = "Actor_03") -> None:
    for name in names:
        (root / folder).mkdir(exist_ok=True)
        (root / folder / name).touch()


def test_codes_are_read(tmp_path):
    put(tmp_path, "01-01-06-02-02-01-03.mp4")
    (clip,), rejects = ravdess.find_clips(tmp_path)
    assert (clip.speaker, clip.sentence, clip.emotion, clip.level, clip.take) == ("actor03", "dogs", Emotion.FEAR, 2, 1)
    assert clip.audio is None
    assert not rejects


@pytest.mark.parametrize("suffix", [".MP4", ".avi", ".MTS", ".webm", ".m4v"])
def test_films_of_other_containers_are_taken(tmp_path, suffix):
    put(tmp_path, f"01-01-06-02-02-01-03{suffix}")
    clips, rejects = ravdess.find_clips(tmp_path)
    assert [clip.video.suffix for clip in clips] == [suffix]
    assert not rejects


def test_one_statement_in_all_emotions_intensities_and_takes_is_one_group(tmp_path):
    put(tmp_path, *(f"01-01-{e:02d}-{i:02d}-01-{r:02d}-03.mp4" for e in range(2, 9) for i in (1, 2) for r in (1, 2)))
    put(tmp_path, "01-01-01-01-01-01-03.mp4", "01-01-01-01-01-02-03.mp4")
    clips, rejects = ravdess.find_clips(tmp_path)
    assert len(clips) == 30
    assert {c.group for c in clips} == {"actor03_kids"}
    assert len({c.recording for c in clips}) == 30
    assert {c.emotion for c in clips} == set(Emotion) - {Emotion.CONTEMPT}
    assert not rejects


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("02-01-03-01-01-01-03.mp4", "video-only"),
        ("03-01-03-01-01-01-03.wav", "audio-only"),
        ("01-02-03-01-01-01-03.mp4", "song"),
        ("01-01-09-01-01-01-03.mp4", "wrong-emotion"),
        ("01-01-03-03-01-01-03.mp4", "wrong-code"),
        ("01-01-01-02-01-01-03.mp4", "wrong-code"),
        ("01-01-03-01-01-01-25.mp4", "wrong-code"),
        ("01-01-03-01-01-01-04.mp4", "wrong-folder"),
        ("01-01-03-01-01-01.mp4", "stray-file"),
        ("notes.txt", "stray-file"),
    ],
)
def test_what_is_not_used_has_a_reason(tmp_path, name, reason):
    put(tmp_path, name)
    clips, (reject,) = ravdess.find_clips(tmp_path)
    assert not clips
    assert reject.reason == reason
    assert reject.path.endswith(name)


def test_songs_are_sentences_of_their_own(tmp_path):
    put(tmp_path, "01-02-03-01-01-01-03.mp4", "01-01-03-01-01-01-03.mp4")
    clips, rejects = ravdess.find_clips(tmp_path, songs=True)
    assert sorted(c.sentence for c in clips) == ["kids", "kids-song"]
    assert not rejects


def test_the_same_recording_twice_is_a_duplicate(tmp_path):
    put(tmp_path, "01-01-03-01-01-01-03.mp4")
    put(tmp_path, "01-01-03-01-01-01-03.mp4", folder="copy")
    clips, (reject,) = ravdess.find_clips(tmp_path)
    assert len(clips) == 1
    assert reject.reason == "duplicate"
    assert str(clips[0].video) in reject.detail


def test_missing_root_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match="Actor_NN"):
        ravdess.find_clips(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["Video_Speech_Actor_01.zip", "Video_Speech_Actor_01.ZIP", "Actor_01.tar.gz"])
def test_an_archive_as_it_was_fetched_is_to_be_unpacked(tmp_path, name):
    (tmp_path / name).touch()
    _, (reject,) = ravdess.find_clips(tmp_path)
    assert reject.reason == "not-unpacked"
    assert "unpack it" in reject.detail


def test_an_actor_whose_folder_may_not_be_read_is_a_row_and_the_rest_is_used(tmp_path, monkeypatch):
    put(tmp_path, "01-01-06-02-02-01-03.mp4")
    put(tmp_path, "01-01-06-02-02-01-04.mp4", folder="Actor_04")
    close(monkeypatch, tmp_path / "Actor_04")
    clips, (reject,) = ravdess.find_clips(tmp_path)
    assert [clip.speaker for clip in clips] == ["actor03"]
    assert (reject.path, reject.reason) == (str(tmp_path / "Actor_04"), "no-permission")


def test_links_are_followed_and_those_to_nothing_or_in_a_circle_lose_nothing(tmp_path):
    root, disk = tmp_path / "root", tmp_path / "disk"
    root.mkdir()
    disk.mkdir()
    put(disk, "01-01-06-02-02-01-03.mp4")
    (root / "Actor_03").symlink_to(disk / "Actor_03")
    (root / "again").symlink_to(root)
    (root / "01-01-06-02-02-01-05.mp4").symlink_to(tmp_path / "not-fetched")
    clips, (reject,) = ravdess.find_clips(root)
    assert [clip.speaker for clip in clips] == ["actor03"]
    assert reject.reason == "broken-link"


def test_a_name_that_is_no_text_is_a_row_of_text(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "wb"):
        pass
    _, (reject,) = ravdess.find_clips(tmp_path)
    assert reject.reason == "stray-file"
    assert reject.path.encode().endswith(b"/caf\\udce9.mp4")
