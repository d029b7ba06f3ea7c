"""Encoded video bytes -> RGB frames, by PyAV or DALI, behind one interface. Only what is asked for is decoded."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from spfem_dist.streaming.dali import decode_dali
from spfem_dist.streaming.encoded import DamagedVideo, Decoder, Request, UnusableDecoder, opened

log = logging.getLogger(__name__)

#: Keyframe distance that `prepare` writes; where a video differs, frames stay right and seeking saves less.
KEYFRAME_EVERY = 10


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
        return [torch.from_numpy(_decode_pyav(request, number)) for number, request in enumerate(requests)]
    return decode_dali(requests, decoder, device)


def _decode_pyav(request: Request, number: int) -> np.ndarray:
    wanted = sorted(set(request.frames))
    found: dict[int, np.ndarray] = {}
    with opened(request, number) as container:
        stream = container.streams.video[0]
        # One thread: loader threads work on different clips, and FFmpeg's own would only get in their way
        # (six times slower at 64 px).
        stream.codec_context.thread_count = 1
        reformatter = VideoReformatter()
        if stream.average_rate is None or stream.time_base is None:
            raise DamagedVideo(f"{request.name} has no constant frame rate", number)
        per_frame = 1 / (stream.average_rate * stream.time_base)
        above, below = per_frame.numerator, per_frame.denominator
        start = stream.start_time or 0
        position = 0  # index of the frame the decoder would give next
        coming = container.decode(stream)
        try:
            for target in wanted:
                if target // KEYFRAME_EVERY * KEYFRAME_EVERY > position:
                    container.seek(round(start + target * per_frame), stream=stream, backward=True)
                    coming = container.decode(stream)
                while target not in found and (frame := next(coming, None)) is not None:
                    if frame.pts is None:
                        raise DamagedVideo(f"{request.name} holds a frame without a time", number)
                    # Nearest whole frame, in integers: a Fraction for each frame costs as much as converting it.
                    shown = (2 * (frame.pts - start) * below + above) // (2 * above)
                    if shown == target:
                        found[shown] = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                    position = shown + 1
                    if shown > target:
                        break
        except av.FFmpegError as error:
            raise DamagedVideo(f"{request.name} cannot be decoded ({error})", number) from None
    if missing := [k for k in wanted if k not in found]:
        raise DamagedVideo(f"{request.name} lacks frame {missing[0]} ({len(missing)} of {len(wanted)} wanted)", number)
    return np.stack([found[k] for k in request.frames])
