"""Preparing gives the same bytes however it is run, goes on where it stopped, and loses nothing to bad input."""

import errno
import io
import os
import re
import shutil
from pathlib import Path

import pytest
import soundfile
import webdataset
from prepared import groups_of, mead, quiet
from transformers import Wav2Vec2Config, Wav2Vec2Model

from spfem_dist import weights
from spfem_dist.emotions import Emotion
from spfem_dist.nets import wav2vec2
from spfem_dist.prepare import group as group_building
from spfem_dist.prepare import job, progress, shards
from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.prepare.shards import DiskFull
from spfem_dist.shard_format import ShardIndex


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
