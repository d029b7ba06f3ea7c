"""Decoding on the GPU's own decoder. Needs an NVIDIA GPU and DALI; without them these tests say that they did not run."""

from __future__ import annotations

import importlib.util
from itertools import islice

import numpy as np
import pytest
import torch
from coded_shards import coded_frames, read_code

from spfem_dist.prepare.shards import encode_video
from spfem_dist.streaming.decode import choose_decoder, decode, decode_many
from spfem_dist.streaming.encoded import DamagedVideo, Request
from spfem_dist.streaming.loader import Loader
from spfem_dist.streaming.views import CONTENT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: needs an NVIDIA GPU, none is visible"),
    pytest.mark.skipif(
        importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None,
        reason="NOT RUN: needs DALI (pip install 'spfem-dist[gpu]')",
    ),
]
#: NVDEC refuses frames smaller than this for some codecs.
SIZE = 256


@pytest.fixture(scope="module")
def video() -> bytes:
    return encode_video(coded_frames(40, 77, SIZE), 25.0, "h264")


def test_auto_takes_the_gpu():
    assert choose_decoder("auto", "cuda") == "dali-gpu"


def test_the_gpu_gives_the_frames_asked_for_on_the_gpu(video):
    asked = [5, 3, 3, 30, 39, 0]
    (pictures,) = decode_many([Request(video, asked)], "dali-gpu", "cuda")
    assert pictures.is_cuda
    assert [read_code(p.cpu().numpy()) for p in pictures] == [(77, k) for k in asked]


def test_the_gpu_agrees_with_pyav(video):
    a, b = (decode(video, range(40), decoder).astype(float) for decoder in ("pyav", "dali-gpu"))
    assert np.abs(a - b).mean() < 2.5
    assert np.abs((a - b).mean((0, 1, 2))).max() < 2.0
    assert np.polyfit(a.ravel(), b.ravel(), 1)[0] == pytest.approx(1.0, abs=0.02)


def test_a_broken_video_is_named_and_the_decoder_goes_on(video):
    with pytest.raises(DamagedVideo, match="clip seven"):
        decode_many([Request(video, [1]), Request(video[: len(video) // 2], [39], "clip seven")], "dali-gpu")
    assert read_code(decode(video, [4], "dali-gpu")[0]) == (77, 4)


def test_the_loader_gives_the_same_samples_as_on_the_cpu(tmp_path):
    from coded_shards import make_group, write_shards

    from spfem_dist.config import Data
    from spfem_dist.emotions import SEVEN

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
