"""Films as a camera would have written them, of rendered faces."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from spfem_dist.records import RawRecording


def film(path: Path, raw: RawRecording, fps: int = 30) -> None:
    """`raw` as a video file with its speech, in the codecs of the file's kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codecs = {".mp4": ("libx264", "aac"), ".flv": ("flv1", "aac")}[path.suffix]
    size = raw.frames.shape[1]
    with av.open(str(path), "w") as container:
        video = container.add_stream(codecs[0], rate=fps, width=size, height=size, pix_fmt="yuv420p")
        video.codec_context.time_base = Fraction(1, fps)
        audio = container.add_stream(codecs[1], rate=16_000, layout="mono")
        for number, pixels in enumerate(raw.frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for begin in range(0, len(raw.speech), 1152):
            frame = av.AudioFrame.from_ndarray(raw.speech[None, begin : begin + 1152], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, begin, Fraction(1, 16_000)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
