"""Preparing gives the same bytes however it is run, goes on where it stopped, and loses nothing to bad input."""

import csv
import errno
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset
from closed import close
from pydantic import ValidationError
from rich.console import Console
from transformers import Wav2Vec2Config, Wav2Vec2Model

from spfem_dist import weights
from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.nets import wav2vec2
from spfem_dist.prepare import group as group_building
from spfem_dist.prepare import job, progress, shards
from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.prepare.shards import DiskFull, encode_video
from spfem_dist.shard_format import ShardIndex, decode_group, members_of

CLIPS = Path(__file__).resolve().parents[2] / ".." / "shared" / "clips" / "MEAD"


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def synthetic(out: Path, **changes) -> PrepareSettings:
    """Two speakers saying one sentence: 2 groups of 7 recordings, in two shards."""
    basic = {
        "corpus": "synthetic",
        "out": out,
        "identities": 2,
        "synthetic_sentences": 1,
        "size": 32,
        "groups_per_shard": 1,
    }
    return PrepareSettings.model_validate({**basic, "local": True, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "shards"
    job.run(synthetic(out), quiet())
    return out


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "shards")
    return tmp_path / "shards"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if not p.name.startswith(".")}


def reasons(folder: Path) -> dict[str, str]:
    """File name or group key -> reason, from rejects.csv."""
    with open(folder / "rejects.csv", newline="") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def groups_of(folder: Path):
    for shard in ShardIndex.load(folder).shards:
        content = (folder / shard.name).read_bytes()
        for entry in shard.groups:
            yield entry, decode_group(members_of(content[entry.offset : entry.offset + entry.bytes]))


def test_a_group_holds_every_emotion_with_everything_in_step(finished):
    index = ShardIndex.load(finished)
    assert (index.corpus, index.fps, index.size, index.speech_features) == ("synthetic", 25.0, 32, "logmel")
    assert (index.feature_dim, index.landmarks) == (160, "synthetic")
    found = list(groups_of(finished))
    assert [group.key for _, group in found] == ["S00_00", "S01_00"]
    for entry, group in found:
        assert [r.name for r in entry.recordings] == [r.name for r in group.recordings]
        assert len({r.emotion for r in group.recordings}) == 7
        assert group.recordings[0].emotion is Emotion.NEUTRAL
        assert len(group.warps) == 21 == len(group.warp_costs)
        for recording in group.recordings:
            assert recording.landmarks is not None
            assert recording.truth.keys() >= {"visemes", "phase"}
            seconds = soundfile.info(io.BytesIO(recording.speech)).duration
            assert seconds == pytest.approx(recording.frames / 25.0, abs=1e-3)


def test_webdataset_iterates_the_shards(finished):
    urls = [str(finished / shard.name) for shard in ShardIndex.load(finished).shards]
    keys = [sample["__key__"] for sample in webdataset.WebDataset(urls, shardshuffle=False)]
    assert keys == ["S00_00", "S01_00"]


def test_ray_workers_give_the_same_bytes_as_one_process(finished, tmp_path):
    summary = job.run(synthetic(tmp_path / "ray", local=False, workers=2), quiet())
    assert contents(tmp_path / "ray") == contents(finished)
    assert (summary.written, summary.kept) == (2, 0)


def test_a_second_call_keeps_everything(copy):
    before = {p.name: p.stat().st_mtime_ns for p in copy.glob("shard-*")}
    summary = job.run(synthetic(copy), quiet())
    assert (summary.written, summary.kept) == (0, 2)
    assert {p.name: p.stat().st_mtime_ns for p in copy.glob("shard-*")} == before


@pytest.mark.parametrize("harm", ["removed", "cut", "altered", "sidecar removed", "sidecar damaged"])
def test_only_the_harmed_shard_is_made_again(copy, finished, harm):
    tar, sidecar = copy / "shard-000001.tar", copy / "shard-000001.json"
    if harm == "removed":
        tar.unlink()
    elif harm == "cut":
        tar.write_bytes(tar.read_bytes()[:5000])
    elif harm == "altered":
        tar.write_bytes(tar.read_bytes().replace(b"synthetic", b"Synthetic", 1))
    elif harm == "sidecar removed":
        sidecar.unlink()
    else:
        sidecar.write_text("{")
    (copy / ".shard-000001.tar.77.part").write_bytes(b"left by a killed call")
    untouched = (copy / "shard-000000.tar").stat().st_mtime_ns
    summary = job.run(synthetic(copy), quiet())
    assert (summary.written, summary.kept) == (1, 1)
    assert (copy / "shard-000000.tar").stat().st_mtime_ns == untouched
    assert contents(copy) == contents(finished)
    assert not list(copy.glob("*.part"))


def test_an_interrupted_call_is_finished_by_the_next(finished, tmp_path, monkeypatch):
    write, calls = shards._write_whole, []

    def killed_at_the_second(path, *rest):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setattr(shards, "_write_whole", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        job.run(synthetic(tmp_path / "out"), quiet())
    assert not (tmp_path / "out" / "index.json").exists()
    monkeypatch.undo()
    assert job.run(synthetic(tmp_path / "out"), quiet()).kept == 1
    assert contents(tmp_path / "out") == contents(finished)


def test_a_full_disk_keeps_finished_shards_and_the_next_call_goes_on(finished, tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def full_at_the_second_shard(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:  # tar and sidecar of the first shard, then the second tar
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_the_second_shard)
    with pytest.raises(DiskFull, match=r"free some space.*shard-000001\.tar"):
        job.run(synthetic(tmp_path / "out"), quiet())
    assert {p.name for p in (tmp_path / "out").glob("*shard*")} == {"shard-000000.tar", "shard-000000.json"}
    monkeypatch.undo()
    assert job.run(synthetic(tmp_path / "out"), quiet()).kept == 1
    assert contents(tmp_path / "out") == contents(finished)


def test_other_settings_are_refused_with_the_fix(copy):
    before = contents(copy)
    with pytest.raises(ValueError, match=r"crf 18 there, 30 now.*choose another --out"):
        job.run(synthetic(copy, crf=30), quiet())
    assert contents(copy) == before


def test_shards_beyond_the_plan_are_refused(copy):
    before = contents(copy)
    with pytest.raises(ValueError, match=r"shard-000001\.tar.*remove them"):
        job.run(synthetic(copy, limit=1), quiet())
    assert contents(copy) == before


def test_two_calls_into_one_folder_are_refused(copy):
    with job._alone_in(copy), pytest.raises(ValueError, match="another `spfem prepare`"):
        job.run(synthetic(copy), quiet())


def test_progress_without_a_terminal_is_plain_lines(monkeypatch):
    monkeypatch.setattr(progress, "_PLAIN_LINE_EVERY", 0.0)
    console = quiet()
    with progress.Progress(console, 10) as shown:
        shown.advance(5, 200)
    assert re.search(r"5/10 clips +[\d.,]+ clips/s +[\d.,]+ frames/s +about [\d,]+ s left", console.file.getvalue())


def test_missing_weights_end_the_call_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path / "no-weights"))
    with pytest.raises(FileNotFoundError, match="wav2vec2"):
        job.run(synthetic(tmp_path / "out", speech="wav2vec2"), quiet())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("faces", ["auto", "mesh", "aligned-mesh"])
def test_the_mesh_is_fetched_before_anything_is_made_or_the_other_finder_is_named(faces, tmp_path, monkeypatch):
    def no_network(name, say):
        raise weights.MissingWeights(f"{name}: pip could not download it\n  fetch:   spfem weights pull {name}")

    monkeypatch.setattr(weights, "ensure", no_network)
    (tmp_path / "MEAD").mkdir()
    with pytest.raises(weights.MissingWeights, match=r"spfem weights pull face-mesh\n.*--faces cascade"):
        job.run(mead(tmp_path / "MEAD", tmp_path / "out", faces=faces), quiet())
    assert not (tmp_path / "out").exists()


def test_a_fetch_of_the_mesh_is_one_line_and_cascades_are_never_taken_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "ensure", lambda name, say: say(f"{name}: fetched"))
    console = quiet()
    resolved = job._resolved(mead(tmp_path, tmp_path / "out", faces="auto"), console)
    assert resolved.faces == "mesh"
    assert console.file.getvalue() == "face-mesh: fetched\n"


def test_a_finder_without_landmarks_says_what_its_shards_cannot_serve(recordings, tmp_path):
    console = quiet()
    job.run(mead(recordings, tmp_path / "out", limit=1), console)
    assert "--faces aligned finds no landmarks: these shards will serve stage 1, and neither" in console.file.getvalue()
    assert "--faces aligned-mesh finds them" in console.file.getvalue()


def test_wav2vec_features_are_stored_with_their_name_and_width(tmp_path, monkeypatch):
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=20,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    monkeypatch.setattr(wav2vec2, "load_wav2vec2", lambda: Wav2Vec2Model(config))
    monkeypatch.setattr(weights, "locate", lambda name: tmp_path)
    settings = synthetic(tmp_path / "out", speech="wav2vec2", limit=1)
    try:
        index = job.run(settings, quiet()).index
    finally:
        group_building._features.cache_clear()
    assert (index.speech_features, index.feature_dim) == ("wav2vec2", 32)
    ((_, found),) = groups_of(tmp_path / "out")
    assert all(r.features.shape == (r.frames, 32) for r in found.recordings)


def test_vp9_is_stored_as_webm(tmp_path):
    job.run(synthetic(tmp_path / "vp9", codec="vp9", limit=1), quiet())
    ((_, found),) = groups_of(tmp_path / "vp9")
    assert found.recordings[0].video.startswith(b"\x1a\x45\xdf\xa3")


# --- recordings, good and bad -------------------------------------------------------------------------------------


def write_clip(root: Path, emotion: str, number: str, seed: int, audio: bool = True) -> Path:
    """A clip in MEAD's layout that is a face crop already, rendered by the synthetic corpus."""
    corpus = SyntheticCorpus.small(identities=1, sentences=1, size=64, seed=seed)
    raw = corpus.render(corpus.clips()[list(Emotion).index(Emotion.parse(emotion))])
    level = "level_1" if emotion == "neutral" else "level_3"
    video = root / "M003" / "video" / "front" / emotion / level / f"{number}.mp4"
    sound = root / "M003" / "audio" / emotion / level / f"{number}.wav"
    for path in (video, sound):
        path.parent.mkdir(parents=True, exist_ok=True)
    video.write_bytes(encode_video(raw.frames, 25.0))
    if audio:
        soundfile.write(sound, raw.speech, 16_000)
    return video


@pytest.fixture
def recordings(tmp_path) -> Path:
    root = tmp_path / "MEAD"
    for seed, (emotion, number) in enumerate(
        [("neutral", "001"), ("happy", "001"), ("neutral", "002"), ("happy", "002")]
    ):
        write_clip(root, emotion, number, seed)
    return root


def mead(root: Path, out: Path, **changes) -> PrepareSettings:
    basic = {"corpus": "mead", "root": root, "out": out, "size": 64, "faces": "aligned", "groups_per_shard": 1}
    return PrepareSettings.model_validate({**basic, "local": True, **changes})


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
