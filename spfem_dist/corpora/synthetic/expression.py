"""How an emotion looks: action strengths of the face, and who shows it how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spfem_dist.corpora._speech.keys import Factor, stream, wander
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
class Style:
    """How one speaker shows every emotion. factor: on the strength of each action; rest: what of it a neutral face shows;
    lean: how much stronger it is on the right of the picture than on the left, as a share; float64 [12], as `ACTION_NAMES`."""

    factor: np.ndarray
    rest: np.ndarray
    lean: np.ndarray


@dataclass(frozen=True)
class Expression:
    """One recording's emotion over time. actions: name -> float64 [T]; gain, offset: of the mouth opening;
    lean: name -> share by which an action is stronger on the right of the picture than on the left."""

    actions: dict[str, np.ndarray]
    gain: float
    offset: float
    lean: dict[str, float]

    def of_side(self, side: int) -> dict[str, np.ndarray]:
        """The actions of the left (-1) or the right (1) half of the picture."""
        return {name: values * (1 + side * self.lean[name]) for name, values in self.actions.items()}


def personal_style(seed: int, speaker: int, strength: float) -> Style:
    """The style of a speaker. strength: 0 is nobody's own (factors of 1, nothing at rest, symmetric), 1 what people differ by.

    At 1 the logarithm of a factor has a deviation of .35, rest one of .25, lean one of .2. Rest goes with the factor (correlation
    .8): who uses an action much carries some of it, as lines and folds, on a neutral face too.
    """
    rng = stream(seed, Factor.STYLE, speaker)
    habit, apart, side = rng.standard_normal((3, len(ACTION_NAMES))).clip(-2, 2)
    return Style(
        factor=np.exp(0.35 * strength * habit),
        rest=0.25 * strength * (0.8 * habit + 0.6 * apart),
        lean=0.2 * strength * side,
    )


def expression(
    seed: int, key: tuple[int, int], emotion: Emotion, take: int, times: np.ndarray, style: float = 0.0
) -> Expression:
    """The expression of (speaker, sentence) = key in `emotion` at `times` (seconds), with its own intensity and variation.

    Intensity is 0.45 to 0.9 for a recording, wanders by a few percent inside it, and each action varies by 12 %.
    style: how much the speaker's own style shows, see `personal_style`.
    """
    own = personal_style(seed, key[0], style)
    rng = stream(seed, Factor.EXPRESSION, *key, SEVEN.index(emotion), take)
    intensity = rng.uniform(0.45, 0.9) * (1 + 0.06 * wander(rng, times))
    varied = 1 + 0.12 * rng.standard_normal(len(ACTION_NAMES))
    habit = 0.06 * rng.standard_normal(len(ACTION_NAMES))
    strength = np.array(ACTIONS[emotion]) * varied * own.factor
    always = habit + own.rest
    gain, offset = MOUTH[emotion]
    return Expression(
        actions={name: intensity * strength[i] + always[i] for i, name in enumerate(ACTION_NAMES)},
        gain=1 + (gain - 1) * float(varied.mean()) + 0.02 * float(rng.standard_normal()),
        offset=offset,
        lean=dict(zip(ACTION_NAMES, own.lean.tolist(), strict=True)),
    )
