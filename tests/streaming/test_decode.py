"""Decoding: the frames asked for, from only the part of the video that holds them, the same from every decoder."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from coded_shards import coded_frames, read_code

from spfem_dist.prepare.shards import encode_video
from spfem_dist.streaming import decode as decode_module
from spfem_dist.streaming.decode import choose_decoder, decode, decode_many
from spfem_dist.streaming.encoded import DamagedVideo, Request, UnusableDecoder, codec_of

FRAMES = 37
ASKED = [(0,), (36,), (5, 3, 3, 30), (9, 10, 11), (19, 29), tuple(range(FRAMES)), (35, 0)]


@pytest.fixture(scope="module")
def videos() -> dict[str, bytes]:
    return {codec: encode_video(coded_frames(FRAMES, 77), 25.0, codec) for codec in ("h264", "vp9")}


def smooth_frames() -> np.ndarray:
    """Like a face: soft edges and colours, so that chroma interpolation matters little."""
    rng = np.random.default_rng(0)
    base = cv2.GaussianBlur(rng.normal(0, 1, (64, 64, 3)), (0, 0), 6)
    base = base / np.abs(base).max()
    return np.stack([130 + 90 * np.roll(base, t, axis=1) for t in range(20)]).astype(np.uint8)


@pytest.mark.parametrize("codec", ["h264", "vp9"])
@pytest.mark.parametrize("asked", ASKED)
def test_pyav_gives_the_frames_asked_for_in_the_order_asked(videos, codec, asked):
    pictures = decode(videos[codec], asked)
    assert pictures.shape == (len(asked), 32, 32, 3)
    assert pictures.dtype == np.uint8
    assert [read_code(p) for p in pictures] == [(77, k) for k in asked]


def test_seeking_gives_the_same_pixels_as_decoding_everything(videos):
    for video in videos.values():
        whole = decode(video, range(FRAMES))
        for asked in ASKED:
            assert np.array_equal(decode(video, asked), whole[list(asked)])


@pytest.mark.parametrize("fps", [30.0, 29.97, 23.976])
def test_frame_numbers_hold_at_other_frame_rates(fps):
    for codec in ("h264", "vp9"):
        video = encode_video(coded_frames(70, 3), fps, codec)
        assert [read_code(p) for p in decode(video, [0, 33, 69, 50])] == [(3, k) for k in (0, 33, 69, 50)]


def test_only_the_needed_part_of_a_video_is_decoded(videos):
    # Everything before the last keyframe is destroyed; the frames after it do not notice.
    video = bytearray(encode_video(coded_frames(60, 5), 25.0, "h264"))
    start = video.index(b"mdat") + 8
    whole = decode(bytes(video), [55])
    video[start + 64 : start + 400] = bytes(336)
    assert np.array_equal(decode(bytes(video), [55]), whole)


@pytest.mark.parametrize("asked", ASKED)
def test_dali_on_the_cpu_gives_the_frames_asked_for(videos, asked):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed (pip install 'spfem-dist[dev]')")
    assert [read_code(p) for p in decode(videos["vp9"], asked, "dali-cpu")] == [(77, k) for k in asked]


def test_dali_on_the_cpu_agrees_with_pyav():
    pytest.importorskip("nvidia.dali", reason="DALI is not installed (pip install 'spfem-dist[dev]')")
    video = encode_video(smooth_frames(), 25.0, "vp9")
    a, b = (decode(video, range(20), decoder).astype(float) for decoder in ("pyav", "dali-cpu"))
    assert np.abs(a - b).mean() < 2.5  # the two interpolate chroma differently
    assert np.abs((a - b).mean((0, 1, 2))).max() < 2.0  # no colour cast


def test_dali_on_the_cpu_reads_the_same_grey_levels_as_pyav():
    pytest.importorskip("nvidia.dali", reason="DALI is not installed (pip install 'spfem-dist[dev]')")
    ramp = np.linspace(20, 235, 64).astype(np.uint8)
    frames = np.broadcast_to(ramp[None, None, :, None], (12, 64, 64, 3)).copy()
    video = encode_video(frames, 25.0, "vp9", crf=4)
    a, b = (decode(video, range(12), decoder).astype(float) for decoder in ("pyav", "dali-cpu"))
    # A mix-up of full and limited range would show as a slope of 0.86 or 1.16.
    assert np.polyfit(a.ravel(), b.ravel(), 1)[0] == pytest.approx(1.0, abs=0.01)
    assert np.abs(a - frames).mean() < 2.0
    assert np.abs(b - frames).mean() < 2.0


def test_many_videos_at_once_keep_their_places(videos):
    requests = [Request(encode_video(coded_frames(12, n), 25.0, "vp9"), [n % 12, 2], f"clip {n}") for n in range(5)]
    decoders = ["pyav"]
    if decode_module.importlib.util.find_spec("nvidia.dali"):
        decoders.append("dali-cpu")
    for decoder in decoders:
        for n, pictures in enumerate(decode_many(requests * 8, decoder)):
            assert isinstance(pictures, torch.Tensor)
            assert read_code(pictures[0].numpy()) == (n % 5, n % 5 % 12)


@pytest.mark.parametrize("decoder", ["pyav", "dali-cpu"])
def test_a_broken_video_is_named(videos, decoder):
    if decoder == "dali-cpu":
        pytest.importorskip("nvidia.dali", reason="DALI is not installed (pip install 'spfem-dist[dev]')")
    good, name = videos["vp9"], "shard-000003.tar: S00_001 happy-3-1"
    for broken in (good[: len(good) // 3], good[:4] + bytes(200)):
        requests = [Request(good, [1]), Request(broken, [30], name)]
        with pytest.raises(DamagedVideo, match=name) as caught:
            decode_many(requests, decoder)
        assert caught.value.request == 1
    with pytest.raises(DamagedVideo):
        decode(good, [FRAMES], decoder)
    assert read_code(decode(good, [4], decoder)[0]) == (77, 4)  # and the decoder goes on


def test_a_playlist_in_place_of_a_video_opens_nothing(videos, tmp_path):
    (tmp_path / "neighbour.mp4").write_bytes(videos["h264"])
    playlist = f"ffconcat version 1.0\nfile {tmp_path}/neighbour.mp4\n".encode()
    with pytest.raises(DamagedVideo, match="cannot be opened"):
        decode(playlist, [0])


def test_a_truncated_mp4_is_named(videos):
    video = videos["h264"]
    for cut in (0, 20, len(video) // 2):
        with pytest.raises(DamagedVideo, match="clip seven"):
            decode_many([Request(video[:cut], [20], "clip seven")])


def test_dali_on_the_cpu_refuses_h264_and_says_what_to_choose(videos):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed (pip install 'spfem-dist[dev]')")
    assert codec_of(videos["h264"]) == "h264"
    with pytest.raises(UnusableDecoder, match=r"codec is h264.*data\.decoder pyav.*VP9"):
        decode(videos["h264"], [0], "dali-cpu")


def test_auto_chooses_pyav_without_a_gpu():
    assert choose_decoder("auto") == "pyav"
    assert choose_decoder("auto", "cpu") == "pyav"
    assert choose_decoder("pyav", "cuda") == "pyav"


def test_a_missing_gpu_is_said_at_the_start():
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(UnusableDecoder, match=r"needs an NVIDIA GPU.*data\.decoder pyav|needs DALI"):
        choose_decoder("dali-gpu")


def test_missing_dali_is_said_at_the_start(monkeypatch):
    monkeypatch.setattr(decode_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnusableDecoder, match=r"pip install 'spfem-dist\[gpu\]'"):
        choose_decoder("dali-cpu")
