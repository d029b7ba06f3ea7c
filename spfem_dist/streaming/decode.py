"""Encoded video bytes -> RGB frames, by PyAV or DALI, behind one interface. Only what is asked for is decoded."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence

import numpy as np
import torch

from spfem_dist.streaming.dali import decode_dali
from spfem_dist.streaming.encoded import Decoder, Request, UnusableDecoder
from spfem_dist.streaming.ffmpeg import decode_pyav

log = logging.getLogger(__name__)


def choose_decoder(name: str, device: torch.device | str | None = None) -> Decoder:
    """The decoder that `data.decoder` names; `auto` takes DALI on the GPU where `device` is one, PyAV elsewhere.

    Raises UnusableDecoder where DALI (or a GPU) is asked for and missing.
    """
    on_gpu = device is not None and torch.device(device).type == "cuda" and torch.cuda.is_available()
    has_dali = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
    if name == "auto":
        if on_gpu and not has_dali:
            log.warning(
                "data.decoder auto: a GPU is here but DALI is not (pip install 'spfem-dist[gpu]'); PyAV decodes"
            )
        return "dali-gpu" if on_gpu and has_dali else "pyav"
    if name == "pyav":
        return "pyav"
    if name not in ("dali-cpu", "dali-gpu"):
        raise UnusableDecoder(f"unknown decoder {name!r}: data.decoder is auto, pyav, dali-cpu or dali-gpu")
    if not has_dali:
        raise UnusableDecoder(
            f"data.decoder {name} needs DALI: pip install 'spfem-dist[gpu]', or set data.decoder pyav"
        )
    if name == "dali-gpu" and not torch.cuda.is_available():
        raise UnusableDecoder("data.decoder dali-gpu needs an NVIDIA GPU and none is visible: set data.decoder pyav")
    return "dali-cpu" if name == "dali-cpu" else "dali-gpu"


def decode(video: bytes, frames: Sequence[int], decoder: Decoder = "pyav") -> np.ndarray:
    """uint8 [K, H, W, 3] RGB: frames `frames` (K indexes, any order) of `video`, on the CPU.

    Raises DamagedVideo where the video is broken or shorter, UnusableDecoder for a codec the decoder does not know.
    """
    return decode_many([Request(video, frames)], decoder)[0].cpu().numpy()


def decode_many(
    requests: Sequence[Request], decoder: Decoder = "pyav", device: torch.device | str | None = None
) -> list[torch.Tensor]:
    """uint8 [K, H, W, 3] RGB for each request, on the CPU (pyav, dali-cpu) or on `device` (dali-gpu)."""
    if decoder == "pyav":
        return [torch.from_numpy(decode_pyav(request, number)) for number, request in enumerate(requests)]
    return decode_dali(requests, decoder, device)
