"""A clip read frame by frame: upright pictures in the video's own colours, each with its time; the whole is never held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from spfem_dist.prepare.media import Shown, VideoFacts, open_media, probe, shown
from spfem_dist.records import Unusable

#: Shares of red and blue in luma, by the number of the matrix in H.273; the others are BT.601's, also where none is named.
_LUMA = {1: (0.2126, 0.0722), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
_MATRICES = {1, 2, 4, 5, 6, 7, 9, 10}
_UNSPECIFIED, _FULL = 2, 2


class EditError(ValueError):
    """A clip that cannot be edited; the text names the file and the fix."""


@dataclass(frozen=True)
class Footage:
    """What a clip's packets say, before anything is decoded.

    rate: frames a second as the file states it. sound: the codec of each sound track. left_out: kinds of other tracks
    (subtitles, data).
    """

    path: Path
    facts: VideoFacts
    rate: Fraction
    sound: tuple[str, ...]
    left_out: tuple[str, ...]
    title: str

    @property
    def frames(self) -> int:
        """Pictures in the file."""
        return self.facts.frames

    @property
    def fps(self) -> float:
        """Their mean rate."""
        return self.facts.fps

    @property
    def time_base(self) -> Fraction:
        """Seconds in one tick of the film's timestamps."""
        return self.facts.time_base


@dataclass(frozen=True)
class Colour:
    """How a picture's numbers are colours. matrix, primaries, transfer: by H.273. full: 0..255, else 16..235."""

    matrix: int
    full: bool
    primaries: int
    transfer: int

    def from_rgb(self) -> np.ndarray:
        """float32 [3, 3]: a difference in R, G, B (0..255) becomes the difference in Y, Cb, Cr of the picture."""
        red, blue = _LUMA.get(self.matrix, (0.299, 0.114))
        luma = np.array([red, 1 - red - blue, blue])
        cb, cr = ((np.eye(3)[at] - luma) / (2 * (1 - luma[at])) for at in (2, 0))
        scale = np.ones(3) if self.full else np.array([219, 224, 224]) / 255
        return (np.stack([luma, cb, cr]) * scale[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Picture:
    """One frame, upright, with square pixels and even sides (an odd side has its last line doubled), 4:2:0.

    y: uint8 [H, W]. u, v: uint8 [H/2, W/2]. pts, duration: ticks of the footage's `time_base`. deinterlaced: it was made of
    lines of two moments. converter: one for all
    pictures of a film, as making one takes longer than using it.
    """

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray
    colour: Colour
    pts: int
    duration: int
    deinterlaced: bool = False
    converter: VideoReformatter = field(default_factory=VideoReformatter, repr=False)

    def frame(self) -> av.VideoFrame:
        """The picture for the encoder, its timestamps not yet set."""
        height, width = self.y.shape
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane, values in zip(frame.planes, (self.y, self.u, self.v), strict=True):
            rows = np.asarray(memoryview(plane)).reshape(plane.height, plane.line_size)
            rows[:, : plane.width] = values
        frame.colorspace, frame.color_range = self.colour.matrix, _FULL if self.colour.full else 1
        frame.color_primaries, frame.color_trc = self.colour.primaries, self.colour.transfer
        return frame

    def part(self, box: tuple[int, int, int, int]) -> Picture:
        """What lies in the box x0, y0, x1, y1, all even, inside the picture; a view of the same numbers."""
        x0, y0, x1, y1 = box
        half = slice(y0 // 2, y1 // 2), slice(x0 // 2, x1 // 2)
        return replace(self, y=self.y[y0:y1, x0:x1], u=self.u[half], v=self.v[half])

    def rgb(self, shrink: int = 1) -> np.ndarray:
        """uint8 [H/shrink, W/shrink, 3], RGB."""
        height, width = self.y.shape
        how = Interpolation.BILINEAR if shrink == 1 else Interpolation.AREA
        converted = self.converter.reformat(
            self.frame(), width // shrink, height // shrink, format="rgb24", interpolation=how, threads=1
        )
        return converted.to_ndarray()


def footage(path: Path) -> Footage:
    """What is in `path`. Raises EditError where it is no video, empty, cut short, or cannot be read."""
    try:
        facts = probe(path)
        if facts.declared_frames - facts.packets > 1 + 0.01 * facts.declared_frames:
            raise EditError(
                f"{path}: {facts.packets} of {facts.declared_frames} frames are there, it was cut short; fetch the file again"
            )
        with open_media(path) as container:
            stream = container.streams.video[0]
            return Footage(
                path=path,
                facts=facts,
                rate=stream.average_rate or stream.guessed_rate or Fraction(facts.fps).limit_denominator(1001),
                sound=tuple(
                    track.codec_context.name if track.codec_context else "unknown" for track in container.streams.audio
                ),
                left_out=tuple(sorted({track.type for track in container.streams} - {"video", "audio"})),
                title=container.metadata.get("title", ""),
            )
    except Unusable as error:
        raise EditError(error.detail) from error


def pictures(film: Footage, threads: int = 0, begin: float | None = None) -> Iterator[Picture]:
    """The frames of `film` in the order in which they are shown. threads: of the decoder, 0 lets it choose.

    begin: frames before this time, seconds, are not needed (some come nevertheless).
    Raises EditError where the file is damaged, or its pictures change their size on the way.
    """
    shape, converter = None, VideoReformatter()
    try:
        for count, found in enumerate(shown(film.path, film.facts, threads, begin)):
            picture = _picture(found, film.facts.aspect, converter)
            if shape is not None and picture.y.shape != shape:
                raise EditError(
                    f"{film.path}: the picture's size changes at frame {count}; bring it to one size first "
                    f"(ffmpeg -i {film.path.name} -vf scale={shape[1]}:{shape[0]} one-size.mp4)"
                )
            shape = picture.y.shape
            yield picture
    except Unusable as error:
        raise EditError(error.detail) from error


def _picture(shown: Shown, aspect: float, converter: VideoReformatter) -> Picture:
    frame = shown.frame
    turns = round((frame.rotation or 0) / 90) % 4  # counter-clockwise quarter turns
    if frame.colorspace not in _MATRICES:
        frame.colorspace = _UNSPECIFIED
    wide = max(1, round(frame.width * aspect))
    # yuvj420p is yuv420p of full range under an old name, which a conversion would compress.
    if frame.format.name not in ("yuv420p", "yuvj420p") or wide != frame.width:
        frame = frame.reformat(width=wide, format="yuv420p", interpolation=Interpolation.BICUBIC)
    full = frame.format.name == "yuvj420p" or frame.color_range == _FULL
    colour = Colour(frame.colorspace, full, frame.color_primaries, frame.color_trc)
    planes = []
    for plane, unit in zip(frame.planes, (2, 1, 1), strict=True):
        rows = np.asarray(memoryview(plane)).reshape(plane.height, plane.line_size)[:, : plane.width]
        down, right = -plane.height % unit, -plane.width % unit
        if down or right:
            rows = cv2.copyMakeBorder(rows, 0, down, 0, right, cv2.BORDER_REPLICATE)
        planes.append(np.rot90(rows, turns).copy())  # the frame's own memory goes with it
    y, u, v = planes
    return Picture(y, u, v, colour, shown.ticks, shown.duration, shown.deinterlaced, converter)
