"""RAVDESS's seven codes become clips, and everything else becomes a reject with its reason."""

from pathlib import Path

import pytest

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
