"""Decoding by NVIDIA DALI: on the GPU's own decoder ('mixed'), or on the CPU for VP8, VP9 and MJPEG.

The bytes come from our reader, so order and resume stay ours; DALI keeps no state between calls.
What the GPU's decoder refuses (VP9 below 128 pixels, a driver without its video library) is decoded by PyAV and copied there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from spfem_dist.streaming.encoded import DamagedVideo, Decoder, Request, UnusableDecoder, codec_of, format_of
from spfem_dist.streaming.ffmpeg import decode_pyav

log = logging.getLogger(__name__)

#: Videos handed to the decoder at a time.
_BATCH = 32
_CPU_CODECS = {"vp8", "vp9", "libvpx", "libvpx-vp9", "mjpeg"}

#: Formats that the GPU's decoder refused although they are whole, and what DALI said: (codec, width, height) -> words.
refused: dict[tuple[str, int, int], str] = {}
_pipelines: dict[tuple[Decoder, int | None], Any] = {}
_lock = threading.Lock()  # a DALI pipeline serves one caller at a time


def decode_dali(
    requests: Sequence[Request], decoder: Decoder, device: torch.device | str | None = None
) -> list[torch.Tensor]:
    """As `decode_many`. Raises UnusableDecoder for a codec DALI's CPU decoder lacks (H.264 among them)."""
    device_id = _device_id(device) if decoder == "dali-gpu" else None
    if decoder == "dali-cpu":
        for request in requests:
            _refuse_codec(request)
    decoded: list[torch.Tensor] = []
    with _lock:
        for first in range(0, len(requests), _BATCH):
            decoded += _decode_chunk(requests[first : first + _BATCH], first, decoder, device_id)
    return decoded


def _decode_chunk(
    requests: Sequence[Request], first: int, decoder: Decoder, device_id: int | None
) -> list[torch.Tensor]:
    if refused and any(_is_refused(request) for request in requests):
        return [_by_pyav(request, first + n, device_id) for n, request in enumerate(requests)]
    try:
        return _run(requests, decoder, device_id)
    except RuntimeError as error:
        _pipelines.pop((decoder, device_id), None)  # a pipeline that raised cannot go on
        if len(requests) == 1:
            said = _last_line(error)
            if decoder == "dali-cpu":
                raise DamagedVideo(f"{requests[0].name} cannot be decoded by DALI ({said})", first) from None
            found = _by_pyav(requests[0], first, device_id)  # raises where the video is what is broken
            refused[format_of(requests[0].video)] = said
            codec, width, height = format_of(requests[0].video)
            log.warning(
                "the GPU's decoder does not take %s of %d x %d pixels (%s): PyAV decodes it", codec, width, height, said
            )
            return [found]
    # DALI does not say which video of a batch was at fault.
    return [_decode_chunk([r], first + n, decoder, device_id)[0] for n, r in enumerate(requests)]


def _is_refused(request: Request) -> bool:
    try:
        return format_of(request.video) in refused
    except DamagedVideo:  # named by whoever decodes it
        return False


def _by_pyav(request: Request, number: int, device_id: int | None) -> torch.Tensor:
    return torch.from_numpy(decode_pyav(request, number)).to(f"cuda:{device_id}")


def _run(requests: Sequence[Request], decoder: Decoder, device_id: int | None) -> list[torch.Tensor]:
    pipeline = _pipelines.get((decoder, device_id))
    if pipeline is None:
        pipeline = _pipelines[(decoder, device_id)] = _build(decoder, device_id)
    pipeline.feed_input("encoded", [np.frombuffer(r.video, dtype=np.uint8) for r in requests])
    pipeline.feed_input("frames", [np.asarray(r.frames, dtype=np.int32) for r in requests])
    if device_id is None:
        (pictures,) = pipeline.run()
    else:  # in the order of torch's stream, in which the pictures are copied before DALI may use their memory again
        (pictures,) = pipeline.run(torch.cuda.current_stream(device_id))
    return [_to_torch(pictures[n], device_id) for n in range(len(requests))]


def _build(decoder: Decoder, device_id: int | None) -> Any:
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.types import DALIDataType

    # DALI's own annotation forgets that no device is spelled None.
    options: dict[str, Any] = {"device_id": device_id, "num_threads": 1 if device_id is None else 4}

    @pipeline_def(batch_size=_BATCH, prefetch_queue_depth=1, **options)
    def decoding() -> Any:
        encoded = fn.external_source(name="encoded", dtype=DALIDataType.UINT8, ndim=1)
        frames = fn.external_source(name="frames", dtype=DALIDataType.INT32, ndim=1)
        return fn.decoders.video(
            encoded, frames=frames, device="cpu" if device_id is None else "mixed", pad_mode="none", affine=False
        )

    pipeline = decoding()
    pipeline.build()
    return pipeline


def _to_torch(picture: Any, device_id: int | None) -> torch.Tensor:
    if device_id is None:
        return torch.from_numpy(np.array(picture))
    from nvidia.dali.plugin.pytorch import feed_ndarray

    # DALI re-uses its buffer at the next run: copy, in step with the current stream.
    copied = torch.empty(picture.shape(), dtype=torch.uint8, device=f"cuda:{device_id}")
    feed_ndarray(picture, copied, cuda_stream=torch.cuda.current_stream(device_id))
    return copied


def _device_id(device: torch.device | str | None) -> int:
    index = torch.device(device).index if device is not None else None
    return torch.cuda.current_device() if index is None else index


def _refuse_codec(request: Request) -> None:
    if request.video[:4] == b"\x1a\x45\xdf\xa3":  # webm holds VP8, VP9 or AV1; AV1 is not written by prepare
        return
    codec = codec_of(request.video)
    if codec not in _CPU_CODECS:
        raise UnusableDecoder(
            f"data.decoder dali-cpu cannot decode {request.name}: its codec is {codec}, DALI decodes VP8, VP9 and MJPEG "
            "on the CPU. Set data.decoder pyav (or dali-gpu on a machine with a GPU), or prepare the shards with VP9"
        )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("[", "Assert", "Failed", "Could not"))]
    return (said or lines or [type(error).__name__])[0][:200]
