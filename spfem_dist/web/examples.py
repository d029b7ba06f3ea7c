"""Films to try the page with: rendered people who talk, made once for each user and kept in the cache."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

from spfem_dist.corpora import rendered
from spfem_dist.emotions import Emotion
from spfem_dist.files import cache_folder, whole_file

_SIDE = 320
#: Changed when the films would be others.
_VERSION = 1


def examples(say: Callable[[str], object] = print) -> list[Path]:
    """The example films; rendered where they are not in the cache yet, which takes a while and is said."""
    folder = cache_folder(f"examples-{_VERSION}")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        folder / f"example-{kind}-{speaker}-{sentence}.mp4": (kind, speaker, sentence)
        for kind in rendered.kinds()
        for speaker, sentence in getattr(rendered.find(kind), "SHOWN", ())
    }
    missing = [film for film in wanted if not film.exists()]
    if missing:
        say(f"rendering {len(missing)} example films into {folder}, once: half a minute")
    for film in missing:
        kind, speaker, sentence = wanted[film]
        corpus = rendered.corpus(kind, size=_SIDE)
        made = corpus.render(corpus.clip(speaker, sentence, Emotion.NEUTRAL))
        with whole_file(film) as temporary:
            _write(temporary, made.frames, made.fps, made.speech)
    return list(wanted)


def _write(path: Path, frames: np.ndarray, fps: float, speech: np.ndarray, rate: int = 16_000) -> None:
    """frames: uint8 [T, S, S, 3]. speech: float32 [N] at `rate`."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as film:
        video = film.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18"})
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        audio = cast(av.AudioStream, film.add_stream("aac", rate=rate, layout="mono"))
        for pixels in frames:
            film.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        film.mux(video.encode(None))
        for begin in range(0, len(speech), 1024):
            sound = av.AudioFrame.from_ndarray(speech[None, begin : begin + 1024], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = rate, begin
            film.mux(audio.encode(sound))
        film.mux(audio.encode(None))
