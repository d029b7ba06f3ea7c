"""Time-warps: which frame of one recording says what a frame of another says (methods.md 8.1 and 8.3).

A path is int32 [2, P]: frame path[0, p] of a matches frame path[1, p] of b. It starts at (0, 0), ends at the last
frames, and steps by (1, 1), (1, 0) or (0, 1).
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Literal

import librosa
import numpy as np
import scipy.fft
from scipy.spatial.distance import cdist

from spfem_dist.emotions import Emotion
from spfem_dist.prepare.speech import SAMPLE_RATE, log_energies, mel_energies

Recipe = Literal["clean", "released"]
PathKey = tuple[str, Emotion, str]

_COEFFICIENTS = 13
_BAND = 0.25
#: Half-width of the band around the diagonal in each recipe, see `warp_features`.
BANDS: dict[Recipe, float | None] = {"clean": _BAND, "released": None}
# The released code prefers diagonal, then a step in a, then a step in b, where costs tie.
_STEPS = np.array([[1, 1], [1, 0], [0, 1]])


def time_warp(
    speech_a: np.ndarray,
    speech_b: np.ndarray,
    fps: float,
    frames: tuple[int, int] | None = None,
    recipe: Recipe = "clean",
) -> tuple[np.ndarray, float]:
    """The path int32 [2, P] between two recordings of one sentence, and its mean frame distance (to filter on).

    speech_a, speech_b: float32 [N], 16 kHz mono. frames: video frames of each; None takes what the speech lasts.
    recipe: `clean` takes the channel and loudness out of the MFCCs and keeps the path in a band of 25 % around the
    diagonal; `released` does neither and computes MFCCs as python_speech_features does.
    """
    counts = frames or (round(len(speech_a) * fps / SAMPLE_RATE), round(len(speech_b) * fps / SAMPLE_RATE))
    a, b = (
        mfcc(speech, max(1, count), fps, recipe) for speech, count in zip((speech_a, speech_b), counts, strict=True)
    )
    return warp_features(a, b, BANDS[recipe])


def warp_features(a: np.ndarray, b: np.ndarray, band: float | None = _BAND) -> tuple[np.ndarray, float]:
    """DTW with L1 distance between feature rows a [n, D] and b [m, D]: path int32 [2, P] and mean cost along it.

    band: half-width of the Sakoe-Chiba band as a share of the shorter length, on top of the difference of lengths;
    None lets the path go anywhere.
    """
    cost = cdist(a, b, "cityblock")
    # librosa's band excludes its own edge and shrinks to nothing for very short recordings: at least 3 frames.
    shorter = min(cost.shape)
    radius = max(band, 3 / shorter) if band is not None else 1.0
    accumulated, path = librosa.sequence.dtw(
        C=cost, step_sizes_sigma=_STEPS, global_constraints=band is not None and shorter > 1, band_rad=radius
    )
    path = np.ascontiguousarray(path[::-1].T, dtype=np.int32)
    return path, float(accumulated[-1, -1] / path.shape[1])


def path_cost(a: np.ndarray, b: np.ndarray, path: np.ndarray) -> float:
    """Mean L1 distance along `path` between feature rows a [n, D] and b [m, D]."""
    return float(np.abs(a[path[0]] - b[path[1]]).sum(axis=1).mean())


def mfcc(speech: np.ndarray, frames: int, fps: float, recipe: Recipe = "clean") -> np.ndarray:
    """MFCC-13, float64 [frames, 13]: one row per video frame, from a 25 ms window."""
    if recipe == "released":
        return _released_mfcc(speech, frames, fps)
    logs = log_energies(mel_energies(speech, frames, fps))
    coefficients = scipy.fft.dct(logs, type=2, axis=1, norm="ortho")[:, :_COEFFICIENTS]
    return coefficients - coefficients.mean(axis=0)


def _released_mfcc(speech: np.ndarray, frames: int, fps: float) -> np.ndarray:
    # python_speech_features' defaults: pre-emphasis 0.97, rectangular 25 ms windows on a rounded step, 26 bands on
    # whole FFT bins, lifter 22, and the log energy in place of the first coefficient.
    size, fft, step = 400, 512, round(SAMPLE_RATE / fps)
    emphasised = np.append(speech[:1], speech[1:] - 0.97 * speech[:-1]).astype(np.float64)
    padded = np.zeros(max(len(emphasised), (frames - 1) * step + size))
    padded[: len(emphasised)] = emphasised
    windows = padded[np.arange(frames)[:, None] * step + np.arange(size)]
    power = np.abs(np.fft.rfft(windows, fft)) ** 2 / fft
    tiny = np.finfo(np.float64).eps
    logs = np.log(np.maximum(power @ _released_filters(fft).T, tiny))
    coefficients = scipy.fft.dct(logs, type=2, axis=1, norm="ortho")[:, :_COEFFICIENTS]
    coefficients *= 1 + 11 * np.sin(np.pi * np.arange(_COEFFICIENTS) / 22)
    coefficients[:, 0] = np.log(np.maximum(power.sum(axis=1), tiny))
    return coefficients


@lru_cache(maxsize=1)
def _released_filters(fft: int, bands: int = 26) -> np.ndarray:
    corners = librosa.mel_frequencies(bands + 2, fmin=0.0, fmax=SAMPLE_RATE / 2, htk=True)
    corner_bins = np.floor((fft + 1) * corners / SAMPLE_RATE)
    bins = np.arange(fft // 2 + 1)
    low, peak, high = corner_bins[:-2, None], corner_bins[1:-1, None], corner_bins[2:, None]
    rising, falling = (bins - low) / (peak - low), (high - bins) / (high - peak)
    return np.where(bins < peak, np.clip(rising, 0, None), np.clip(falling, 0, None)) * (bins < high)


def linear_warp(frames_a: int, frames_b: int) -> np.ndarray:
    """The path of a linear stretch, int32 [2, max(frames_a, frames_b)]: what alignment is worth is measured against it."""
    length = max(frames_a, frames_b)
    return np.stack([np.round(np.linspace(0, n - 1, length)) for n in (frames_a, frames_b)]).astype(np.int32)


def warp_error(path: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Absolute error in frames of `path` [2, P] for each frame of a: float64 [frames of a with a known truth].

    truth: float [frames_a], the position in b (fractional frames) that matches each frame of a; NaN where there is none.
    Where the path gives a frame of a several partners, their mean counts.
    """
    frames = len(truth)
    visits = np.bincount(path[0], minlength=frames)[:frames]
    partners = np.bincount(path[0], weights=path[1], minlength=frames)[:frames]
    known = ~np.isnan(truth) & (visits > 0)
    return np.abs(partners[known] / visits[known] - truth[known])


def import_paths(path: str | Path) -> dict[PathKey, np.ndarray]:
    """The authors' `aligned_path36.json`: (speaker, emotion, "NNN_MMM") -> int32 [2, P], neutral clip NNN to clip MMM.

    Frames are counted at 30 fps. Raises ValueError that names the first entry which is not a monotone path from (0, 0).
    """
    try:
        table = json.loads(Path(path).read_bytes())
        entries = [
            (speaker, emotion, clips, lists)
            for speaker, emotions in table.items()
            for emotion, pairs in emotions.items()
            for clips, lists in pairs.items()
        ]
    except (ValueError, AttributeError):
        raise ValueError(
            f'{path} is not a table of paths: expected {{"speaker": {{"emotion": {{"NNN_MMM": [[...], [...]]}}}}}}'
        ) from None
    return {
        (speaker, Emotion.parse(emotion), clips): _checked_path(lists, f"{path}: {speaker}/{emotion}/{clips}")
        for speaker, emotion, clips, lists in entries
    }


def _checked_path(lists: list[list[int]], where: str) -> np.ndarray:
    if not isinstance(lists, list) or len(lists) != 2 or not all(isinstance(side, list) for side in lists):
        raise ValueError(f"{where} holds no pair of frame lists; take the file as published")
    if len(lists[0]) != len(lists[1]) or not lists[0]:
        raise ValueError(
            f"{where}: its frame lists have {len(lists[0])} and {len(lists[1])} entries; they must be equally long"
        )
    path = np.array(lists)
    if path.dtype.kind != "i":
        raise ValueError(f"{where}: frame numbers must be whole numbers, found {path.dtype}")
    if path[:, 0].any():
        raise ValueError(f"{where}: the path starts at {tuple(path[:, 0].tolist())}; it must start at (0, 0)")
    steps = np.diff(path, axis=1)
    if (steps < 0).any():
        raise ValueError(
            f"{where}: the path goes back in time at position {int(np.argmax((steps < 0).any(axis=0))) + 1}"
        )
    return path.astype(np.int32)
