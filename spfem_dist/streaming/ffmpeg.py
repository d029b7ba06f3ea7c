"""Decoding by FFmpeg through PyAV, on the CPU: every codec, one frame after the other, from the nearest keyframe on."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from spfem_dist.streaming.encoded import DamagedVideo, Request, opened

#: Keyframe distance that `prepare` writes; where a video differs, frames stay right and seeking saves less.
KEYFRAME_EVERY = 10


def decode_pyav(request: Request, number: int = 0) -> np.ndarray:
    """uint8 [K, H, W, 3] RGB: the frames of one request. number: of it in its call, for DamagedVideo."""
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
