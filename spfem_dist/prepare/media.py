"""A film opened with care: what its packets say, and its pictures in the order and at the times they are shown."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import av.filter
import numpy as np

from spfem_dist.records import Unusable

#: Demuxers for films and sound files. Playlists (concat, hls, dash) are none of them: they open other files and addresses.
_FORMATS = (
    *(
        "mov",
        "matroska",
        "avi",
        "flv",
        "live_flv",
        "mpeg",
        "mpegts",
        "mpegvideo",
        "asf",
        "ogg",
        "mxf",
        "nut",
        "dv",
        "rm",
    ),
    *("wtv", "gxf", "nsv", "ivf", "h264", "hevc", "m4v", "vc1", "obu", "av1", "yuv4mpegpipe", "mjpeg"),
    *(
        "wav",
        "w64",
        "aiff",
        "au",
        "caf",
        "mp3",
        "aac",
        "flac",
        "ac3",
        "eac3",
        "amr",
        "amrnb",
        "amrwb",
        "ape",
        "wv",
        "tta",
    ),
)
_SAFE = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "file"}


@dataclass(frozen=True)
class VideoFacts:
    """What the packets of a video say, before anything is decoded. Times in seconds.

    frames: pictures that are shown. packets: all that are in the file, with those that an edit list hides and those
    that say "as before". declared_frames, declared_duration: of the track as the file states them (mp4), declared_whole:
    of the whole file with its sound (flv and mkv state no more); 0 where not stated. time_base: seconds in a tick. aspect: a
    pixel's width over its height. ticks: int64 [frames], the times of all pictures,
    where only their order says which time is whose (see `shown`).
    """

    frames: int
    fps: float
    start: float
    duration: float
    longest_gap: float
    packets: int
    declared_frames: int
    declared_duration: float
    declared_whole: float
    time_base: Fraction
    aspect: float
    ticks: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def end(self) -> float:
        """When the last picture ends."""
        return self.start + self.duration

    def part(self, start: float, end: float | None) -> VideoFacts:
        """The facts of a part, seconds from the first picture; what the file states of its whole is left out.

        Raises ValueError where the part begins beyond the last picture.
        """
        if start >= self.duration:
            raise ValueError(f"it begins at {start:g} s, and the film has {self.duration:.2f} s")
        duration = min(self.duration if end is None else end, self.duration) - start
        facts = replace(self, start=self.start + start, duration=duration)
        return replace(facts, declared_frames=0, declared_duration=0.0, declared_whole=0.0)


class Shown(NamedTuple):
    """A picture with its time and duration in ticks of the stream's time base. deinterlaced: made of lines of two moments."""

    frame: av.VideoFrame
    ticks: int
    duration: int
    deinterlaced: bool = False


def open_media(path: Path, reason: str = "unreadable") -> av.container.InputContainer:
    """The film or sound file `path`, which opens no other file. Raises Unusable, whatever is the matter with it."""
    try:
        if not path.is_file():
            raise Unusable("missing-file", f"{path} does not exist (any more); prepare again from a complete corpus")
        if path.stat().st_size == 0:
            raise Unusable("empty-file", f"{path} has no bytes; fetch the file again")
        with path.open("rb") as file:
            if file.read(23) == b"version https://git-lfs":
                raise Unusable(
                    "git-lfs-pointer", f"{path} is a git-lfs pointer, not the recording; run `git lfs pull` there"
                )
    except OSError as error:
        fix = "give yourself the right to read it" if isinstance(error, PermissionError) else "fetch the file again"
        raise Unusable(reason, f"{path}: cannot be read ({error.strerror}); {fix}") from error
    try:
        # With its protocol, as a name may look like another one's ("concat:", "http:").
        return av.open(f"file:{path}", options=_SAFE)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if getattr(error, "errno", 0) == errno.EINVAL:
            detail = (
                "no film or sound file (pictures, text and playlists are not read); give mp4, mov, mkv, webm or avi"
            )
            raise Unusable(reason, f"{path}: {detail}") from error
        said = getattr(error, "strerror", None) or error
        raise Unusable(reason, f"{path}: cannot be read ({said}); it is damaged, cut short or no media file") from error


def probe(path: Path) -> VideoFacts:
    """The video's facts, from its packets alone; raises Unusable where it cannot be read or holds no pictures."""
    with open_media(path) as container:
        if not container.streams.video:
            raise Unusable(
                "no-video", f"{path}: no video track; a sound file with a video's name, or a file that was cut short"
            )
        stream = container.streams.video[0]
        step = 1.0 / float(stream.average_rate or stream.guessed_rate or 25)
        base = stream.time_base or Fraction(1, 90_000)
        times: list[int] = []
        packets = 0
        # An .avi knows when a packet is due, and no more: libavformat guesses the time at which it is shown.
        guessed = container.format.name == "avi"
        try:
            for packet in container.demux(stream):
                packets += packet.size > 0 or packet.dts is not None
                if packet.size and not packet.is_discard:
                    first, second = (packet.dts, packet.pts) if guessed else (packet.pts, packet.dts)
                    ticks = first if first is not None else second
                    times.append(ticks if ticks is not None else round(len(times) * step / float(base)))
        except av.error.FFmpegError as error:
            raise Unusable(
                "truncated", f"{path}: broken after {len(times)} frames ({error.strerror}); fetch the file again"
            ) from error
        if not times:
            raise Unusable("no-frames", f"{path}: the video track holds no frames; fetch the file again")
        stored = np.array(times, np.int64)
        ordered = np.sort(stored)
        if guessed:  # it counts frames that a camera dropped, which are no packets but have their time
            packets = int(ordered[-1]) + 1
        gaps = np.diff(ordered) * float(base) if len(ordered) > 1 else np.array([step])
        middle = float(np.median(gaps)) or step
        span = float(ordered[-1] - ordered[0]) * float(base)
        codec = stream.codec_context
        # Where the decoder reorders pictures and the packets' times do not, a picture's time is that of its place.
        by_order = bool(codec.has_b_frames) and bool((np.diff(stored) > 0).all())
        if by_order and guessed and len(ordered) < packets:
            raise Unusable(
                "no-times",
                f"{path}: its frames are stored out of order and {packets - len(ordered)} were dropped, and an .avi does not "
                "say when each is shown; let the tool that made it write an .mp4 or .mkv",
            )
        return VideoFacts(
            frames=len(ordered),
            fps=(len(ordered) - 1) / span if span > 0 else 1.0 / step,
            start=float(ordered[0]) * float(base),
            duration=span + middle,
            longest_gap=float(gaps.max()),
            packets=packets,
            declared_frames=int(stream.frames),
            declared_duration=float(stream.duration * base) if stream.duration else 0.0,
            declared_whole=container.duration / av.time_base if container.duration else 0.0,
            time_base=base,
            aspect=float(stream.sample_aspect_ratio or 1),
            ticks=ordered if by_order else None,
        )


def shown(path: Path, facts: VideoFacts, threads: int = 0, begin: float | None = None) -> Iterator[Shown]:
    """The pictures of the video in the order in which they are shown; interlaced ones are deinterlaced, one for each.

    Times are the file's own; where a container keeps none for pictures stored out of order (H.264 in .avi), the k-th picture
    has the k-th time. threads: of the decoder, 0 lets it choose. begin: pictures before this time, seconds, are not needed (some come
    nevertheless).
    Raises Unusable (damaged) where decoding stops, pictures are lost, or their times go back.
    """
    last: int | None = None
    count = 0
    with open_media(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        if threads != 1:
            stream.thread_type = "AUTO"
        if begin is not None and facts.ticks is None:
            container.seek(int(begin / facts.time_base), stream=stream)
        step = max(1, round(1 / (facts.fps * float(facts.time_base))))
        try:
            for frame, ticks, duration, deinterlaced in _progressive(_timed(container.decode(stream), facts, step)):
                if last is not None and ticks < last:
                    raise Unusable(
                        "damaged",
                        f"{path}: the times of its frames go back at frame {count}; write the film anew "
                        f"(ffmpeg -i {path.name} anew.mp4)",
                    )
                if ticks == last:  # rounded to the same tick; no film can be written so
                    ticks += 1
                last, count = ticks, count + 1
                yield Shown(frame, ticks, duration or step, deinterlaced)
        except av.error.FFmpegError as error:
            raise Unusable(
                "damaged",
                f"{path}: decoding stopped after {count} of {facts.frames} frames ({error.strerror}); fetch the file again",
            ) from error
    # Some codecs have a few packets without a picture of their own; where places are times, each one counts.
    if count < 0.9 * facts.frames - 1 or (facts.ticks is not None and count != facts.frames):
        raise Unusable("damaged", f"{path}: only {count} of {facts.frames} frames can be decoded; fetch the file again")


def _timed(frames: Iterator[av.VideoFrame], facts: VideoFacts, step: int) -> Iterator[Shown]:
    last = None
    for number, frame in enumerate(frames):
        if facts.ticks is not None and number < len(facts.ticks):
            ticks = int(facts.ticks[number])
        elif frame.pts is not None:
            ticks = frame.pts
        else:
            ticks = 0 if last is None else last + step
        yield Shown(frame, ticks, frame.duration or 0)
        last = ticks


def _progressive(frames: Iterator[Shown]) -> Iterator[Shown]:
    """The same pictures, those whose lines are of two moments made of one. From the first such on, all pass the filter."""
    fields: _Deinterlacer | None = None
    for shown in frames:
        if fields is None and shown.frame.interlaced_frame:
            fields = _Deinterlacer(shown.frame)
        elif fields is not None and fields.kind != _kind(shown.frame):
            yield from fields.rest()
            fields = _Deinterlacer(shown.frame)
        if fields is None:
            yield shown
        else:
            yield from fields.next(shown)
    if fields is not None:
        yield from fields.rest()


class _Deinterlacer:
    """FFmpeg's bwdif, which looks at the pictures before and after and leaves progressive ones alone."""

    def __init__(self, frame: av.VideoFrame):
        self.kind = _kind(frame)
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        bwdif = self._graph.add("bwdif", mode="send_frame", parity="auto", deint="interlaced")
        sink = self._graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        self._graph.configure()
        self._waiting: deque[Shown] = deque()

    def next(self, shown: Shown) -> Iterator[Shown]:
        self._waiting.append(shown._replace(deinterlaced=bool(shown.frame.interlaced_frame)))
        self._graph.vpush(shown.frame)
        yield from self._done()

    def rest(self) -> Iterator[Shown]:
        self._graph.vpush(None)
        yield from self._done()

    def _done(self) -> Iterator[Shown]:
        while self._waiting:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield self._waiting.popleft()._replace(frame=frame)


def _kind(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
