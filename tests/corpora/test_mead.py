"""MEAD's file names become clips, and everything else becomes a reject with its reason."""

from pathlib import Path

import pytest

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
