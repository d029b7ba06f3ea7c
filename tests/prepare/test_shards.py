"""Encoded video and speech are what prepare promises; shards are plain WebDataset tars, whole or absent."""

import errno
import hashlib
import io
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import webdataset

from spfem_dist import files
from spfem_dist.emotions import Emotion
from spfem_dist.prepare.shards import DiskFull, encode_speech, encode_video, write_shard
from spfem_dist.records import Recording, UtteranceGroup
from spfem_dist.shard_format import decode_group, members_of


def moving_picture(frames: int = 23, size: int = 64) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    waves = [
        np.stack([128 + 80 * np.sin((x + t) / 9 + c) + 20 * np.cos(y / 5 + t / 7) for c in range(3)], -1)
        for t in range(frames)
    ]
    return np.clip(waves, 0, 255).astype(np.uint8)


def decode(video: bytes) -> tuple[np.ndarray, list[int], av.VideoStream]:
    with av.open(io.BytesIO(video)) as container:
        frames = list(container.decode(video=0))
        pictures = np.stack([f.to_ndarray(format="rgb24") for f in frames])
        return pictures, [n for n, f in enumerate(frames) if f.key_frame], container.streams.video[0]


def group(key: str = "S00_00", frames: int = 5) -> UtteranceGroup:
    recording = Recording(
        name="neutral-1-1",
        emotion=Emotion.NEUTRAL,
        level=1,
        take=1,
        frames=frames,
        video=encode_video(moving_picture(frames), 25.0),
        speech=encode_speech(np.zeros(3200, np.float32)),
        features=np.ones((frames, 160), np.float32),
        valid=np.ones(frames, bool),
    )
    speaker, sentence = key.split("_")
    return UtteranceGroup(key, "synthetic", speaker, sentence, 25.0, 64, [recording])


@pytest.mark.parametrize("codec", ["h264", "vp9"])
class TestVideo:
    def test_frames_come_back_nearly_unchanged(self, codec):
        before = moving_picture()
        after, _, _ = decode(encode_video(before, 25.0, codec))
        assert after.shape == before.shape
        error = np.mean((after.astype(float) - before) ** 2)
        assert 10 * np.log10(255**2 / error) > 33
        # A wrong range moves the mean of a channel by many levels; swscale's fast conversion on decoding by up to 1.5.
        np.testing.assert_allclose(after.mean((0, 1, 2)), before.mean((0, 1, 2)), atol=2.0)

    def test_a_keyframe_begins_every_ten_frames(self, codec):
        _, keyframes, _ = decode(encode_video(moving_picture(23), 25.0, codec))
        assert keyframes == [0, 10, 20]

    def test_presentation_order_is_storage_order(self, codec):
        with av.open(io.BytesIO(encode_video(moving_picture(23), 25.0, codec))) as container:
            times = [packet.pts for packet in container.demux(video=0) if packet.size]
        assert times == sorted(times)
        assert len(times) == 23

    @pytest.mark.parametrize("fps", [25.0, 30.0, 29.97, 12.5])
    def test_the_rate_is_kept(self, codec, fps):
        _, _, stream = decode(encode_video(moving_picture(30), fps, codec))
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)

    def test_the_same_frames_give_the_same_bytes(self, codec):
        assert encode_video(moving_picture(), 25.0, codec) == encode_video(moving_picture(), 25.0, codec)

    def test_one_frame_is_a_video(self, codec):
        assert len(decode(encode_video(moving_picture(1), 25.0, codec))[0]) == 1


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((3, 64, 64, 3), np.float32), "uint8"),
        (np.zeros((0, 64, 64, 3), np.uint8), "T >= 1"),
        (np.zeros((3, 63, 64, 3), np.uint8), "even"),
    ],
)
def test_frames_that_cannot_be_encoded_are_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        encode_video(frames, 25.0)


@pytest.mark.parametrize("size", [32, 48])
def test_small_frames_give_the_same_bytes_whatever_was_encoded_before(size):
    """One in 50 did not, at these sizes alone, while x264 shared out bits by what later frames use."""
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 256, (12, size, size, 3), dtype=np.uint8) for _ in range(4)]
    first = [encode_video(clip, 25.0) for clip in clips]
    assert all(b"mbtree=0" in video for video in first)
    for _ in range(10):
        assert [encode_video(clip, 25.0) for clip in clips] == first
    assert b"mbtree=1" in encode_video(moving_picture(), 25.0), "larger frames keep it"


def test_speech_survives_to_the_last_of_its_16_bits():
    speech = np.random.default_rng(0).uniform(-1.2, 1.2, 5000).astype(np.float32)
    encoded = encode_speech(speech)
    after, rate = soundfile.read(io.BytesIO(encoded), dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(after, np.clip(speech, -1, 1), atol=1.01 / 32768 * 2)
    assert encoded == encode_speech(speech)


def test_the_entry_tells_where_each_group_lies(tmp_path):
    entry = write_shard(tmp_path / "shard-000000.tar", [group("S00_00"), group("S01_00", 7)])
    content = (tmp_path / "shard-000000.tar").read_bytes()
    assert (entry.bytes, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    for found, key, frames in zip(entry.groups, ("S00_00", "S01_00"), (5, 7), strict=True):
        decoded = decode_group(members_of(content[found.offset : found.offset + found.bytes]))
        assert (decoded.key, found.key, found.recordings[0].frames) == (key, key, frames)


def test_webdataset_reads_a_shard(tmp_path):
    write_shard(tmp_path / "shard-000000.tar", [group("S00_00"), group("S01_00")])
    samples = list(webdataset.WebDataset(str(tmp_path / "shard-000000.tar"), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ["S00_00", "S01_00"]
    assert samples[0]["json"]["speaker"] == "S00"
    assert samples[0]["neutral-1-1.features.npy"].shape == (5, 160)


def test_tar_tools_read_a_shard(tmp_path):
    path = tmp_path / "shard-000000.tar"
    write_shard(path, [group()])
    with tarfile.open(path) as tar:
        assert tar.getnames()[0] == "S00_00.json"
    assert path.stat().st_size % tarfile.RECORDSIZE == 0


def test_a_full_disk_is_one_clear_error_and_leaves_no_partial_file(tmp_path, monkeypatch):
    write_shard(tmp_path / "shard-000000.tar", [group()])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFull, match=r"no room for a shard of [\d,]+ bytes.*shard-000001\.tar"):
        write_shard(tmp_path / "shard-000001.tar", [group()])
    assert [p.name for p in tmp_path.iterdir()] == ["shard-000000.tar"]


def test_a_really_full_disk_is_the_same_error(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        with pytest.raises(DiskFull, match="no room"):
            write_shard(small / "shard-000000.tar", [group(frames=30)])
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_error_of_a_full_disk_survives_the_way_from_a_worker():
    before = DiskFull(errno.ENOSPC, "no room for a shard", "out/shard-000001.tar")
    after = pickle.loads(pickle.dumps(before))
    assert (type(after), str(after)) == (DiskFull, str(before))


def test_other_disk_errors_are_not_called_full(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_shard(Path(tmp_path / "nowhere" / "shard-000000.tar"), [group()])
