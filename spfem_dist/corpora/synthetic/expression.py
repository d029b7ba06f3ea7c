"""How an emotion looks and sounds: action strengths of the face, and prosody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spfem_dist.corpora.synthetic.keys import Factor, stream, wander
from spfem_dist.emotions import SEVEN, Emotion

#: The columns of `ACTIONS`, in the spirit of the Facial Action Coding System (Ekman and Friesen 1978).
ACTION_NAMES = (
    "brow_inner",  # up is positive (AU1, AU4)
    "brow_middle",
    "brow_outer",  # (AU2)
    "furrow",  # brows drawn together (AU4)
    "upper_lid",  # wider is positive, drooping negative (AU5, AU43)
    "lower_lid",  # squint (AU7, AU6)
    "corner_up",  # (AU12), negative pulls down (AU15)
    "stretch",  # corners pulled outwards (AU20), negative narrows
    "nose_wrinkle",  # (AU9)
    "lip_raise",  # upper lip (AU10)
    "cheek",  # (AU6)
    "press",  # lips thinned (AU24)
)

#: Strength of each action at full intensity. Fear, sadness and surprise all raise the inner brow; they are kept apart by
#: the outer brow (sad down, fear level and drawn together, surprise high and arched), the lids and the corners.
ACTIONS: dict[Emotion, tuple[float, ...]] = {
    Emotion.NEUTRAL: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    Emotion.ANGRY: (-1.1, -0.5, 0.45, 1.0, 0.15, 0.55, -0.35, -0.1, 0.25, 0.0, 0.0, 0.8),
    Emotion.DISGUSTED: (-0.55, -0.45, -0.35, 0.5, -0.25, 0.75, -0.45, 0.0, 1.0, 1.0, 0.5, 0.0),
    Emotion.FEAR: (1.0, 0.55, 0.15, 0.9, 1.0, 0.25, -0.45, 1.0, 0.0, 0.0, 0.0, 0.0),
    Emotion.HAPPY: (0.1, 0.2, 0.1, 0.0, -0.05, 0.6, 1.0, 0.6, 0.0, 0.1, 1.0, 0.0),
    Emotion.SAD: (0.9, 0.0, -0.75, 0.4, -0.65, 0.0, -1.0, -0.2, 0.0, 0.0, 0.0, 0.2),
    Emotion.SURPRISED: (1.05, 1.45, 1.1, -0.2, 0.85, -0.2, 0.0, -0.6, 0.0, 0.0, 0.0, 0.0),
}

#: Gain and offset of the mouth opening: small, so that emotion does not give the opening away.
MOUTH: dict[Emotion, tuple[float, float]] = {
    Emotion.NEUTRAL: (1.0, 0.0),
    Emotion.ANGRY: (1.05, 0.0),
    Emotion.DISGUSTED: (0.94, 0.0),
    Emotion.FEAR: (0.97, 0.01),
    Emotion.HAPPY: (1.04, 0.01),
    Emotion.SAD: (0.90, 0.0),
    Emotion.SURPRISED: (1.06, 0.02),
}


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


@dataclass(frozen=True)
class Expression:
    """One recording's emotion over time. actions: name -> float64 [T]; gain, offset: of the mouth opening."""

    actions: dict[str, np.ndarray]
    gain: float
    offset: float


def expression(seed: int, key: tuple[int, int], emotion: Emotion, take: int, times: np.ndarray) -> Expression:
    """The expression of (speaker, sentence) = key in `emotion` at `times` (seconds), with its own intensity and style.

    Intensity is 0.45 to 0.9 for a recording, wanders by a few percent inside it, and each action varies by 12 %.
    """
    rng = stream(seed, Factor.EXPRESSION, *key, SEVEN.index(emotion), take)
    intensity = rng.uniform(0.45, 0.9) * (1 + 0.06 * wander(rng, times))
    style = 1 + 0.12 * rng.standard_normal(len(ACTION_NAMES))
    habit = 0.06 * rng.standard_normal(len(ACTION_NAMES))
    strength = np.array(ACTIONS[emotion]) * style
    gain, offset = MOUTH[emotion]
    return Expression(
        actions={name: intensity * strength[i] + habit[i] for i, name in enumerate(ACTION_NAMES)},
        gain=1 + (gain - 1) * float(style.mean()) + 0.02 * float(rng.standard_normal()),
        offset=offset,
    )
