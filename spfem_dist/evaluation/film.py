"""Clips beside each other as one small film."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from io import BytesIO
from typing import cast

import av
import cv2
import numpy as np

#: Side of one picture in the film, pixels, and space between two.
SIDE, GAP = 160, 4


def beside(clips: Mapping[str, np.ndarray], side: int = SIDE) -> np.ndarray:
    """Clips uint8 [T, S, S, 3] in one row, uint8 [T, side, W, 3]: as long as the first; shorter ones stop at their last frame."""
    length = len(next(iter(clips.values())))
    columns = []
    for frames in clips.values():
        way = cv2.INTER_AREA if frames.shape[1] > side else cv2.INTER_CUBIC
        shown = [frames[min(t, len(frames) - 1)] for t in range(length)]
        columns += [
            np.stack([cv2.resize(f, (side, side), interpolation=way) for f in shown]),
            np.full((length, side, GAP, 3), 255, np.uint8),
        ]
    return np.concatenate(columns[:-1], axis=2)


def filmed(frames: np.ndarray, fps: float = 25.0, speech: np.ndarray | None = None, rate: int = 16_000) -> bytes:
    """Frames uint8 [T, H, W, 3] as an MP4 that browsers play (H.264); an odd row or column at the edge is cut.

    speech: float32 [N] at `rate` Hz, -1 to 1, which it then has as its sound (AAC).
    """
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "20", "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        audio = None if speech is None else cast(av.AudioStream, container.add_stream("aac", rate=rate, layout="mono"))
        for pixels in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if speech is not None and audio is not None:
            for begin in range(0, len(speech), 1024):
                sound = av.AudioFrame.from_ndarray(speech[None, begin : begin + 1024], format="fltp", layout="mono")
                sound.sample_rate, sound.pts = rate, begin
                container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
    return buffer.getvalue()
