"""Speech features, one row per video frame: log-mel (embedded default) and wav2vec 2.0 XLSR-53 (methods.md 1.2)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, Protocol

import librosa
import numpy as np
import torch
import torch.nn.functional as F

SAMPLE_RATE = 16_000

SpeechName = Literal["logmel", "wav2vec2"]

_WINDOW = 400  # 25 ms
_FFT = 512
_MELS = 40
_HOPS = 4  # mel windows per video frame: 100 Hz at 25 fps
#: Energies this far (60 dB) below the clip's loudest count as silence: the same at any gain.
_FLOOR = 1e-6


class SpeechFeatures(Protocol):
    """Turns one recording's speech into features in step with its frames."""

    name: str
    dim: int

    def __call__(self, speech: np.ndarray, frames: int, fps: float) -> np.ndarray:
        """speech: float32 [N], 16 kHz mono. Returns float32 [frames, dim]; row t describes frame t of `fps`."""
        ...


def speech_features(name: SpeechName) -> SpeechFeatures:
    """The features called `name`. `wav2vec2` loads its network, and says where to get it when it is missing."""
    if name == "logmel":
        return LogMel()
    from spfem_dist.nets.wav2vec2 import load_wav2vec2

    return Wav2Vec2Features(load_wav2vec2())


class LogMel:
    """Log-mel energies: 25 ms Hann windows, 40 bands, 4 windows per video frame, so a row is 4 x 40 = 160 numbers.

    Each band is normalised to mean 0 and variance 1 over the clip, which takes loudness and microphone away.
    Window centres are placed on the video's clock without rounding the hop, so nothing drifts at 30 or 29.97 fps.
    """

    name = "logmel"
    dim = _HOPS * _MELS

    def __call__(self, speech: np.ndarray, frames: int, fps: float) -> np.ndarray:
        # The four windows of row t lie around t / fps, the moment that frame t shows.
        first = -(_HOPS - 1) / 2 / (fps * _HOPS)
        energies = mel_energies(speech, frames * _HOPS, fps * _HOPS, first)
        logs = log_energies(energies)
        normal = (logs - logs.mean(axis=0)) / np.maximum(logs.std(axis=0), 1e-3)
        return normal.reshape(frames, self.dim).astype(np.float32)


def mel_energies(speech: np.ndarray, rows: int, rate: float, first: float = 0.0) -> np.ndarray:
    """Mel band energies of 16 kHz `speech` [N] in `rows` windows of 25 ms, `rate` windows a second: float64 [rows, 40].

    Window k is centred at first + k / rate seconds. One that straddles an end of the speech is moved inside, as half a
    window of digital silence would look like a sound of its own; one that lies outside is silent.
    """
    if rows < 1:
        raise ValueError(f"at least one row of speech features is needed, asked for {rows}")
    half = _WINDOW // 2
    centres = np.round((first + np.arange(rows) / rate) * SAMPLE_RATE).astype(np.int64)
    straddling = (centres > len(speech) - half) & (centres < len(speech) + half)
    centres[straddling] = len(speech) - half
    centres = np.maximum(centres, half)
    padded = np.zeros(max(len(speech), int(centres.max()) + half), np.float64)
    padded[: len(speech)] = speech
    windows = padded[centres[:, None] + np.arange(-half, half)] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(windows, _FFT)) ** 2
    return power @ _mel_filters().T


def log_energies(energies: np.ndarray) -> np.ndarray:
    """The logarithm of mel energies [rows, 40], with a floor 60 dB below the clip's loudest; digital silence is finite."""
    return np.log(energies + _FLOOR * energies.max() + 1e-12)


@lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=_FFT, n_mels=_MELS, dtype=np.float64)


class Wav2Vec2Features:
    """Hidden states of a wav2vec 2.0 network, 1024 numbers per frame for XLSR-53 (methods.md 1.2).

    network: a transformers `Wav2Vec2Model`. The waveform is normalised over the clip, as XLSR-53 was trained.
    Windows of 128 frames, each after the first with 15 frames of left context that are dropped; the layer's 50 Hz output is
    interpolated linearly to the window's frames. layer: 1-based transformer layer, before any final layer norm.
    """

    name = "wav2vec2"

    def __init__(self, network: Any, layer: int = 20, window: int = 128, context: int = 15):
        layers = network.config.num_hidden_layers
        if not 1 <= layer <= layers:
            raise ValueError(f"layer {layer} of a wav2vec 2.0 network with {layers} layers: choose 1 to {layers}")
        self.network, self.layer = network.eval(), layer
        self.window, self.context = window, context
        self.dim = network.config.hidden_size
        # The feature extractor is a stack of convolutions; fewer samples than its field give no output at all.
        self._field = _receptive_field(network.config.conv_kernel, network.config.conv_stride)

    @torch.inference_mode()
    def __call__(self, speech: np.ndarray, frames: int, fps: float) -> np.ndarray:
        if frames < 1:
            raise ValueError(f"at least one row of speech features is needed, asked for {frames}")
        waveform = np.zeros(round(frames * SAMPLE_RATE / fps), np.float32)
        kept = min(len(waveform), len(speech))
        waveform[:kept] = speech[:kept]
        waveform = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
        rows = []
        for start, end, drop in frame_windows(frames, self.window, self.context):
            piece = waveform[round(start * SAMPLE_RATE / fps) : round(end * SAMPLE_RATE / fps)]
            rows.append(self._piece(piece, end - start)[drop:])
        return np.concatenate(rows)

    def _piece(self, waveform: np.ndarray, frames: int) -> np.ndarray:
        waveform = np.pad(waveform, (0, max(0, self._field - len(waveform))))
        device = next(self.network.parameters()).device
        output = self.network(torch.from_numpy(waveform)[None].to(device), output_hidden_states=True)
        states = output.hidden_states[self.layer].float().transpose(1, 2)
        return F.interpolate(states, size=frames, mode="linear", align_corners=True)[0].T.cpu().numpy()


def frame_windows(frames: int, window: int = 128, context: int = 15) -> list[tuple[int, int, int]]:
    """(start, end, dropped) of each window over `frames` video frames: the kept parts tile [0, frames) exactly."""
    windows = [(0, min(window, frames), 0)]
    while (end := windows[-1][1]) < frames:
        windows.append((end - context, min(end - context + window, frames), context))
    return windows


def _receptive_field(kernels: list[int], strides: list[int]) -> int:
    field, jump = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        field, jump = field + (kernel - 1) * jump, jump * stride
    return field
