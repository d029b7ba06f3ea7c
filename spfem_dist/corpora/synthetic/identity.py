"""Who speaks: face geometry, colours and voice of one synthetic person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spfem_dist.corpora._speech.keys import Factor, stream

Colour = tuple[float, float, float]

#: RGB anchors between which skin and hair colours are mixed.
_SKIN = np.array([(245, 214, 190), (228, 182, 150), (201, 150, 112), (160, 108, 76), (112, 74, 54)], np.float64)
_HAIR = np.array(
    [(34, 26, 24), (72, 46, 30), (120, 78, 44), (190, 150, 90), (150, 66, 34), (150, 148, 146)], np.float64
)
_IRIS = np.array([(70, 46, 30), (60, 90, 60), (70, 104, 140), (96, 80, 52)], np.float64)


@dataclass(frozen=True)
class Identity:
    """One person. Lengths are in half face widths (head coordinates: x right, y down, z to the camera); colours RGB."""

    face_width: float
    jaw_width: float
    chin: float
    eye_spacing: float
    eye_size: float
    eye_height: float
    brow_thickness: float
    brow_height: float
    brow_length: float
    nose_width: float
    nose_length: float
    mouth_width: float
    mouth_height: float
    lip_thickness: float
    hair_style: int
    glasses: bool
    beard: float
    skin: Colour
    hair: Colour
    lips: Colour
    iris: Colour
    pitch: float
    tract: float
    breath: float


def _between(rng: np.random.Generator, anchors: np.ndarray) -> np.ndarray:
    first = rng.integers(len(anchors) - 1)
    share = rng.uniform()
    return anchors[first] * (1 - share) + anchors[first + 1] * share


def _colour(values: np.ndarray) -> Colour:
    r, g, b = np.clip(values, 0, 255)
    return float(r), float(g), float(b)


def identity(seed: int, speaker: int) -> Identity:
    """The person number `speaker` of the corpus with this seed. Pitch is the mean F0 in Hz, tract scales all formants."""
    rng = stream(seed, Factor.IDENTITY, speaker)
    low_voice = bool(rng.uniform() < 0.5)
    skin = _between(rng, _SKIN)
    hair = _HAIR[rng.integers(len(_HAIR))] * rng.uniform(0.8, 1.15)
    redder = np.array((rng.uniform(0.80, 0.95), rng.uniform(0.50, 0.64), rng.uniform(0.52, 0.66)))
    return Identity(
        face_width=rng.uniform(0.92, 1.08),
        jaw_width=rng.uniform(0.62, 0.82),
        chin=rng.uniform(1.28, 1.44),
        eye_spacing=rng.uniform(0.38, 0.48),
        eye_size=rng.uniform(0.20, 0.25),
        eye_height=rng.uniform(-0.16, -0.04),
        brow_thickness=rng.uniform(0.05, 0.10),
        brow_height=rng.uniform(0.28, 0.36),
        brow_length=rng.uniform(0.27, 0.33),
        nose_width=rng.uniform(0.15, 0.23),
        nose_length=rng.uniform(0.46, 0.56),
        mouth_width=rng.uniform(0.38, 0.46),
        mouth_height=rng.uniform(0.72, 0.81),
        lip_thickness=rng.uniform(0.07, 0.12),
        hair_style=int(rng.integers(4)),
        glasses=bool(rng.uniform() < 0.2),
        beard=float(rng.uniform(0.3, 0.8)) if low_voice and rng.uniform() < 0.45 else 0.0,
        skin=_colour(skin),
        hair=_colour(hair),
        lips=_colour(skin * redder),
        iris=_colour(_IRIS[rng.integers(len(_IRIS))]),
        pitch=rng.uniform(95, 135) if low_voice else rng.uniform(175, 230),
        tract=rng.uniform(0.93, 1.02) if low_voice else rng.uniform(1.06, 1.18),
        breath=rng.uniform(0.02, 0.06),
    )
