"""How an emotion changes speech."""

from __future__ import annotations

from dataclasses import dataclass

from spfem_dist.emotions import Emotion


@dataclass(frozen=True)
class Prosody:
    """How an emotion changes speech. slowness: duration factor; pitch: F0 factor; range: factor on F0 movement;
    energy: dB; tilt: dB for each octave above 500 Hz; tremor: share of F0; breath: added noise, relative to voicing."""

    slowness: float
    pitch: float
    range: float
    energy: float
    tilt: float
    tremor: float
    breath: float


PROSODY: dict[Emotion, Prosody] = {
    Emotion.NEUTRAL: Prosody(1.00, 1.00, 1.0, 0.0, 0.0, 0.00, 0.00),
    Emotion.ANGRY: Prosody(0.90, 1.15, 1.5, 5.0, 2.5, 0.00, 0.00),
    Emotion.DISGUSTED: Prosody(1.10, 0.92, 0.8, -1.0, -0.5, 0.00, 0.01),
    Emotion.FEAR: Prosody(0.88, 1.30, 1.2, 1.0, 1.0, 0.03, 0.03),
    Emotion.HAPPY: Prosody(0.95, 1.20, 1.6, 3.0, 1.0, 0.00, 0.00),
    Emotion.SAD: Prosody(1.22, 0.90, 0.5, -5.0, -2.5, 0.01, 0.04),
    Emotion.SURPRISED: Prosody(1.00, 1.35, 1.9, 3.0, 1.5, 0.00, 0.00),
}
