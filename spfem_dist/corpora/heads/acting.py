"""What a face does: speech and emotion as weights of the 52 units over time.

Speech moves lips and jaw by a table of visemes, blended by the dominance functions that give the drawn sentence its co-articulation
(Cohen and Massaro 1993). An emotion is a programme of units, the prototypes of FACS (Ekman and Friesen 1978): it sets in, wanders, is
never quite symmetric, and gives way to lips that have to close.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spfem_dist.corpora._speech.keys import Factor, stream, wander
from spfem_dist.corpora._speech.script import PHONEMES, SILENCE, VOWELS, Canon
from spfem_dist.emotions import SEVEN, Emotion

#: Units at full articulation, by sound; a name without a side means both.
VISEMES: dict[str, dict[str, float]] = {
    SILENCE: {},
    "a": {"jawOpen": 0.52, "mouthLowerDown": 0.20, "mouthUpperUp": 0.10},
    "e": {"jawOpen": 0.28, "mouthStretch": 0.22, "mouthSmile": 0.10, "mouthLowerDown": 0.22, "mouthUpperUp": 0.10},
    "i": {"jawOpen": 0.12, "mouthStretch": 0.34, "mouthSmile": 0.18, "mouthLowerDown": 0.30, "mouthUpperUp": 0.14},
    "o": {"jawOpen": 0.36, "mouthFunnel": 0.60, "mouthPucker": 0.18},
    "u": {"jawOpen": 0.13, "mouthPucker": 0.80, "mouthFunnel": 0.28},
    "@": {"jawOpen": 0.22, "mouthLowerDown": 0.12, "mouthUpperUp": 0.04},
    "m": {"mouthPress": 0.35, "mouthRollLower": 0.14, "mouthRollUpper": 0.14},
    "p": {"mouthPress": 0.28, "mouthRollLower": 0.10, "mouthRollUpper": 0.10, "mouthPucker": 0.10},
    "f": {"jawOpen": 0.07, "mouthRollLower": 0.70, "mouthUpperUp": 0.26},
    "s": {"jawOpen": 0.05, "mouthStretch": 0.24, "mouthLowerDown": 0.38, "mouthUpperUp": 0.20},
    "S": {"jawOpen": 0.10, "mouthFunnel": 0.72, "mouthLowerDown": 0.16, "mouthUpperUp": 0.10},
    "t": {"jawOpen": 0.10, "mouthLowerDown": 0.26, "mouthUpperUp": 0.12},
    "k": {"jawOpen": 0.19, "mouthLowerDown": 0.14, "mouthUpperUp": 0.06},
    "n": {"jawOpen": 0.12, "mouthLowerDown": 0.20, "mouthUpperUp": 0.08},
    "l": {"jawOpen": 0.23, "mouthLowerDown": 0.18, "mouthUpperUp": 0.06, "tongueOut": 0.10},
    "w": {"jawOpen": 0.06, "mouthPucker": 0.92, "mouthFunnel": 0.18},
}
#: Units at full intensity, by emotion: prototypes of FACS, weighed by what open judges see of them in recorded faces whose landmarks are
#: moved so (docs/editing.md). Anger's and surprise's narrow lips are what a tightened mouth and a dropped jaw give; on this head pressed
#: lips (mouthPress) are wide ones.
EMOTIONS: dict[Emotion, dict[str, float]] = {
    Emotion.NEUTRAL: {},
    Emotion.ANGRY: {
        "browDown": 1.0,
        "browOuterUp": 0.35,
        "eyeWide": 0.35,
        "eyeSquint": 0.35,
        "noseSneer": 0.75,
        "mouthFrown": 0.65,
        "mouthPucker": 0.35,
        "mouthFunnel": 0.30,
        "mouthUpperUp": 0.20,
        "jawForward": 0.25,
        "jawOpen": 0.06,
    },
    Emotion.DISGUSTED: {
        "noseSneer": 1.0,
        "mouthUpperUp": 0.70,
        "mouthFrown": 0.75,
        "browDown": 0.65,
        "cheekSquint": 0.50,
        "eyeSquint": 0.50,
        "mouthShrugUpper": 0.25,
        "mouthPucker": 0.20,
    },
    Emotion.FEAR: {
        "browInnerUp": 1.0,
        "browOuterUp": 0.45,
        "browDown": 0.15,
        "eyeWide": 1.0,
        "mouthStretch": 0.95,
        "mouthFrown": 0.50,
        "mouthLowerDown": 0.20,
        "jawOpen": 0.10,
    },
    Emotion.HAPPY: {
        "mouthSmile": 0.95,
        "cheekSquint": 0.85,
        "eyeSquint": 0.35,
        "mouthDimple": 0.20,
        "mouthUpperUp": 0.20,
        "mouthLowerDown": 0.08,
    },
    Emotion.SAD: {
        "browInnerUp": 1.0,
        "browDown": 0.40,
        "mouthFrown": 1.0,
        "mouthShrugLower": 0.60,
        "eyeSquint": 0.10,
        "eyeBlink": 0.20,
        "eyeLookDown": 0.12,
    },
    Emotion.SURPRISED: {
        "browInnerUp": 0.90,
        "browOuterUp": 1.0,
        "eyeWide": 1.0,
        "jawOpen": 0.22,
        "mouthPucker": 0.35,
    },
}
#: What an emotion leaves of jaw and lips: gain on the jaw of speech, small, so that opening does not give the emotion away.
_JAW_GAIN = {
    Emotion.ANGRY: 1.12,
    Emotion.DISGUSTED: 0.92,
    Emotion.FEAR: 0.96,
    Emotion.HAPPY: 1.06,
    Emotion.SAD: 1.02,
    Emotion.SURPRISED: 0.98,
}
#: Units of an emotion that would part lips which a sound has to close, or round.
_PARTING = ("jawOpen", "mouthUpperUp", "mouthLowerDown", "mouthFunnel", "mouthShrugUpper", "mouthStretch")
_SPREADING = ("mouthSmile", "mouthStretch", "mouthFrown", "mouthDimple")
#: Which of a sound's four grips (open, width, round, teeth; `script.Phoneme`) holds a unit.
_GRIP = {"jawOpen": 0, "mouthStretch": 1, "mouthSmile": 1, "mouthPucker": 2, "mouthFunnel": 2}


@dataclass(frozen=True)
class Units:
    """The order of the units, and which of them a name without a side means."""

    names: tuple[str, ...]

    def of(self, name: str) -> list[int]:
        """Numbers of the unit `name`, or of its left and right one. Raises KeyError for a name that is none."""
        found = [i for i, n in enumerate(self.names) if n in (name, f"{name}Left", f"{name}Right")]
        if not found:
            raise KeyError(f"{name!r} is no unit; there are {', '.join(self.names)}")
        return found

    def row(self, values: Mapping[str, float]) -> np.ndarray:
        """Weights float64 [U] of named units; the others are 0."""
        weights = np.zeros(len(self.names))
        for name, value in values.items():
            weights[self.of(name)] = value
        return weights

    def paired(self, values: np.ndarray) -> np.ndarray:
        """Numbers [U], the same for both sides of a unit: the first one's."""
        names = [name.removesuffix("Left").removesuffix("Right") for name in self.names]
        return values[[names.index(name) for name in names]]


def said(units: Units, canon: Canon) -> np.ndarray:
    """The units of a sentence on its own clock: float64 [G, U] at `canon.phase`; the last column but no unit: how closed lips must be.

    Returns [G, U + 1].
    """
    target = np.stack([units.row(VISEMES[sound]) for sound in canon.sounds])
    vowel = np.array([sound in VOWELS for sound in canon.sounds])
    target[:, units.of("jawOpen")] *= np.where(vowel, canon.stress, 1.0)[:, None]
    closed = np.array([float(sound in ("m", "p")) for sound in canon.sounds])
    target = np.concatenate([target, closed[:, None]], axis=1)
    for place in np.flatnonzero([sound == SILENCE for sound in canon.sounds]):
        neighbour = place + 1 if place + 1 < len(canon.sounds) else place - 1
        target[place, :-1] += 0.35 * target[neighbour, :-1] * (1 - closed[neighbour])
    grips = np.array([PHONEMES[sound].grip for sound in canon.sounds])
    which = np.full(target.shape[1], 3)
    for name, column in _GRIP.items():
        which[units.of(name)] = column
    which[-1] = 0
    grip = grips[:, which]
    seconds = np.diff(canon.starts)
    centre, spread = (canon.starts[:-1] + canon.starts[1:]) / 2, 0.32 * seconds + 0.006
    reach = np.exp(-0.5 * ((canon.phase[:, None] - centre) / spread) ** 2) + 1e-9
    return (reach @ (grip * target)) / (reach @ grip)


@dataclass(frozen=True)
class Manner:
    """How one speaker shows every emotion: factor on each unit, what of it is there at rest, and by how much the right side is stronger."""

    factor: np.ndarray
    rest: np.ndarray
    lean: np.ndarray


def manner(units: Units, seed: int, speaker: int, style: float) -> Manner:
    """The manner of a speaker. style: 0 is nobody's own, 1 what people differ by; the deviations are those of the drawn corpus's styles:
    .35 of a factor's logarithm, .1 at rest, .2 of the lean (both sides of a unit share factor and rest).
    """
    rng = stream(seed, Factor.STYLE, speaker)
    habit, apart = rng.standard_normal((2, len(units.names))).clip(-2, 2)
    lean = float(rng.standard_normal()) * np.ones(len(units.names))
    habit, apart = units.paired(habit), units.paired(apart)
    still = np.array([n.startswith(("eyeLook", "eyeBlink", "jaw", "tongue", "mouthClose")) for n in units.names])
    rest = np.where(still, 0.0, 0.10 * style * np.maximum(0.8 * habit + 0.6 * apart, 0))
    return Manner(np.exp(0.35 * style * habit), rest, 0.2 * style * lean)


def felt(
    units: Units, seed: int, key: tuple[int, int], emotion: Emotion, take: int, times: np.ndarray, style: float
) -> np.ndarray:
    """The units of an emotion alone: float64 [T, U] at `times` (seconds), before speech.

    Intensity is 0.65 to 1.1 for a recording (a unit never goes beyond 1); it rises from six tenths of that to all of it within .2 to .8 s, wanders by 7 %; each unit varies by
    12 % from recording to recording and by 6 % in it, left and right differ by about 8 %.
    """
    own = manner(units, seed, key[0], style)
    rng = stream(seed, Factor.EXPRESSION, *key, SEVEN.index(emotion), take)
    count = len(units.names)
    sets_in, lasts = rng.uniform(0.0, 0.35), rng.uniform(0.2, 0.8)
    rise = np.clip((times - sets_in) / lasts, 0, 1)
    level = rng.uniform(0.65, 1.1) * (0.6 + 0.4 * rise * rise * (3 - 2 * rise)) * (1 + 0.07 * wander(rng, times))
    sides = np.array([1.0 if n.endswith("Left") else -1.0 if n.endswith("Right") else 0.0 for n in units.names])
    strength = units.row(EMOTIONS[emotion]) * own.factor
    # What varies from recording to recording is common to both sides; what differs between them is one number.
    varied = units.paired(1 + 0.12 * rng.standard_normal(count))
    lopsided = 1 + sides * (0.08 * rng.standard_normal() + own.lean)
    moves = np.stack([1 + 0.06 * wander(rng, times, 0.3, 1.5) for _ in range(count)], axis=1)
    still = np.array(
        [n.startswith(("eyeLook", "eyeBlink", "jaw", "tongue", "mouthClose", "cheekPuff")) for n in units.names]
    )
    habit = np.where(still, 0.0, np.abs(0.03 * rng.standard_normal(count)))
    return np.clip(level[:, None] * strength * varied * lopsided * moves + habit + own.rest, 0, 1)


def acted(
    units: Units, speech: np.ndarray, feeling: np.ndarray, emotion: Emotion, blink: np.ndarray, gaze: np.ndarray
) -> np.ndarray:
    """All units together: float32 [T, U], 0 to 1.

    speech: [T, U + 1] as `said` gives it. feeling: [T, U]. blink: [T], 0 to 1. gaze: [T, 2], degrees to the right of the picture and up.
    """
    closed, words = speech[:, -1], speech[:, :-1].copy()
    words[:, units.of("jawOpen")] *= _JAW_GAIN.get(emotion, 1.0)
    rounded = np.clip(words[:, units.of("mouthPucker")].max(1) + words[:, units.of("mouthFunnel")].max(1), 0, 1)
    shown = feeling.copy()
    for name in _PARTING:
        shown[:, units.of(name)] *= (1 - 0.9 * closed)[:, None]
    for name in _SPREADING:
        shown[:, units.of(name)] *= (1 - 0.5 * rounded)[:, None]
    # Lips that are pressed in anger open for a vowel.
    parted = np.clip(2 * words[:, units.of("jawOpen")].max(1), 0, 1)
    for name in ("mouthPress", "mouthRollUpper", "mouthShrugLower"):
        shown[:, units.of(name)] *= (1 - 0.6 * parted)[:, None]
    total = words + shown
    for name, values in _gaze(gaze).items():
        total[:, units.of(name)[0]] += values
    for side in units.of("eyeBlink"):
        total[:, side] = np.maximum(total[:, side] * (1 - blink), 0) + blink
    wide = units.of("eyeWide")
    total[:, wide] *= (1 - blink)[:, None]
    return np.clip(total, 0, 1).astype(np.float32)


#: Degrees that an eye turns at weight 1 of its four units.
GAZE_DEGREES = 25.0


def _gaze(gaze: np.ndarray) -> dict[str, np.ndarray]:
    """The eight units of both eyes for a common direction; Left is the subject's, on the right of the picture."""
    right, up = gaze.T / GAZE_DEGREES
    return {
        "eyeLookOutLeft": np.maximum(right, 0),
        "eyeLookInRight": np.maximum(right, 0),
        "eyeLookInLeft": np.maximum(-right, 0),
        "eyeLookOutRight": np.maximum(-right, 0),
        "eyeLookUpLeft": np.maximum(up, 0),
        "eyeLookUpRight": np.maximum(up, 0),
        "eyeLookDownLeft": np.maximum(-up, 0),
        "eyeLookDownRight": np.maximum(-up, 0),
    }


def glances(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Where the eyes look: float64 [T, 2], degrees right and up; they jump every .4 to 2 s, mostly near the camera, and tremble a little."""
    direction = np.zeros((len(times), 2))
    at, here = 0.0, rng.normal(0, (3.0, 2.0))
    while at < times[-1]:
        until = at + rng.uniform(0.4, 2.0)
        direction[(times >= at) & (times < until)] = here
        here = rng.normal(0, (4.5, 2.5)) if rng.uniform() < 0.8 else rng.uniform((-18, -8), (18, 8))
        at = until
    return direction + 0.25 * rng.standard_normal(direction.shape)
