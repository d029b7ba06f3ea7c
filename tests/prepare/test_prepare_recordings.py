"""Recordings, good and bad: each that cannot be used is a row of the rejects table with its reason, and costs no other."""

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from closed import close
from prepared import groups_of, mead, quiet, reasons, write_clip
from pydantic import ValidationError

from spfem_dist.emotions import Emotion
from spfem_dist.prepare import group as group_building
from spfem_dist.prepare import job
from spfem_dist.prepare.plan import PrepareSettings

CLIPS = Path(__file__).resolve().parents[2] / ".." / "shared" / "clips" / "MEAD"


@pytest.fixture
def recordings(tmp_path) -> Path:
    root = tmp_path / "MEAD"
    for seed, (emotion, number) in enumerate(
        [("neutral", "001"), ("happy", "001"), ("neutral", "002"), ("happy", "002")]
    ):
        write_clip(root, emotion, number, seed)
    return root


def test_a_finder_without_landmarks_says_what_its_shards_cannot_serve(recordings, tmp_path):
    console = quiet()
    job.run(mead(recordings, tmp_path / "out", limit=1), console)
    assert "--faces aligned finds no landmarks: these shards will serve stage 1, and neither" in console.file.getvalue()
    assert "--faces aligned-mesh finds them" in console.file.getvalue()


def test_every_unusable_recording_is_in_the_rejects_table(recordings, tmp_path):
    truncated = write_clip(recordings, "sad", "001", 10)
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    write_clip(recordings, "fear", "003", 11).write_bytes(b"")
    write_clip(recordings, "angry", "001", 12, audio=False)
    shutil.copy(recordings / "M003/video/front/happy/level_3/002.mp4", write_clip(recordings, "surprised", "002", 13))
    (recordings / "M003/video/front/happy/level_3/notes.txt").write_text("stray")
    (recordings / "M003/video/front/hapy/level_3").mkdir(parents=True)
    summary = job.run(mead(recordings, tmp_path / "out"), quiet())
    found = reasons(tmp_path / "out")
    assert found["notes.txt"] == "stray-file"
    assert found["hapy"] == "wrong-emotion"
    assert found["M003_003"] == "empty-group"
    with open(tmp_path / "out" / "rejects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    by_clip = {"/".join(Path(row["path"]).parts[-3:]): row["reason"] for row in rows}
    assert by_clip["sad/level_3/001.mp4"] in ("unreadable", "truncated")
    assert by_clip["fear/level_3/003.mp4"] == "empty-file"
    assert by_clip["angry/level_3/001.mp4"] == "missing-audio"
    assert by_clip["surprised/level_3/002.mp4"] == "duplicate"
    assert all(row["detail"] for row in rows)
    assert len(summary.rejects) == len(rows) == 7
    names = {entry.key: [r.name for r in entry.recordings] for entry, _ in groups_of(tmp_path / "out")}
    assert names == {"M003_001": ["neutral-1-1", "happy-3-1"], "M003_002": ["neutral-1-1", "happy-3-1"]}
    again = job.run(mead(recordings, tmp_path / "out"), quiet())
    assert again.written == 0
    assert len(again.rejects) == 7


@pytest.mark.parametrize("which", ["video", "audio"])
def test_a_file_without_read_permission_is_a_row_and_is_taken_once_it_can_be_read(
    which, recordings, tmp_path, monkeypatch
):
    video = recordings / "M003/video/front/happy/level_3/002.mp4"
    refused = video if which == "video" else recordings / "M003/audio/happy/level_3/002.wav"
    with monkeypatch.context() as without_permission:
        close(without_permission, refused)
        summary = job.run(mead(recordings, tmp_path / "out"), quiet())
    (reject,) = summary.rejects
    assert (reject.path, reject.reason) == (str(refused), "no-permission")
    assert "chmod u+r" in reject.detail
    assert (tmp_path / "out" / "index.json").exists()
    assert reasons(tmp_path / "out") == {refused.name: "no-permission"}
    again = job.run(mead(recordings, tmp_path / "out"), quiet())
    assert (again.written, again.rejects) == (1, [])


def test_a_disk_that_fails_on_one_file_costs_that_recording(recordings, tmp_path, monkeypatch):
    load = group_building.load_recording

    def fail(clip, *rest):
        if clip.sentence == "002" and clip.emotion is Emotion.HAPPY:
            raise OSError(errno.EIO, "Input/output error", str(clip.video))
        return load(clip, *rest)

    monkeypatch.setattr(group_building, "load_recording", fail)
    (reject,) = job.run(mead(recordings, tmp_path / "out"), quiet()).rejects
    assert reject.reason == "unreadable"
    assert "Input/output error" in reject.detail


def test_a_stray_file_whose_name_is_no_text_loses_nothing(recordings, tmp_path):
    with open(os.fsencode(recordings) + b"/M003/video/front/happy/level_3/caf\xe9.mp4", "wb"):
        pass
    (reject,) = job.run(mead(recordings, tmp_path / "out"), quiet()).rejects
    assert reject.reason == "stray-file"


def test_recordings_of_one_emotion_say_what_content_lacks(tmp_path):
    write_clip(tmp_path / "MEAD", "happy", "001", 0)
    console = quiet()
    job.run(mead(tmp_path / "MEAD", tmp_path / "out"), console)
    assert "no speaker says any sentence in two emotions" in console.file.getvalue()
    assert "--sentences number" in console.file.getvalue()


def test_a_changed_recording_makes_its_shard_anew(recordings, tmp_path):
    job.run(mead(recordings, tmp_path / "out"), quiet())
    write_clip(recordings, "happy", "002", 20)
    summary = job.run(mead(recordings, tmp_path / "out"), quiet())
    assert (summary.written, summary.kept) == (1, 1)


def test_a_folder_without_clips_is_one_clear_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no usable clip of mead under .*empty.*rejects\.csv"):
        job.run(mead(tmp_path / "empty", tmp_path / "out"), quiet())


FIELD = Path(__file__).resolve().parents[2] / ".." / "shared" / "field"


@pytest.mark.skipif(not FIELD.is_dir(), reason="the inputs from the field are not beside the repository")
@pytest.mark.parametrize("layout", ["mead_audio_upper", "mead_audio_mp3"])
def test_layouts_from_the_field_are_taken(layout, tmp_path):
    summary = job.run(mead(FIELD / layout, tmp_path / "out"), quiet())
    assert summary.rejects == []
    assert [len(entry.recordings) for entry, _ in groups_of(tmp_path / "out")] == [2]


def test_an_error_about_a_folder_without_clips_says_the_reasons(tmp_path):
    (tmp_path / "RAVDESS").mkdir()
    (tmp_path / "RAVDESS" / "Video_Speech_Actor_01.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"no usable clip of ravdess(.|\n)*Actor_01\.zip.*unpack it"):
        job.run(mead(tmp_path / "RAVDESS", tmp_path / "out", corpus="ravdess"), quiet())


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        job.run(mead(tmp_path / "nowhere", tmp_path / "out"), quiet())


def test_imported_warps_replace_computed_ones(recordings, tmp_path):
    path = [[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 3]]
    (tmp_path / "aligned_path36.json").write_text(json.dumps({"M003": {"happy": {"001_001": path}}}))
    job.run(mead(recordings, tmp_path / "out", fps=30, warps=tmp_path / "aligned_path36.json"), quiet())
    warps = {entry.key: group.warps["neutral-1-1", "happy-3-1"] for entry, group in groups_of(tmp_path / "out")}
    np.testing.assert_array_equal(warps["M003_001"], path)
    assert warps["M003_002"].shape[1] > 20


def test_an_imported_warp_that_does_not_fit_is_reported_and_computed(recordings, tmp_path):
    path = [list(range(500)), list(range(500))]
    (tmp_path / "aligned_path36.json").write_text(json.dumps({"M003": {"happy": {"001_001": path}}}))
    summary = job.run(mead(recordings, tmp_path / "out", fps=30, warps=tmp_path / "aligned_path36.json"), quiet())
    assert [r.reason for r in summary.rejects] == ["warp-too-long"]
    assert all(("neutral-1-1", "happy-3-1") in group.warps for _, group in groups_of(tmp_path / "out"))


def test_large_groups_are_aligned_from_neutral_only(recordings, tmp_path):
    write_clip(recordings, "sad", "001", 5)
    job.run(mead(recordings, tmp_path / "out", all_pairs_up_to=2), quiet())
    pairs = {entry.key: list(group.warps) for entry, group in groups_of(tmp_path / "out")}
    assert pairs["M003_001"] == [("neutral-1-1", "happy-3-1"), ("neutral-1-1", "sad-3-1")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": "mead"}, "needs the folder of its recordings"),
        ({"out": "s3://bucket/mead"}, "copy it to the bucket afterwards"),
        ({"warps": "aligned_path36.json"}, "--fps 30"),
        ({"size": 63}, "multiple of 2"),
        ({"speed": 1}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(changes, message):
    with pytest.raises(ValidationError, match=message):
        PrepareSettings.model_validate(changes)


@pytest.mark.skipif(not CLIPS.is_dir(), reason=f"the real clips are not at {CLIPS}")
def test_real_clips_become_shards(tmp_path):
    summary = job.run(mead(CLIPS, tmp_path / "out", sentences="number", limit=1, size=128, fps=25), quiet())
    ((_, found),) = groups_of(tmp_path / "out")
    assert summary.rejects == []
    assert [r.name for r in found.recordings] == ["neutral-1-1", "sad-3-1"]
    # The second clip is the first with another face: the same speech at the same time.
    path = found.warps["neutral-1-1", "sad-3-1"]
    assert np.abs(path[0] - path[1]).max() <= 2
