"""MEAD's file names become clips, and everything else becomes a reject with its reason."""

import re
from pathlib import Path

import pytest
from closed import close

from spfem_dist.corpora import mead
from spfem_dist.emotions import Emotion

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "clips" / "MEAD"


def add(
    root: Path, speaker: str, emotion: str, level: int, number: str, view: str = "front", audio: bool = True
) -> Path:
    video = root / speaker / "video" / view / emotion / f"level_{level}" / f"{number}.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    video.touch()
    if audio:
        speech = root / speaker / "audio" / emotion / f"level_{level}" / f"{number}.m4a"
        speech.parent.mkdir(parents=True, exist_ok=True)
        speech.touch()
    return video


def reasons(rejects) -> dict[str, str]:
    return {Path(r.path).name: r.reason for r in rejects}


def test_shared_sentences_of_all_emotions_are_one_group(tmp_path):
    add(tmp_path, "M005", "neutral", 1, "001")
    add(tmp_path, "M005", "happy", 3, "001")
    add(tmp_path, "M005", "disgusted", 3, "001")
    clips, rejects = mead.find_clips(tmp_path)
    assert {c.group for c in clips} == {"M005_001"}
    assert sorted(c.recording for c in clips) == ["disgusted-3-1", "happy-3-1", "neutral-1-1"]
    assert not rejects


def test_disgusted_partners_are_028_to_030_where_030_exists(tmp_path):
    for number in ("001", "028", "029", "030"):
        add(tmp_path, "M005", "disgusted", 3, number)
    clips, _ = mead.find_clips(tmp_path)
    assert {c.video.stem: c.sentence for c in clips} == {
        "001": "disgusted001",
        "028": "001",
        "029": "002",
        "030": "003",
    }


def test_other_numbers_are_sentences_of_their_own_emotion(tmp_path):
    add(tmp_path, "M005", "happy", 3, "017")
    add(tmp_path, "M005", "sad", 3, "017")
    clips, _ = mead.find_clips(tmp_path)
    assert {c.group for c in clips} == {"M005_happy017", "M005_sad017"}


def test_numbers_can_name_sentences_for_edited_clips(tmp_path):
    add(tmp_path, "M012", "neutral", 1, "037")
    add(tmp_path, "M012", "happy", 3, "037")
    clips, _ = mead.find_clips(tmp_path, sentences="number")
    assert {c.group for c in clips} == {"M012_037"}


def test_levels_are_chosen_and_the_rest_is_reported(tmp_path):
    for level in (1, 2, 3):
        add(tmp_path, "M005", "angry", level, "004")
    strongest, rejects = mead.find_clips(tmp_path)
    assert [c.level for c in strongest] == [3]
    assert reasons(rejects) == {"level_1": "not-selected", "level_2": "not-selected"}
    assert [c.level for c in mead.find_clips(tmp_path, levels="all")[0]] == [1, 2, 3]
    assert [c.level for c in mead.find_clips(tmp_path, levels={2})[0]] == [2]


def test_another_view_can_be_chosen(tmp_path):
    add(tmp_path, "M005", "angry", 3, "004")
    add(tmp_path, "M005", "angry", 3, "005", view="left_30")
    clips, rejects = mead.find_clips(tmp_path, view="left_30")
    assert [c.video.stem for c in clips] == ["005"]
    assert reasons(rejects) == {"front": "not-selected"}


def test_missing_audio_is_rejected(tmp_path):
    add(tmp_path, "M005", "angry", 3, "004")
    add(tmp_path, "M005", "angry", 3, "005", audio=False)
    clips, (reject,) = mead.find_clips(tmp_path)
    assert [c.video.stem for c in clips] == ["004"]
    assert reject.reason == "missing-audio"
    assert "005.m4a" in reject.detail


def test_speech_comes_from_the_video_where_a_speaker_has_no_audio_folder(tmp_path):
    add(tmp_path, "M005", "angry", 3, "004", audio=False)
    clips, rejects = mead.find_clips(tmp_path)
    assert clips[0].audio is None
    assert not rejects


def test_wrong_emotion_folder_stray_files_and_duplicates_are_named(tmp_path):
    kept = add(tmp_path, "M005", "angry", 3, "004")
    kept.with_suffix(".mkv").touch()
    add(tmp_path, "M005", "angery", 3, "004")
    add(tmp_path, "M005", "angry", 3, "004 (1)")
    (tmp_path / "readme.txt").touch()
    (tmp_path / "extra").mkdir()
    clips, rejects = mead.find_clips(tmp_path)
    assert len(clips) == 1
    assert reasons(rejects) == {
        "angery": "wrong-emotion",
        "004 (1).mp4": "stray-file",
        "004.mp4": "duplicate",
        "readme.txt": "stray-file",
        "extra": "stray-folder",
    }
    assert "angry, contempt, disgusted" in next(r.detail for r in rejects if r.reason == "wrong-emotion")
    duplicate = next(r for r in rejects if r.reason == "duplicate")
    assert "004.mkv" in duplicate.detail


def test_a_speaker_without_the_view_is_rejected(tmp_path):
    (tmp_path / "W009" / "video").mkdir(parents=True)
    clips, (reject,) = mead.find_clips(tmp_path)
    assert not clips
    assert reject.reason == "missing-video"


@pytest.mark.parametrize("name", ["004.M4A", "004.WAV", "004.mp3", "004.flac", "004.aac", "004.ogg"])
def test_speech_is_taken_from_any_kind_of_sound_file(tmp_path, name):
    add(tmp_path, "M005", "angry", 3, "004", audio=False)
    speech = tmp_path / "M005" / "audio" / "angry" / "level_3" / name
    speech.parent.mkdir(parents=True)
    speech.touch()
    (clip,), rejects = mead.find_clips(tmp_path)
    assert (clip.audio, rejects) == (speech, [])


def test_the_corpus_own_sound_file_is_taken_before_a_converted_one(tmp_path):
    add(tmp_path, "M005", "angry", 3, "004")
    (tmp_path / "M005" / "audio" / "angry" / "level_3" / "004.flac").touch()
    assert mead.find_clips(tmp_path)[0][0].audio.name == "004.m4a"


def test_a_sound_file_of_no_known_kind_is_named(tmp_path):
    add(tmp_path, "M005", "angry", 3, "004").with_suffix(".mp4")
    speech = tmp_path / "M005" / "audio" / "angry" / "level_3"
    (speech / "004.m4a").rename(speech / "004.wma")
    _, (reject,) = mead.find_clips(tmp_path)
    assert reject.reason == "missing-audio"
    assert re.search(r"004\.wma is there.*\.m4a, \.wav.*convert it", reject.detail)


@pytest.mark.parametrize("nested", ["M005/M005", "M005/video", "M005/x/y"])
def test_a_video_folder_that_is_deeper_is_named_with_the_move(tmp_path, nested):
    add(tmp_path / "right", "M005", "angry", 3, "004")
    inside = tmp_path / "wrong" / nested / "video"
    inside.parent.mkdir(parents=True)
    (tmp_path / "right" / "M005" / "video").rename(inside)
    clips, (reject,) = mead.find_clips(tmp_path / "wrong")
    assert (clips, reject.reason) == ([], "too-deep")
    assert f"mv {inside} {tmp_path / 'wrong' / 'M005' / 'video'}" in reject.detail


def test_an_audio_folder_that_is_deeper_is_named_with_the_move(tmp_path):
    add(tmp_path, "M005", "angry", 3, "004")
    audio = tmp_path / "M005" / "audio"
    audio.rename(tmp_path / "M005" / "sounds")
    audio.mkdir()
    (tmp_path / "M005" / "sounds").rename(audio / "audio")
    _, (reject,) = mead.find_clips(tmp_path)
    assert reject.reason == "missing-audio"
    assert f"mv {audio / 'audio'} {audio}" in reject.detail


def test_a_root_that_is_too_high_or_too_low_names_the_right_one(tmp_path):
    add(tmp_path / "MEAD", "M005", "angry", 3, "004")
    clips, (reject,) = mead.find_clips(tmp_path)
    assert (clips, reject.reason) == ([], "too-deep")
    assert f"give {tmp_path / 'MEAD'} as the root" in reject.detail
    with pytest.raises(ValueError, match=rf"one speaker's folder.*{tmp_path / 'MEAD'}$"):
        mead.find_clips(tmp_path / "MEAD" / "M005")


@pytest.mark.parametrize("name", ["video.tar", "video.tar.gz", "video.zip"])
def test_an_archive_that_was_not_unpacked_is_named(tmp_path, name):
    (tmp_path / "M005").mkdir()
    (tmp_path / "M005" / name).touch()
    (tmp_path / "W009.zip").touch()
    _, rejects = mead.find_clips(tmp_path)
    assert reasons(rejects) == {"front": "missing-video", "W009.zip": "not-unpacked"}
    assert f"unpack {name}" in rejects[0].detail
    assert "unpack it" in rejects[1].detail


@pytest.mark.parametrize("folder", ["M005", "M005/video", "M005/video/front/angry", "M005/audio/angry/level_3"])
def test_a_folder_that_may_not_be_read_is_a_row_and_the_rest_is_used(tmp_path, monkeypatch, folder):
    add(tmp_path, "M005", "angry", 3, "004")
    add(tmp_path, "W009", "angry", 3, "004")
    close(monkeypatch, tmp_path / folder)
    clips, rejects = mead.find_clips(tmp_path)
    assert "W009" in {clip.speaker for clip in clips}
    row = next(reject for reject in rejects if reject.reason == "no-permission")
    assert row.path == str(tmp_path / folder)
    assert "Permission denied" in row.detail


@pytest.mark.parametrize("option", [{"view": "back"}, {"sentences": "same"}, {"levels": "strong"}, {"levels": {4}}])
def test_unknown_options_are_refused(tmp_path, option):
    add(tmp_path, "M005", "angry", 3, "004")
    with pytest.raises(ValueError, match=r"known views|'shared'|1, 2, 3"):
        mead.find_clips(tmp_path, **option)


def test_missing_root_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match="speaker folders"):
        mead.find_clips(tmp_path / "nowhere")


def test_order_does_not_depend_on_the_file_system(tmp_path):
    for number in ("009", "004", "020"):
        add(tmp_path, "W009", "sad", 3, number)
        add(tmp_path, "M005", "sad", 3, number)
    clips, _ = mead.find_clips(tmp_path)
    assert [c.group for c in clips] == sorted(c.group for c in clips)


@pytest.mark.skipif(not SHARED.is_dir(), reason="real MEAD clips are not beside the repository")
def test_real_clips_become_pseudo_pairs_by_number():
    clips, rejects = mead.find_clips(SHARED, sentences="number")
    assert len(clips) == 12
    assert not rejects
    groups = {c.group: {d.emotion for d in clips if d.group == c.group} for c in clips}
    assert len(groups) == 6
    assert all(len(emotions) == 2 and Emotion.NEUTRAL in emotions for emotions in groups.values())
