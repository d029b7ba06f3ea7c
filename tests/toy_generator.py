"""Generators that need no training, and the synthetic talking heads as films, for the tests of editing."""

import itertools
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.generators.generator import Motion
from spfem_dist.generators.rendered import Rendered
from spfem_dist.records import RawRecording


class Brightener:
    """Makes an ellipse in the middle of the crop brighter; `seen` keeps what `drive` was given."""

    def __init__(self, size=64, topology="mesh468", by=40, shortest=2):
        self.size, self.topology, self.by, self.shortest = size, topology, by, shortest
        self.seen = {}

    def drive(self, source, emotion=None, reference=None, strength=1.0):
        if len(source.landmarks) < self.shortest:
            raise ValueError(f"{len(source.landmarks)} frames; at least {self.shortest} are needed: give a longer clip")
        self.seen = {"source": source, "emotion": emotion, "reference": reference, "strength": strength}
        return Motion(source.landmarks, source.landmarks + 1)

    def render(self, frames, motion, first=0, flow_side=None):
        assert frames.shape[1:] == (self.size, self.size, 3)
        assert first + len(frames) <= len(motion.source)
        y, x = np.mgrid[: self.size, : self.size] / self.size - 0.5
        mask = np.clip(2 - 6 * np.hypot(x, 0.8 * y), 0, 1).astype(np.float32)
        return Rendered.painted(frames, np.clip(frames.astype(int) + self.by, 0, 255), np.stack([mask] * len(frames)))


@cache
def talking_head(speaker=1, size=128, frames=30) -> RawRecording:
    """A synthetic recording, whose face the mesh finds."""
    corpus = SyntheticCorpus.small(identities=3, sentences=1, size=size)
    raw = corpus.render(corpus.clip(speaker, 0, Emotion.NEUTRAL))
    raw.frames, raw.landmarks = raw.frames[:frames], raw.landmarks[:frames]
    return raw


def film(
    path: Path,
    frames,
    times=None,
    sound="aac",
    rate=25,
    codec=None,
    turned=0,
    pixels="yuv420p",
    colours=None,
    sound_seconds=None,
    sound_rate=44_100,
    b_frames=0,
    options=None,
) -> Path:
    """`frames` (RGB arrays) as a film. times: of each frame, seconds. sound: a codec, or None. turned: degrees of its flag."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = codec or ("libvpx-vp9" if path.suffix == ".webm" else "libx264")
    frames = iter(frames)
    first = next(frames)
    with av.open(str(path), "w") as container:
        height, width = first.shape[:2]
        video = container.add_stream(codec, rate=rate, width=width, height=height, pix_fmt=pixels)
        own = {"libx264": {"crf": "8", "preset": "ultrafast", "bf": str(b_frames)}, "libvpx-vp9": {"cpu-used": "8"}}
        video.options = options or own.get(codec, {})
        if codec == "libvpx-vp9":
            video.codec_context.bit_rate = 2_000_000
        video.time_base = video.codec_context.time_base = Fraction(1, 90_000 if times is not None else rate)
        for name, value in (colours or {}).items():
            setattr(video.codec_context, name, value)
        if turned:
            video.set_display_rotation(turned)
        audio = container.add_stream(sound, rate=sound_rate, layout="mono") if sound else None
        for index, pixels_of in enumerate(itertools.chain([first], frames)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_of), format="rgb24")
            frame.pts = round(times[index] * 90_000) if times is not None else index
            frame.time_base = video.codec_context.time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            _add_sound(container, audio, sound_seconds or (index + 1) / rate, sound_rate)
    return path


def _add_sound(container, audio, seconds, rate) -> None:
    wave = (0.3 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)
    whole = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
    whole.sample_rate, whole.pts, whole.time_base = rate, 0, Fraction(1, rate)
    context = audio.codec_context
    resampler = av.AudioResampler(context.format, "mono", rate, frame_size=context.frame_size or 1024)
    for frame in [*resampler.resample(whole), *resampler.resample(None)]:
        container.mux(audio.encode(frame))
    container.mux(audio.encode(None))


def sound_packets(path) -> list[tuple]:
    """(codec, pts, dts, duration, bytes) of every sound packet, track by track; numbers in the track's time base."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(*container.streams.audio) if p.size] if container.streams.audio else []
        packets.sort(key=lambda packet: packet.stream.index)  # within a track they stay in order
        return [(p.stream.codec_context.name, p.pts, p.dts, p.duration, bytes(p)) for p in packets]


def shown(path) -> tuple[list[Fraction], list[np.ndarray]]:
    """(times, RGB pictures) of a film as a player would show it, turned upright."""
    times, pictures = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            times.append(frame.pts * frame.time_base)
            pictures.append(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))
    return times, pictures


def toy_load(location) -> Brightener:
    """Stands for `load_generator`: the location's name says what the toy is, such as `toy-ibug68`."""
    return Brightener(topology="ibug68" if str(location).endswith("ibug68") else "mesh468")


def toys_are_loaded() -> None:
    """Called in the process of a command, before it: `--generator` then names a toy."""
    import sys
    import types

    module = types.ModuleType("spfem_dist.generators.load")
    module.load_generator, module.SHIPPED = toy_load, "shipped"
    sys.modules[module.__name__] = module
