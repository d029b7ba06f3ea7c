"""A clip written: new pictures, and the source's own sound, packet by packet as it is."""

from __future__ import annotations

import functools
import io
import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import av
from av.video.frame import PictureType

from spfem_dist.editing.video import EditError, Footage, Picture
from spfem_dist.prepare.media import open_media

#: End of a file's name -> container, of those that hold H.264.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
#: What channels are where a file only counts them.
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
#: At this quality a quicker preset costs bytes, not sharpness, and `medium` takes half of the time of an edit.
_QUALITY = {"crf": "16", "preset": "veryfast", "rc-lookahead": "20"}


class Film:
    """A video being written under a temporary name; it gets its own when it is whole, and is removed where it fails.

        with Film(out, footage) as film:
            film.write(picture)  # every picture, in order

    The sound packets of `footage` go along unchanged, with their times; `packets` counts them.
    comment: what the file says about itself. threads: of the encoder, 0 lets it choose.
    Raises EditError where `out` cannot be written, or its container cannot hold the sound.
    """

    def __init__(self, out: Path, source: Footage, comment: str = "", threads: int = 0):
        self.out, self.source, self.packets = out, source, 0
        self._part, self._threads = out.with_name(f".{out.name}.part"), threads
        self._video: av.VideoStream | None = None
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._part.touch()  # now, and not when the first picture comes
            self._container = _container(str(self._part), CONTAINERS[out.suffix.lower()])
        except OSError as error:
            raise EditError(f"{out} cannot be written ({error.strerror}): give another --out") from error
        self._container.metadata.update({"title": source.title, "comment": comment})
        self._sound_source = open_media(source.path)
        try:
            self._sound = self._sound_packets(self._sound_tracks())
        except BaseException:
            self._discard()
            raise
        self._next = next(self._sound, None)

    def __enter__(self) -> Film:
        return self

    def write(self, picture: Picture) -> None:
        """Encode the next picture, with its own time."""
        if self._video is None:
            self._video = self._video_track(picture)
        frame = picture.frame()
        frame.pts, frame.duration, frame.time_base = picture.pts, picture.duration, self.source.time_base
        frame.pict_type = PictureType.NONE  # the encoder decides where its key frames are
        try:
            self._mux(self._video.encode(frame))
        except av.error.FFmpegError as error:
            raise self._failed(error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None and self._video is not None:
                self._mux(self._video.encode(None))
                self._sound_until(float("inf"))
                self._container.close()
                os.replace(self._part, self.out)
        except (av.error.FFmpegError, OSError) as failure:
            raise self._failed(failure) from failure
        finally:
            self._discard()

    def _failed(self, error: Exception) -> EditError:
        return EditError(f"{self.out} cannot be written to its end ({error}): is the disk full?")

    def _discard(self) -> None:
        self._sound_source.close()
        with suppress(av.error.FFmpegError):  # it failed before: that error is the one to tell
            self._container.close()
        self._part.unlink(missing_ok=True)

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            # Sound goes in step with the pictures, so that the container's queue of both stays short.
            if packet.dts is not None and packet.time_base is not None:
                self._sound_until(float(packet.dts * packet.time_base))
            self._container.mux(packet)

    def _sound_until(self, seconds: float) -> None:
        while self._next is not None and self._next[0] <= seconds:
            self._container.mux(self._next[1])
            self.packets += 1
            self._next = next(self._sound, None)

    def _sound_packets(self, tracks: dict[int, av.AudioStream]) -> Iterator[tuple[float, av.Packet]]:
        """(seconds, packet) of all sound tracks, as they lie in the source."""
        now = 0.0
        try:
            for packet in self._sound_source.demux(*self._sound_source.streams.audio) if tracks else ():
                if packet.size:
                    now = float(packet.dts * packet.time_base) if packet.dts is not None else now
                    packet.stream = tracks[packet.stream.index]
                    yield now, packet
        except av.error.FFmpegError as error:
            raise EditError(
                f"{self.source.path}: its sound breaks off after {now:.2f} s ({error}); fetch the file again"
            ) from error

    def _sound_tracks(self) -> dict[int, av.AudioStream]:
        refuse_unfit_sound(self.source, self.out)
        tracks = {}
        for track in self._sound_source.streams.audio:
            tracks[track.index] = _sound_track(self._container, track)
            tracks[track.index].metadata.update(track.metadata)
            tracks[track.index].disposition = track.disposition
        return tracks

    def _video_track(self, picture: Picture) -> av.VideoStream:
        track = self._container.add_stream("libx264", rate=self.source.rate)
        track.height, track.width = picture.y.shape
        track.pix_fmt = "yuv420p"
        track.options = dict(_QUALITY)
        track.time_base = track.codec_context.time_base = self.source.time_base
        track.codec_context.thread_count = self._threads
        frame = picture.frame()
        for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(track.codec_context, name, getattr(frame, name))
        return track


def refuse_unfit_sound(source: Footage, out: Path) -> None:
    """Raises EditError, with what to give instead, where `out`'s container cannot hold the sound of `source` as it is."""
    if _fits(source, out.suffix.lower()):
        return
    codecs = ", ".join(source.sound)
    other = next((suffix for suffix in (".mp4", ".mkv", ".mov") if _fits(source, suffix)), None)
    fix = (
        f"give --out {out.with_suffix(other)}"
        if other
        else f"change its sound first (ffmpeg -i {source.path.name} -c:v copy -c:a aac {source.path.stem}-aac.mkv)"
    )
    raise EditError(f"{source.path}: its sound ({codecs}) cannot be copied into {out.suffix}: {fix}")


def suffix_for(source: Footage) -> str:
    """`.mp4`, or where that cannot hold the sound, the first of `.mkv` and `.mov` that can."""
    return next((suffix for suffix in (".mp4", ".mkv", ".mov") if _fits(source, suffix)), ".mp4")


@functools.lru_cache(maxsize=64)
def _fits(source: Footage, suffix: str) -> bool:
    """Whether the container can be written with this sound; nothing less than a film of some packets tells."""
    try:
        with open_media(source.path) as sound, _container(io.BytesIO(), CONTAINERS[suffix]) as trial:
            video = trial.add_stream("libx264", rate=25, width=16, height=16, pix_fmt="yuv420p")
            tracks = {track.index: _sound_track(trial, track) for track in sound.streams.audio}
            frame = av.VideoFrame(16, 16, "yuv420p")
            frame.pts = 0
            for packet in [*video.encode(frame), *video.encode(None)]:
                trial.mux(packet)
            for packet in itertools.islice(sound.demux(*sound.streams.audio), 8 * len(tracks)) if tracks else ():
                if packet.size:
                    packet.stream = tracks[packet.stream.index]
                    trial.mux(packet)
            trial.close()  # what an mp4 cannot hold it may say only now
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def _sound_track(container: av.container.OutputContainer, track: av.AudioStream) -> av.AudioStream:
    """A track of `container` for the packets of `track` as they are."""
    new = container.add_stream_from_template(track)
    if "channels" in track.layout.name and track.layout.nb_channels in _LAYOUTS:
        new.codec_context.layout = _LAYOUTS[
            track.layout.nb_channels
        ]  # an .avi gives their number, an .mp4 wants their names
    return new


def _container(file: str | io.BytesIO, kind: str) -> av.container.OutputContainer:
    # With its index in front an mp4 plays while it is still being fetched.
    options = {} if kind == "matroska" or isinstance(file, io.BytesIO) else {"movflags": "faststart"}
    return av.open(file, "w", format=kind, options=options)
