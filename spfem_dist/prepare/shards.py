"""Encoding video and speech, and writing the tars: the same input gives the same bytes, and a shard is whole or absent."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import tarfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

import av
import numpy as np
import soundfile
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from spfem_dist.files import whole_file
from spfem_dist.records import UtteranceGroup
from spfem_dist.shard_format import GroupEntry, RecordingEntry, ShardEntry, encode_group, pack_members

Codec = Literal["h264", "vp9"]

SAMPLE_RATE = 16_000
#: A reader that wants one frame decodes at most this many (infrastructure.md C: 8-12 serves random access).
KEYFRAME_EVERY = 10

# One thread: x264 and libvpx give bytes that depend on the number of threads.
_CODECS: dict[Codec, tuple[str, str, dict[str, str]]] = {
    "h264": ("mp4", "libx264", {"preset": "veryfast", "sc_threshold": "0", "threads": "1"}),
    "vp9": (
        "webm",
        "libvpx-vp9",
        # auto-alt-ref and lag off: every packet is one shown frame, so frame numbers equal packet numbers.
        {
            "b": "0",
            "deadline": "realtime",
            "cpu-used": "6",
            "row-mt": "0",
            "auto-alt-ref": "0",
            "lag-in-frames": "0",
            "threads": "1",
        },
    ),
}

#: Frames of fewer macroblocks (16 px) across than this: x264's mbtree, which shares out bits by what later frames use, then reads what
#: its memory held before, and one clip in 50 of the same frames came out with other bytes (never in 7,700 clips of 64 px).
_NARROW = 4

# The same arithmetic on every processor.
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class DiskFull(OSError):
    """The disk has no room for a shard. The unfinished file is gone, finished shards are kept."""


def encode_video(frames: np.ndarray, fps: float, codec: Codec = "h264", crf: int = 18) -> bytes:
    """Constant-rate video of `frames` (uint8 [T, H, W, 3] RGB, even sides): mp4 with H.264, or webm with VP9.

    yuv420p (BT.601, limited range, said so in the stream), a keyframe every 10 frames, no B-frames, no audio.
    crf: constant quality, lower is better (18 is visually lossless for H.264). The same frames give the same bytes
    with the same library versions. Raises ValueError for other shapes.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) < 1:
        raise ValueError(f"frames must be uint8 [T >= 1, H, W, 3], found {frames.dtype} {frames.shape}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"frames are {width} x {height}; yuv420p needs even sides: choose an even crop size")
    container_format, encoder, options = _CODECS[codec]
    if codec == "h264" and -(-min(height, width) // 16) < _NARROW:
        options = options | {"mbtree": "0"}
    output = io.BytesIO()
    # bitexact: without it the webm muxer writes a random segment UID and both write the library's version.
    with av.open(output, "w", format=container_format, options={"fflags": "+bitexact"}) as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = cast(av.VideoStream, container.add_stream(encoder, rate=rate, options={**options, "crf": str(crf)}))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.gop_size, context.max_b_frames = KEYFRAME_EVERY, 0
        context.time_base = 1 / rate
        context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
        to_yuv = VideoReformatter()
        for number, pixels in enumerate(frames):
            frame = to_yuv.reformat(
                av.VideoFrame.from_ndarray(pixels, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.MPEG,
                interpolation=_EXACT,
                threads=1,
            )
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return output.getvalue()


def encode_speech(speech: np.ndarray) -> bytes:
    """FLAC bytes (16 bit, 16 kHz, mono, no dither) of float32 `speech` [N] in [-1, 1]; values beyond are clipped."""
    samples = np.round(np.clip(np.asarray(speech, np.float64), -1.0, 1.0) * 32767.0).astype(np.int16)
    output = io.BytesIO()
    soundfile.write(output, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return output.getvalue()


def write_shard(path: str | Path, groups: Sequence[UtteranceGroup]) -> ShardEntry:
    """Write `groups` as one ustar file at `path` (whole or not at all) and return its index entry.

    Raises DiskFull, with the partial file removed, where the disk has no room.
    """
    path = Path(path)
    digest, total, entries, parts = hashlib.sha256(), 0, [], []
    for group in groups:
        packed = pack_members(encode_group(group))
        entries.append(
            GroupEntry(
                key=group.key,
                speaker=group.speaker,
                sentence=group.sentence,
                offset=total,
                bytes=len(packed),
                recordings=[
                    RecordingEntry(name=r.name, emotion=r.emotion, level=r.level, take=r.take, frames=r.frames)
                    for r in group.recordings
                ],
            )
        )
        parts.append(packed)
        total += len(packed)
    # Two zero blocks end a tar; like tar itself, fill up to a whole record.
    parts.append(bytes(2 * tarfile.BLOCKSIZE + -(total + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE))
    total += len(parts[-1])
    for part in parts:
        digest.update(part)
    _write_whole(path, parts, total)
    return ShardEntry(name=path.name, bytes=total, sha256=digest.hexdigest(), groups=entries)


def _write_whole(path: Path, parts: Sequence[bytes], total: int) -> None:
    try:
        with whole_file(path) as temporary, open(temporary, "wb") as file:
            file.writelines(parts)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free
        raise DiskFull(
            errno.ENOSPC,
            f"no room for a shard of {total:,} bytes ({free:,} free); its partial file was removed and finished shards "
            "are kept: free some space, or choose another --out, and run the same command again to go on",
            str(path),
        ) from error
