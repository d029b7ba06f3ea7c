"""One clip opened: constant-rate face crops and 16 kHz speech in step, or the reason why it cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np

from spfem_dist.prepare.faces import FaceFinder, crop_landmarks, crop_regions, cut_face
from spfem_dist.prepare.media import VideoFacts, open_media, probe, shown
from spfem_dist.records import Clip, RawRecording, Unusable

SPEECH_RATE = 16_000
#: Decoded pictures are kept for the second pass up to this many bytes; a longer clip is decoded twice instead.
_HELD_BYTES = 256 * 2**20
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """When a recording is refused. Times in seconds, shares in 0..1.

    lowest_rate: source frames for each wanted frame, below which the rate is wrong (24 for 25 passes, 15 does not).
    longest_gap: between two source frames. duration_gap: difference of picture and speech. lost_frames: share of frames
    without a face. quietest_peak: largest sample under which speech counts as silence.
    """

    shortest: float = 0.5
    longest: float = 120.0
    lowest_rate: float = 0.8
    longest_gap: float = 0.25
    duration_gap: float = 0.5
    lost_frames: float = 0.2
    quietest_peak: float = 1e-3


def load_recording(
    clip: Clip, size: int, fps: float, finder: FaceFinder, limits: Limits | None = None, smoothing: float = 0.1
) -> RawRecording:
    """The clip as upright face crops of `size` pixels at exactly `fps`, with speech of exactly the same duration.

    Frames are picked by their timestamps (nearest), so 29.97 frames a second become 30 or 25 without drift; speech is
    shifted by the difference of both tracks' start times where it comes from the video's own file. smoothing: sigma of
    the crop's Gaussian, seconds. Raises records.Unusable with one of the reasons
    missing-file, empty-file, git-lfs-pointer, unreadable, no-video, no-frames, no-times, truncated, damaged, wrong-fps,
    frames-missing, too-short, too-long, no-audio, unreadable-audio, truncated-audio, silent, duration-mismatch,
    face-not-found, not-square.
    """
    limits = limits or Limits()
    facts = probe(clip.video) if clip.whole else _part(clip)
    _check_facts(clip.video, facts, fps, limits)
    speech = _speech_in_step(clip, facts, limits)
    frames = _Frames(clip.video, fps, facts, clip.whole)
    track = finder.track(frames)
    lost = 1.0 - float(track.found.mean()) if len(track.found) else 1.0
    if lost > limits.lost_frames:
        raise Unusable(
            "face-not-found",
            f"{clip.video}: no face in {lost:.0%} of {len(track.found)} frames (at most {limits.lost_frames:.0%} may be "
            "filled in); look at the video, crop it around the face, or try another finder (--faces)",
        )
    regions = crop_regions(track, fps, smoothing)
    crops = np.empty((len(regions), size, size, 3), np.uint8)
    for row, frame, region in zip(crops, frames, regions, strict=True):
        row[:] = cut_face(frame, region, size)
    landmarks = crop_landmarks(track, regions, size)
    samples = round(len(crops) * SPEECH_RATE / fps)
    return RawRecording(crops, fps, _fit(speech, samples), track.found.astype(bool), landmarks)


def _part(clip: Clip) -> VideoFacts:
    try:
        return _probed(clip.video).part(clip.start, clip.end)
    except ValueError as error:
        raise Unusable("beyond-the-end", f"{clip.place}: {error}; mend its start") from error


# Many parts of one film follow each other.
@lru_cache(maxsize=4)
def _probed(path: Path) -> VideoFacts:
    return probe(path)


@lru_cache(maxsize=1)
def _heard(path: Path) -> tuple[np.ndarray, float]:
    return read_speech(path)


def read_speech(path: Path) -> tuple[np.ndarray, float]:
    """(float32 [N] mono 16 kHz in -1..1, start in seconds) of the file's first sound track; raises Unusable."""
    pieces: list[np.ndarray] = []
    start: float | None = None
    with open_media(path, "unreadable-audio") as container:
        if not container.streams.audio:
            raise Unusable("no-audio", f"{path}: no sound track; speech is needed: give the recording's sound file")
        stream = container.streams.audio[0]
        # Channels are averaged here: the library's own mix to mono is 3 dB louder and clips.
        resampler = av.AudioResampler(format="fltp", rate=SPEECH_RATE)
        try:
            for frame in container.decode(stream):
                if start is None:
                    start = float(frame.time or 0.0)
                pieces += [piece.to_ndarray().mean(0) for piece in resampler.resample(frame)]
            if pieces:
                pieces += [piece.to_ndarray().mean(0) for piece in resampler.resample(None)]
        except av.error.FFmpegError as error:
            seconds = sum(map(len, pieces)) / SPEECH_RATE
            raise Unusable(
                "truncated-audio", f"{path}: sound broken after {seconds:.2f} s ({error}); fetch it again"
            ) from error
        declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    if not pieces:
        raise Unusable("no-audio", f"{path}: the sound track is empty; fetch the file again")
    speech = np.concatenate(pieces).astype(np.float32)
    if len(speech) / SPEECH_RATE < 0.9 * declared - 0.2:
        raise Unusable(
            "truncated-audio",
            f"{path}: {len(speech) / SPEECH_RATE:.2f} s of sound, {declared:.2f} s stated; fetch it again",
        )
    return np.clip(speech, -1.0, 1.0), start or 0.0


class _Frames:
    """The video's frames at constant rate, uint8 [H, W, 3] RGB; iterable twice, and the same both times."""

    def __init__(self, path: Path, fps: float, facts: VideoFacts, whole: bool = True):
        self.path, self.fps, self.facts, self.whole = path, fps, facts, whole
        self.count = max(1, round(facts.duration * fps))
        self.held: list[np.ndarray] | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.held is not None:
            yield from self.held
            return
        held: list[np.ndarray] = []
        size, fits = 0, True
        for frame in self._at_constant_rate():
            size += 0 if held and held[-1] is frame else frame.nbytes
            fits = fits and size <= _HELD_BYTES
            if fits:
                held.append(frame)
            else:
                held.clear()
            yield frame
        self.held = held if fits else None

    def _at_constant_rate(self) -> Iterator[np.ndarray]:
        """Output frame k is the source frame whose time is nearest to k / fps after the first; ties take the earlier."""
        done, before = 0, None
        for time, frame in self._decoded():
            if before is not None:
                middle = (before[0] + time) / 2 - self.facts.start
                while done < self.count and done / self.fps <= middle + 1e-6:
                    yield before[1]
                    done += 1
            if done == self.count and not self.whole:
                return
            before = (time, frame)
        while before is not None and done < self.count:
            yield before[1]
            done += 1

    def _decoded(self) -> Iterator[tuple[float, np.ndarray]]:
        begin = None if self.whole else self.facts.start
        for frame, ticks, *_ in shown(
            self.path, self.facts, threads=1, begin=begin
        ):  # many clips are prepared side by side
            yield float(ticks * self.facts.time_base), _upright(frame, self.facts.aspect)


def _upright(frame: av.VideoFrame, aspect: float) -> np.ndarray:
    """RGB pixels, made square where they are stored `aspect` times as wide as high, turned as the display matrix says."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    if aspect != 1:
        width = max(1, round(pixels.shape[1] * aspect))
        pixels = np.asarray(cv2.resize(pixels, (width, pixels.shape[0]), interpolation=cv2.INTER_LINEAR))
    turns = round((frame.rotation or 0) / 90) % 4  # counter-clockwise quarter turns
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _check_facts(path: Path, facts: VideoFacts, fps: float, limits: Limits) -> None:
    missing = facts.declared_frames - facts.packets
    if missing > 1 + 0.01 * facts.declared_frames:
        raise Unusable(
            "truncated", f"{path}: {facts.packets} of {facts.declared_frames} frames are there; fetch the file again"
        )
    # Where frames are counted, an edit list may show a part of them. Sound may outlast the pictures, so the whole
    # file's duration is only a coarse witness, and some count it from 0 though the pictures start later.
    stated, share = (facts.declared_duration, 0.95) if facts.declared_duration else (facts.declared_whole, 0.75)
    if not facts.declared_frames and max(facts.duration, facts.end) < share * stated - 0.1:
        raise Unusable(
            "truncated",
            f"{path}: {facts.duration:.2f} s of {stated:.2f} s are there; fetch the file again",
        )
    if facts.duration < limits.shortest:
        raise Unusable(
            "too-short",
            f"{path}: {facts.duration:.2f} s ({facts.frames} frames); at least {limits.shortest} s are wanted",
        )
    if facts.duration > limits.longest:
        raise Unusable(
            "too-long", f"{path}: {facts.duration:.0f} s; at most {limits.longest:.0f} s: cut it into sentences"
        )
    if facts.fps < limits.lowest_rate * fps:
        raise Unusable(
            "wrong-fps",
            f"{path}: {facts.fps:.2f} frames a second; at least {limits.lowest_rate * fps:.1f} are needed for {fps:g}",
        )
    if facts.longest_gap > limits.longest_gap:
        raise Unusable(
            "frames-missing",
            f"{path}: {facts.longest_gap:.2f} s without a frame; at most {limits.longest_gap} s: fetch it again",
        )
    if abs(facts.fps - fps) > 1e-3:
        log.info("%s: %.3f frames a second taken as %g (longest gap %.3f s)", path, facts.fps, fps, facts.longest_gap)


def _speech_in_step(clip: Clip, facts: VideoFacts, limits: Limits) -> np.ndarray:
    """Speech that starts with the first frame; raises Unusable for silence and for a duration that cannot belong."""
    speech, start = (read_speech if clip.whole else _heard)(clip.audio or clip.video)
    if clip.audio is None:
        late = round((start - facts.start) * SPEECH_RATE)
        speech = np.concatenate([np.zeros(late, np.float32), speech]) if late > 0 else speech[-late:]
    elif not clip.whole:
        speech = speech[round(clip.start * SPEECH_RATE) :]
    if not clip.whole:
        speech = speech[: round(facts.duration * SPEECH_RATE)]
    source = clip.audio or clip.video
    peak = float(np.abs(speech).max()) if len(speech) else 0.0
    if peak < limits.quietest_peak:
        raise Unusable("silent", f"{source}: loudest sample is {peak:.1e}; there is no speech in it")
    gap = len(speech) / SPEECH_RATE - facts.duration
    if abs(gap) > limits.duration_gap:
        raise Unusable(
            "duration-mismatch",
            f"{source}: {len(speech) / SPEECH_RATE:.2f} s of speech for {facts.duration:.2f} s of {clip.video}; they do not "
            f"belong together (at most {limits.duration_gap} s may differ)",
        )
    return speech


def _fit(speech: np.ndarray, samples: int) -> np.ndarray:
    """Cut or filled with silence at the end."""
    return np.pad(speech[:samples], (0, max(0, samples - len(speech)))).astype(np.float32)
