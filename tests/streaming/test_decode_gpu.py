"""Decoding on the GPU's own decoder. Needs an NVIDIA GPU and DALI; without them these tests say that they did not run."""

from __future__ import annotations

import tarfile
from itertools import islice

import numpy as np
import pytest
import torch
from coded_shards import coded_frames, make_group, read_code, write_shards
from gpu import NEEDS_DALI

from spfem_dist.config import Data
from spfem_dist.emotions import SEVEN
from spfem_dist.prepare.shards import encode_video
from spfem_dist.streaming import dali
from spfem_dist.streaming.decode import choose_decoder, decode, decode_many
from spfem_dist.streaming.encoded import DamagedVideo, Request
from spfem_dist.streaming.loader import Loader
from spfem_dist.streaming.views import CONTENT

pytestmark = NEEDS_DALI
#: NVDEC refuses frames smaller than this for some codecs.
SIZE = 256


@pytest.fixture(scope="module")
def video() -> bytes:
    return encode_video(coded_frames(40, 77, SIZE), 25.0, "h264")


@pytest.fixture(autouse=True)
def only_dali_decodes(request):
    """A test fails where the GPU's decoder refused and PyAV stood in for it, with DALI's words."""
    dali.refused.clear()
    yield
    if "stand_in" not in request.keywords:
        assert not dali.refused


def test_auto_takes_the_gpu():
    assert choose_decoder("auto", "cuda") == "dali-gpu"


def test_the_gpu_gives_the_frames_asked_for_on_the_gpu(video):
    asked = [5, 3, 3, 30, 39, 0]
    (pictures,) = decode_many([Request(video, asked)], "dali-gpu", "cuda")
    assert pictures.is_cuda
    assert [read_code(p.cpu().numpy()) for p in pictures] == [(77, k) for k in asked]


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_the_gpu_agrees_with_pyav(codec):
    frames = np.stack([np.roll(moving(), 3 * k, axis=1) for k in range(40)])
    coded = encode_video(frames, 25.0, codec)
    a, b = (decode(coded, range(40), decoder).astype(float) for decoder in ("pyav", "dali-gpu"))
    assert np.abs(a - b).mean() < 2.5
    assert np.abs((a - b).mean((0, 1, 2))).max() < 2.0
    assert np.polyfit(a.ravel(), b.ravel(), 1)[0] == pytest.approx(1.0, abs=0.02)


def moving() -> np.ndarray:
    """A smooth coloured picture [SIZE, SIZE, 3]."""
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    smooth = torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic").clamp(0, 255)
    return smooth[0].permute(1, 2, 0).byte().numpy()


def test_videos_of_different_lengths_out_of_a_tar_are_decoded_in_one_call(tmp_path):
    group = make_group("S00", "000", SEVEN, 0)
    for r, recording in enumerate(group.recordings):
        recording.video = encode_video(coded_frames(recording.frames, r, SIZE), 25.0, "h264")
    root = write_shards(tmp_path, [[group]])
    with tarfile.open(next(root.glob("*.tar"))) as tar:
        videos = [tar.extractfile(m).read() for m in tar.getmembers() if m.name.endswith(".mp4")]
    assert len(videos) == len(group.recordings)
    requests = [Request(v, [20 + n, n, 5], f"recording {n}") for n, v in enumerate(videos)] * 6  # more than one batch
    found = decode_many(requests, "dali-gpu", "cuda")
    codes = [[read_code(picture.cpu().numpy()) for picture in pictures] for pictures in found]
    assert codes == [[(codes[n % 7][0][0], k) for k in request.frames] for n, request in enumerate(requests)]
    assert sorted(c[0][0] for c in codes[:7]) == list(range(7))


@pytest.mark.stand_in
def test_what_the_gpu_does_not_take_is_decoded_all_the_same():
    small = encode_video(coded_frames(12, 5, 32), 25.0, "vp9")  # its decoder wants 128 pixels
    found = decode_many([Request(small, [3, 9])] * 3, "dali-gpu", "cuda")
    assert [[read_code(p.cpu().numpy()) for p in pictures] for pictures in found] == [[(5, 3), (5, 9)]] * 3
    assert all(pictures.is_cuda for pictures in found)


def test_a_broken_video_is_named_and_the_decoder_goes_on(video):
    with pytest.raises(DamagedVideo, match="clip seven"):
        decode_many([Request(video, [1]), Request(video[: len(video) // 2], [39], "clip seven")], "dali-gpu")
    assert read_code(decode(video, [4], "dali-gpu")[0]) == (77, 4)


def test_the_loader_gives_the_same_samples_as_on_the_cpu(tmp_path):
    groups = [make_group("S00", f"{n:03d}", SEVEN[:3], 8 * n) for n in range(4)]
    for n, group in enumerate(groups):
        for r, recording in enumerate(group.recordings):
            recording.video = encode_video(coded_frames(recording.frames, 8 * n + r, SIZE), 25.0, "h264")
    data = Data(shards=str(write_shards(tmp_path, [groups])), size=SIZE, frames_per_recording=4)
    found = {}
    for device in ("cpu", "cuda"):
        with Loader(data, CONTENT, 0, 0, 1, 4, device=device) as loader:
            found[device] = next(batch for batch, _ in islice(loader, 1))
    assert found["cuda"].frames.is_cuda
    assert torch.equal(found["cpu"].position, found["cuda"].position.cpu())
    assert (found["cpu"].frames.float() - found["cuda"].frames.cpu().float()).abs().mean() < 2.5
