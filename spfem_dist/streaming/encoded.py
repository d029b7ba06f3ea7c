"""Encoded videos as decoders take them: which frames of which bytes, and what is wrong where they cannot be had."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal, NamedTuple

import av

Decoder = Literal["pyav", "dali-cpu", "dali-gpu"]
#: What shards hold. Other demuxers, playlists for one, could be made to open other files.
KNOWN_FORMATS = {"format_whitelist": "mov,matroska,flac"}


class DamagedVideo(ValueError):
    """A video that does not give the frames it should. `request` is its number in the call to `decode_many`."""

    def __init__(self, message: str, request: int = 0):
        super().__init__(message)
        self.request = request


class UnusableDecoder(ValueError):
    """The chosen decoder cannot decode on this machine, or cannot decode this codec at all; says what to choose."""


class Request(NamedTuple):
    """Frames `frames` (indexes from 0, any order, repeats allowed) of the encoded `video`; `name` is for messages."""

    video: bytes
    frames: Sequence[int]
    name: str = "video"


def codec_of(video: bytes) -> str:
    """The codec's name as FFmpeg calls it (`h264`, `vp9`, ...); DamagedVideo where no video stream can be opened."""
    return format_of(video)[0]


def format_of(video: bytes) -> tuple[str, int, int]:
    """(codec as FFmpeg calls it, width, height) of a video; DamagedVideo where no video stream can be opened."""
    with opened(Request(video, ()), 0) as container:
        context = container.streams.video[0].codec_context
        return context.name, context.width, context.height


def opened(request: Request, number: int) -> av.container.InputContainer:
    """The video of a request, opened; DamagedVideo with `number` where it cannot be."""
    try:
        container = av.open(io.BytesIO(request.video), mode="r", options=KNOWN_FORMATS)
    except (av.FFmpegError, ValueError) as error:
        raise DamagedVideo(f"{request.name} cannot be opened ({error}): cut or not a video", number) from None
    if not container.streams.video:
        container.close()
        raise DamagedVideo(f"{request.name} has no video stream", number)
    return container
