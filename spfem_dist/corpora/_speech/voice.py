"""Speech that follows the phonemes: a pulse train and noise, shaped by formants in short-time spectra."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from spfem_dist.corpora._speech.keys import wander
from spfem_dist.corpora._speech.prosody import Prosody
from spfem_dist.corpora._speech.script import PHONEMES, Canon, Timing


class Speaker(Protocol):
    """Whose voice it is. pitch: mean F0, Hz; tract: factor on all formants; breath: noise relative to voicing."""

    @property
    def pitch(self) -> float: ...
    @property
    def tract(self) -> float: ...
    @property
    def breath(self) -> float: ...


RATE = 16_000
_HOP, _WINDOW = 80, 320  # 5 ms and 20 ms at 16 kHz
_BINS = np.fft.rfftfreq(_WINDOW, 1 / RATE)


def spoken(
    rng: np.random.Generator, person: Speaker, prosody: Prosody, canon: Canon, timing: Timing, samples: int
) -> np.ndarray:
    """The sentence spoken by `person` in this timing and prosody: float32 [samples], 16 kHz, within [-1, 1]."""
    hops = samples // _HOP + 1 + _WINDOW // _HOP
    times = np.arange(hops) * _HOP / RATE
    phase = timing.phase(times)
    formants = person.tract * np.stack([np.interp(phase, canon.phase, f) for f in canon.formants.T], axis=1)
    voiced, noisy, band = _sources(canon, phase)
    voiced *= 10 ** ((prosody.energy + 1.5 * wander(rng, times, 1.0, 3.0)) / 20)
    noisy *= 10 ** (prosody.energy / 40)

    pitch = _pitch(rng, person, prosody, times, timing.seconds)
    pulses = _pulses(np.interp(np.arange(hops * _HOP) / _HOP, np.arange(hops), pitch))
    hiss = rng.standard_normal(hops * _HOP)

    resonance = _resonance(formants) * 10 ** (prosody.tilt * np.log2(np.maximum(_BINS, 125) / 500) / 20)
    breath = person.breath + prosody.breath
    pulse_gain = voiced[:, None] * resonance
    hiss_gain = (voiced * breath)[:, None] * resonance + noisy[:, None] * _band(band) * 0.35 + 0.002
    sound = _shape(pulses, pulse_gain) + _shape(hiss, hiss_gain)
    sound = sound[_WINDOW // 2 : _WINDOW // 2 + samples] * 0.16
    return np.tanh(sound).astype(np.float32)


def _sources(canon: Canon, phase: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voicing [H], noise [H] and noise band [H, 2] at each hop; a burst is silent for its first half."""
    index = np.clip(np.searchsorted(canon.starts, phase, side="right") - 1, 0, len(canon.sounds) - 1)
    within = (phase - canon.starts[index]) / np.diff(canon.starts)[index]
    table = [PHONEMES[p] for p in canon.sounds]
    voiced = (np.array([p.voice for p in table]) * canon.stress)[index]
    noisy = np.array([p.noise for p in table])[index]
    burst = np.array([p.burst for p in table])[index]
    noisy = np.where(burst, noisy * (within > 0.55) * np.exp(-3 * np.maximum(within - 0.55, 0)), noisy)
    smooth = np.array([0.25, 0.5, 0.25])
    return (
        np.convolve(voiced, smooth, mode="same"),
        np.convolve(noisy, smooth, mode="same"),
        np.array([p.band for p in table])[index],
    )


def _pitch(
    rng: np.random.Generator, person: Speaker, prosody: Prosody, times: np.ndarray, seconds: float
) -> np.ndarray:
    """F0 in Hz: declination over the sentence, slow movement scaled by the emotion's range, and tremor."""
    movement = 1.6 * wander(rng, times, 0.4, 1.6) + 2.0 * (0.5 - times / seconds)
    tremor = prosody.tremor * np.sin(2 * np.pi * 6.5 * times) + 0.006 * rng.standard_normal(len(times))
    return person.pitch * prosody.pitch * 2 ** (prosody.range * movement / 12) * (1 + tremor)


def _pulses(pitch: np.ndarray) -> np.ndarray:
    """A band-limited pulse train with F0 `pitch` (Hz at each sample): the closed sum of all harmonics below 6 kHz."""
    angle = np.pi * np.cumsum(pitch) / RATE
    harmonics = np.floor(6000 / pitch)
    below = np.sin(angle)
    near = np.abs(below) < 1e-4
    ratio = np.sin((2 * harmonics + 1) * angle) / np.where(near, 1.0, below)
    return np.where(near, 2 * harmonics + 1, ratio) / np.sqrt(2 * harmonics + 1)


def _resonance(formants: np.ndarray) -> np.ndarray:
    """Spectral envelope [H, F]: three resonances of falling weight (a parallel formant synthesiser)."""
    envelope = np.full((len(formants), len(_BINS)), 0.003)
    for column, (width, weight) in enumerate(((90.0, 1.0), (120.0, 0.6), (180.0, 0.3))):
        distance = (_BINS - formants[:, column : column + 1]) / width
        envelope += weight / (1 + distance**2)
    return envelope


def _band(band: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * ((_BINS - band[:, :1]) / band[:, 1:]) ** 2)


def _shape(sound: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Overlap-add filtering: short-time spectra of `sound` times `gain` [H, F]."""
    window = np.hanning(_WINDOW + 1)[:-1]
    padded = np.concatenate([sound, np.zeros(_WINDOW)])
    blocks = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][: len(gain)]
    shaped = np.fft.irfft(np.fft.rfft(blocks * window) * gain, _WINDOW)
    out = np.zeros((len(gain) + 3, _HOP))
    for part in range(_WINDOW // _HOP):
        out[part : part + len(gain)] += shaped[:, part * _HOP : (part + 1) * _HOP]
    return out.reshape(-1) / 2
