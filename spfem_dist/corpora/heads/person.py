"""Who is rendered: the shape of the head, skin, hair, eyes and voice of one person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spfem_dist.corpora._speech.keys import Factor, stream
from spfem_dist.head.asset import Head

Colour = tuple[float, float, float]

#: Linear RGB of skin from light to dark, of hair, and of irises.
_SKIN = np.array(
    [
        (0.72, 0.47, 0.36),
        (0.61, 0.38, 0.27),
        (0.50, 0.29, 0.19),
        (0.36, 0.19, 0.115),
        (0.22, 0.108, 0.064),
        (0.10, 0.05, 0.031),
    ]
)
_HAIR = np.array(
    [
        (0.010, 0.008, 0.007),
        (0.035, 0.020, 0.013),
        (0.085, 0.048, 0.027),
        (0.19, 0.115, 0.060),
        (0.36, 0.25, 0.13),
        (0.17, 0.055, 0.02),
    ]
)
_IRIS = np.array(
    [(0.055, 0.028, 0.014), (0.10, 0.055, 0.025), (0.13, 0.12, 0.055), (0.11, 0.17, 0.21), (0.19, 0.22, 0.23)]
)
#: Ways to wear hair; `hair.py` gives each its shape.
STYLES = ("bald", "cropped", "short", "parted", "fringe", "swept", "bob", "long", "tied", "curly", "afro")


@dataclass(frozen=True)
class Person:
    """One person. Colours are linear RGB; shares are 0 to 1; heights decimetres above the point about which the head nods.

    shape: float32 [K], identity in standard deviations. scalp: how much hair darkens the skin beneath it. pitch: mean F0, Hz; tract: factor on
    formants; breath: noise in the voice.
    """

    shape: np.ndarray
    age: float
    skin: Colour
    lips: Colour
    hair: Colour
    brow: Colour
    iris: Colour
    teeth: Colour
    clothes: Colour
    frame: Colour
    flush: float
    freckles: float
    oil: float
    lip_gloss: float
    liner: float
    shadow: float
    brow_width: float
    brow_density: float
    beard: float
    grey: float
    curl: float
    scalp: float
    style: str
    parting: float
    hairline: float
    collar: float
    neckline: float
    pupil: float
    glasses: int
    lines: float
    pitch: float
    tract: float
    breath: float


def _between(anchors: np.ndarray, place: float) -> np.ndarray:
    low = int(np.clip(place, 0, len(anchors) - 1.001))
    return anchors[low] + (anchors[low + 1] - anchors[low]) * (place - low)


def _colour(values: np.ndarray) -> Colour:
    r, g, b = np.clip(values, 0.002, 0.95)
    return float(r), float(g), float(b)


def person(head: Head, seed: int, number: int) -> Person:
    """The person `number` of the corpus with this seed. Skin goes with ancestry, voice and beard with gender, grey and lines with age."""
    rng = stream(seed, Factor.IDENTITY, number)
    model = int(rng.integers(len(head.people)))
    shape = head.people[model] + 0.15 * rng.standard_normal(head.people.shape[1])
    about = {name: float(values[model]) for name, values in head.about.items()}
    female, age = about["gender"] > 0.5, float(np.clip((about["age"] - 0.62) / 0.35, 0, 1))
    dark = about["african"] * 4.2 + about["asian"] * 1.6 + about["caucasian"] * 0.6 + rng.normal(0, 0.5)
    skin = _between(_SKIN, float(np.clip(dark, 0, 5))) * rng.uniform(0.93, 1.07) * rng.normal(1, (0.01, 0.025, 0.04))
    fair = about["caucasian"] * rng.uniform()
    hair = _between(_HAIR, float(np.clip(4.8 * fair - 0.3, 0, 4.99))) * rng.uniform(0.7, 1.2)
    redder = np.array((rng.uniform(0.62, 0.80), rng.uniform(0.34, 0.48), rng.uniform(0.38, 0.52)))
    lips = skin * redder
    if female and rng.uniform() < 0.45:  # lipstick
        lips = (0.35 * lips + 0.65 * np.array((0.36, 0.06, 0.08)) * rng.uniform((0.6, 0.4, 0.4), (1.2, 2.2, 2.2))) * 0.9
    iris = _between(_IRIS, float(np.clip(5.5 * fair * rng.uniform(0.5, 1.2), 0, 3.99)))
    curly = rng.uniform() < 0.15 + 0.75 * about["african"]
    styles = (
        ("bob", "bob", "long", "long", "long", "tied", "fringe", "curly")
        if female
        else ("bald", "cropped", "cropped", "short", "short", "parted", "swept", "fringe")
    )
    style = str(rng.choice(styles))
    if curly and style not in ("bald", "cropped", "tied"):
        style = str(rng.choice(("afro", "curly")))
    grey = float(np.clip((age - 0.45) * 1.8 * rng.uniform(), 0, 1))
    bearded = not female and rng.uniform() < 0.6
    clothes = rng.uniform(0.01, 0.6) * rng.uniform(0.2, 1.0, 3)
    frame = rng.uniform(0.005, 0.05) * np.ones(3) if rng.uniform() < 0.6 else rng.uniform(0.02, 0.3, 3)
    return Person(
        shape=shape.astype(np.float32),
        age=age,
        skin=_colour(skin),
        lips=_colour(lips),
        hair=_colour(hair),
        brow=_colour(np.minimum(0.8 * hair, 0.45 * skin) * (1 - 0.4 * grey) + 0.12 * grey * skin),
        iris=_colour(iris * rng.uniform(0.8, 1.25)),
        teeth=_colour(np.array((0.66, 0.61, 0.52)) * rng.uniform((0.9, 0.88, 0.75), (1.15, 1.15, 1.15))),
        clothes=_colour(clothes),
        frame=_colour(frame),
        flush=float(rng.uniform(0.5, 1.4)),
        freckles=float(np.clip(rng.normal(0.1, 0.45) - 0.3 * dark / 4 + 0.3 * fair, 0, 1)),
        oil=float(rng.uniform(0.5, 1.3)),
        lip_gloss=float(rng.uniform(0.45, 1.0)),
        liner=float(rng.uniform(0.55, 0.95) if female else rng.uniform(0.2, 0.5)),
        shadow=float(rng.uniform(0.1, 0.7) if female and rng.uniform() < 0.5 else rng.uniform(0, 0.15)),
        brow_width=float(rng.uniform(0.55, 0.95) if female else rng.uniform(0.8, 1.35)),
        brow_density=float(rng.uniform(0.55, 1.0)),
        beard=float(rng.choice((rng.uniform(0.15, 0.4), rng.uniform(0.4, 0.75), rng.uniform(0.75, 0.95))))
        if bearded
        else 0.0,
        grey=grey,
        curl=float(rng.uniform(0.6, 1.0)) if style in ("afro", "curly") else float(rng.uniform(0, 0.15)),
        scalp={"bald": float(rng.choice((0.0, 0.25))), "cropped": 0.75}.get(style, 0.9),
        style=style,
        parting=float(rng.uniform(-0.6, 0.6)),
        hairline=float(rng.uniform(0.92, 1.06) + (0.12 * age * rng.uniform() if not female else 0.0)),
        collar=float(rng.uniform(-1.42, -1.22)),
        neckline=float(rng.choice((-1.0, -1.6, 0.3))),
        pupil=float(rng.uniform(0.12, 0.20)),
        glasses=int(rng.integers(1, 4)) if rng.uniform() < 0.22 else 0,
        lines=float(np.clip(0.25 + 0.75 * age + rng.normal(0, 0.12), 0.1, 1.0)),
        pitch=float(rng.uniform(165, 230) if female else rng.uniform(90, 140)),
        tract=float(rng.uniform(1.06, 1.18) if female else rng.uniform(0.93, 1.03)),
        breath=float(rng.uniform(0.02, 0.06)),
    )
