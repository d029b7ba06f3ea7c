"""CREMA-D's names become clips, and everything else becomes a reject with its reason."""

from pathlib import Path

import pytest

from spfem_dist.corpora import cremad
from spfem_dist.emotions import Emotion


def put(root: Path, folder: str, *names: str) -> None:
    (root / folder).mkdir(exist_ok=True)
    for name in names:
        (root / folder / name).touch()


def test_codes_are_read_and_speech_is_the_wav(tmp_path):
    put(tmp_path, "VideoFlash", "1001_IEO_ANG_HI.flv")
    put(tmp_path, "AudioWAV", "1001_IEO_ANG_HI.wav")
    (clip,), rejects = cremad.find_clips(tmp_path)
    assert (clip.group, clip.emotion, clip.level, clip.take) == ("1001_IEO", Emotion.ANGRY, 3, 1)
    assert clip.audio == tmp_path / "AudioWAV" / "1001_IEO_ANG_HI.wav"
    assert not rejects


def test_a_wav_in_capitals_is_taken(tmp_path):
    put(tmp_path, "VideoFlash", "1001_IEO_ANG_HI.FLV")
    put(tmp_path, "AudioWAV", "1001_IEO_ANG_HI.WAV")
    (clip,), rejects = cremad.find_clips(tmp_path)
    assert (clip.audio, rejects) == (tmp_path / "AudioWAV" / "1001_IEO_ANG_HI.WAV", [])


def test_levels_are_numbers_and_xx_is_one(tmp_path):
    put(tmp_path, "VideoFlash", *(f"1001_IEO_SAD_{level}.flv" for level in ("LO", "MD", "HI")))
    put(tmp_path, "VideoFlash", "1001_DFA_SAD_XX.flv", "1040_ITH_SAD_X.flv")
    clips, rejects = cremad.find_clips(tmp_path)
    levels = {c.video.stem.rpartition("_")[2]: c.level for c in clips}
    assert levels == {"LO": 1, "MD": 2, "HI": 3, "XX": 1, "X": 1}
    assert not rejects


def test_speech_is_the_video_track_without_a_wav_folder(tmp_path):
    put(tmp_path, "VideoFlash", "1001_DFA_HAP_XX.flv")
    (clip,), _ = cremad.find_clips(tmp_path)
    assert clip.audio is None


@pytest.mark.parametrize(
    ("folder", "name", "reason"),
    [
        ("VideoFlash", "1001_DFA_HAP_XX.flv", "missing-audio"),
        ("VideoFlash", "1001_DFA_SUR_XX.flv", "wrong-emotion"),
        ("VideoFlash", "1001_ABC_HAP_XX.flv", "wrong-code"),
        ("VideoFlash", "1001_DFA_HAP_LL.flv", "wrong-code"),
        ("VideoFlash", "1001-DFA-HAP-XX.flv", "stray-file"),
        ("AudioWAV", "1001_DFA_HAP_XX.wav", "audio-only"),
        ("", "summary.csv", "stray-file"),
    ],
)
def test_what_is_not_used_has_a_reason(tmp_path, folder, name, reason):
    (tmp_path / "AudioWAV").mkdir()
    put(tmp_path, folder, name)
    clips, (reject,) = cremad.find_clips(tmp_path)
    assert not clips
    assert reject.reason == reason


def test_the_same_recording_in_two_formats_is_a_duplicate(tmp_path):
    put(tmp_path, "VideoFlash", "1001_DFA_HAP_XX.flv")
    put(tmp_path, "VideoMP4", "1001_DFA_HAP_XX.mp4")
    clips, (reject,) = cremad.find_clips(tmp_path)
    assert [c.video.suffix for c in clips] == [".flv"]
    assert reject.reason == "duplicate"


def test_a_clones_own_files_are_no_part_of_the_corpus(tmp_path):
    (tmp_path / ".git" / "lfs").mkdir(parents=True)
    (tmp_path / ".git" / "lfs" / "1001_DFA_HAP_XX.flv").touch()
    assert cremad.find_clips(tmp_path) == ([], [])


def test_missing_root_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match="VideoFlash"):
        cremad.find_clips(tmp_path / "nowhere")
