"""The moving face as curves in head coordinates (unit: half a face width; x right, y down, z to the camera)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spfem_dist.corpora.synthetic.expression import Expression
from spfem_dist.corpora.synthetic.identity import Identity

_U = np.linspace(-1, 1, 13)  # along lips and lids, left to right
_ROUND = np.linspace(0, 2 * np.pi, 20, endpoint=False)


@dataclass
class Mouth:
    """What the mouth does at each frame, after emotion. opening, width, rounding, teeth: float64 [T], 0..1."""

    opening: np.ndarray
    width: np.ndarray
    rounding: np.ndarray
    teeth: np.ndarray


def mouth(visemes: np.ndarray, felt: Expression) -> Mouth:
    """Content `visemes` [T, 4] as this expression shows them: a small gain and offset, corners pulled or narrowed."""
    opening, width, rounding, teeth = visemes.T
    return Mouth(
        opening=np.clip(opening * felt.gain + felt.offset, 0, 1.1),
        width=np.clip(width + 0.12 * felt.actions["stretch"], -0.2, 1.3),
        rounding=rounding,
        teeth=teeth,
    )


def depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth of the head's surface: an ellipsoid."""
    return 0.8 * np.sqrt(np.maximum(0.02, 1 - (x / 1.15) ** 2 - ((y - 0.1) / 1.6) ** 2))


def _curve(x: np.ndarray, y: np.ndarray, lift: float = 0.0) -> np.ndarray:
    x, y = np.broadcast_arrays(x, y)
    return np.stack([x, y, depth(x, y) + lift], axis=-1)


def _column(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64)[:, None]


def face(person: Identity, felt: Expression, shape: Mouth, blink: np.ndarray) -> dict[str, np.ndarray]:
    """Every curve of the face, name -> float64 [T, P, 3]. blink [T]: 0 open, 1 shut."""
    steps = len(blink)
    drop = 0.17 * shape.opening
    curves = {"outline": _outline(person, drop), **_mouth_curves(person, felt, shape, drop), **_nose(person, felt)}
    for side, name in ((-1, "left"), (1, "right")):
        curves |= {f"{name}_{k}": v for k, v in _eye(person, felt, blink, side).items()}
        curves |= {f"{name}_{k}": v for k, v in _brow(person, felt, side).items()}
        curves |= {f"{name}_{k}": v for k, v in _folds(person, felt, shape, side).items()}
    for row in range(3):
        y = -0.72 - 0.13 * row - 0.05 * _column(felt.actions["brow_middle"])
        x = np.broadcast_to(np.linspace(-0.45, 0.45, 9), (steps, 9))
        curves[f"forehead_{row}"] = _curve(x, y - 0.05 * (1 - (x / 0.45) ** 2))
    return curves


def _outline(person: Identity, drop: np.ndarray) -> np.ndarray:
    """The face from the left temple round the chin to the right temple and over the forehead."""
    angle = np.linspace(0, np.pi, 17)  # left ear to right ear
    squareness = np.sin(angle) ** 2
    x = -np.cos(angle) * person.face_width * (1 - (1 - person.jaw_width) * squareness * 0.55)
    y = np.sin(angle) ** 0.9 * person.chin
    jaw = np.stack(np.broadcast_arrays(x, y + _column(drop) * np.sin(angle) ** 2), axis=-1)
    top = np.linspace(0, np.pi, 14)[1:-1]
    promote_champion = np.stack([np.cos(top) * person.face_width, -np.sin(top) * 1.18], axis=-1)
    ring = np.concatenate([jaw, np.broadcast_to(promote_champion, (len(drop), *promote_champion.shape))], axis=1)
    return np.concatenate([ring, np.full((*ring.shape[:2], 1), 0.15)], axis=-1)


def _mouth_curves(person: Identity, felt: Expression, shape: Mouth, drop: np.ndarray) -> dict[str, np.ndarray]:
    act = felt.actions
    half = person.mouth_width * (0.62 + 0.50 * shape.width - 0.22 * shape.rounding)
    gap = 0.48 * shape.opening
    middle = _column(person.mouth_height + 0.15 * drop)
    bend = (1 - np.abs(_U) ** 2.2) ** _column(1 - 0.4 * np.clip(shape.rounding, 0, 1))  # rounded lips make an ellipse
    smile = act["corner_up"] * np.minimum(half / person.mouth_width, 1.1)
    corner = -_column(0.20 * smile) * _U**2 * (1 + felt.lean["corner_up"] * _U) + _column(0.03 * smile)
    raised = _column(np.maximum(act["lip_raise"], 0) * 0.07) * (1 - 0.5 * _U**2)
    x = _column(half) * _U
    upper_inner = middle + corner - _column(0.28 * gap) * bend - 0.5 * raised * np.minimum(1, _column(6 * gap))
    lower_inner = middle + corner + _column(0.72 * gap) * bend
    thick = person.lip_thickness * (
        1 + 0.55 * shape.rounding - 0.45 * np.clip(act["press"], 0, 1) * (1 - shape.opening)
    )
    tuck = 1 - 0.55 * shape.teeth * (shape.opening < 0.25)
    cupid = (1 - np.abs(_U) ** 2.5) * (1 - 0.22 * np.exp(-((_U / 0.16) ** 2)))
    upper_outer = upper_inner - _column(thick) * cupid - raised
    lower_outer = lower_inner + 1.2 * _column(thick * tuck) * (1 - np.abs(_U) ** 2.4) ** 0.8
    lift = _column(0.06 + 0.12 * shape.rounding) * (1 - _U**2)
    wide = 1.06 * x

    def lips(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        points = _curve(xs, ys)
        points[..., 2] += lift
        return points

    top, bottom = lips(x, upper_inner), lips(x, np.maximum(lower_inner, upper_inner))
    outer_top, outer_bottom = lips(wide, upper_outer), lips(wide, lower_outer)
    bite = _column(np.minimum(0.13, 0.06 + 0.10 * shape.teeth) * np.clip(shape.teeth * 1.6, 0, 1))
    teeth_x, tongue_x = 0.86 * x, 0.62 * x
    inner = np.linspace(0.14, 0.86, 13) * 12
    teeth_top = _sample(upper_inner, inner)
    teeth_low = np.minimum(teeth_top + bite, _sample(lower_inner, inner))
    deep = np.linspace(0.26, 0.74, 13) * 12
    floor = _sample(lower_inner, deep)
    tongue = np.maximum(floor - _column(0.10 + 0.06 * shape.opening) * (1 - _U**2), _sample(upper_inner, deep))
    return {
        "lip_outer_upper": outer_top,
        "lip_outer_lower": outer_bottom,
        "lip_inner_upper": top,
        "lip_inner_lower": bottom,
        "lips": np.concatenate([outer_top, outer_bottom[:, ::-1]], axis=1),
        "gap": np.concatenate([top, bottom[:, ::-1]], axis=1),
        "teeth": np.concatenate([lips(teeth_x, teeth_top), lips(teeth_x, teeth_low)[:, ::-1]], axis=1),
        "tongue": np.concatenate([lips(tongue_x, tongue), lips(tongue_x, floor)[:, ::-1]], axis=1),
    }


def _sample(curve: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`curve` [T, 13] at fractional columns `where` [13]."""
    low = np.clip(where.astype(int), 0, curve.shape[1] - 2)
    share = where - low
    return curve[:, low] * (1 - share) + curve[:, low + 1] * share


def _eye(person: Identity, felt: Expression, blink: np.ndarray, side: int) -> dict[str, np.ndarray]:
    act = felt.of_side(side)
    x = side * person.eye_spacing + person.eye_size * _U
    lens = 1 - np.abs(_U) ** 2
    open_upper = (0.115 + 0.062 * act["upper_lid"]) * (1 - blink)
    open_lower = (0.075 - 0.045 * act["lower_lid"]) * (1 - 0.6 * blink)
    slope = -0.02 * side * _U  # outer corners a little higher
    droop = _column(0.05 * np.maximum(-act["upper_lid"], 0)) * (side * _U + 1) / 2 * lens
    upper = person.eye_height + slope - _column(np.maximum(open_upper, 0.008)) * lens + droop
    lower = person.eye_height + slope + _column(np.maximum(open_lower, 0.008)) * lens
    upper = np.minimum(upper, lower - 0.004)
    steps = len(blink)

    def disc(radius: float) -> np.ndarray:
        px = side * person.eye_spacing + radius * np.cos(_ROUND)
        py = person.eye_height + radius * np.sin(_ROUND)
        column = (px - x[0]) / (x[-1] - x[0]) * 12
        py = np.clip(np.broadcast_to(py, (steps, len(py))), _sample(upper, column), _sample(lower, column))
        return _curve(np.broadcast_to(px, py.shape), py, 0.03)

    xs = np.broadcast_to(x, upper.shape)
    return {
        "eye": np.concatenate([_curve(xs, upper), _curve(xs, lower)[:, ::-1]], axis=1),
        "iris": disc(0.105),
        "pupil": disc(0.048),
        "lash": _curve(xs, upper),
        "lower_lash": _curve(xs, lower),
        "socket": _curve(xs, person.eye_height - 0.19 - _column(0.03 * act["upper_lid"]) + 0.10 * _U**2),
    }


def _brow(person: Identity, felt: Expression, side: int) -> dict[str, np.ndarray]:
    """Inner end first; heights follow the three brow actions, the furrow pulls the inner end to the middle."""
    act = felt.of_side(side)
    along = np.linspace(0, 1, 7)
    inner = 1 - 0.9 * along
    weights = np.stack([np.clip(1 - 2 * along, 0, 1), 1 - np.abs(2 * along - 1), np.clip(2 * along - 1, 0, 1)])
    raised = np.stack([act["brow_inner"], act["brow_middle"], act["brow_outer"]], axis=1) @ weights
    rest = person.eye_height - person.brow_height - 0.06 * np.sin(np.pi * (0.2 + 0.7 * along))
    y = rest - 0.135 * raised + 0.03 * _column(np.maximum(act["furrow"], 0)) * inner
    pull = _column(0.075 * act["furrow"]) * inner
    start = person.eye_spacing - 0.62 * person.brow_length
    x = side * (start + 1.75 * person.brow_length * along - pull)
    taper = person.brow_thickness * np.array([0.85, 1.1, 1.1, 1.0, 0.85, 0.6, 0.25])
    spine = _curve(x, y, 0.04)
    return {
        "brow_line": spine,
        "brow": np.concatenate([_curve(x, y - taper / 2, 0.04), _curve(x, y + taper / 2, 0.04)[:, ::-1]], axis=1),
        "frown": _curve(
            side * 0.075 + 0 * _column(act["furrow"]) + 0 * np.linspace(0, 1, 4),
            person.eye_height - person.brow_height + 0.02 + np.linspace(-0.13, 0.12, 4) + 0 * _column(act["furrow"]),
            0.05,
        ),
    }


def _nose(person: Identity, felt: Expression) -> dict[str, np.ndarray]:
    up = _column(0.05 * np.maximum(felt.actions["nose_wrinkle"], 0))
    wide = person.nose_width * (1 + 0.15 * _column(np.maximum(felt.actions["nose_wrinkle"], 0)))
    tip = person.eye_height + person.nose_length
    along = np.linspace(0, 1, 4)
    bridge = _curve(0 * up + 0 * along, person.eye_height + (person.nose_length - 0.08) * along + 0 * up)
    bridge[..., 2] += 0.10 + 0.30 * along
    base_x = wide * np.linspace(-1, 1, 5)
    base_y = tip - up - 0.02 + 0.05 * np.array([-0.6, 0.5, 1.0, 0.5, -0.6])
    base = _curve(base_x, base_y)
    base[..., 2] += 0.16 + 0.1 * np.array([0, 0.6, 1, 0.6, 0])
    side = _curve(
        np.concatenate([0.09 + 0 * wide, 0.10 + 0 * wide, wide * 0.9, wide * 1.05], axis=1),
        np.concatenate(
            [person.eye_height + 0.05 + 0 * up, tip - 0.28 + 0 * up, tip - 0.12 - up, tip - 0.02 - up], axis=1
        ),
        0.12,
    )
    curves = {"bridge": bridge, "nose_base": base, "nose_side": side}
    for name, sign in (("nostril_left", -1), ("nostril_right", 1)):
        x = sign * 0.52 * wide + 0.055 * np.cos(_ROUND)
        curves[name] = _curve(x, tip - up + 0.026 * np.sin(_ROUND), 0.22)
    for row in range(3):
        x = np.linspace(-0.13, 0.13, 5) + 0 * up
        curves[f"wrinkle_{row}"] = _curve(
            x, person.eye_height + 0.02 + 0.09 * row - 0.025 * np.cos(x * 12) + 0 * up, 0.16
        )
    return curves


def _folds(person: Identity, felt: Expression, shape: Mouth, side: int) -> dict[str, np.ndarray]:
    """Nasolabial fold, cheek, and crow's-feet."""
    act = felt.of_side(side)
    along = np.linspace(0, 1, 6)
    spread = _column(0.10 * np.maximum(act["cheek"], 0) + 0.05 * np.maximum(act["stretch"], 0))
    start_y = person.eye_height + person.nose_length - 0.08
    x = side * (person.nose_width + 0.05 + (0.26 + spread) * along**0.8)
    y = start_y + (person.mouth_height + 0.04 - start_y) * along + 0 * spread
    centre_x = side * (person.eye_spacing + 0.14)
    cheek_y = 0.36 - _column(0.05 * np.maximum(act["cheek"], 0))
    cheek = _curve(centre_x + 0.21 * np.cos(_ROUND) + 0 * cheek_y, cheek_y + 0.14 * np.sin(_ROUND))
    feet = {}
    for row, slant in enumerate((-0.10, 0.0, 0.10)):
        fx = side * (person.eye_spacing + person.eye_size + 0.03 + 0.12 * np.linspace(0, 1, 3)) + 0 * spread
        feet[f"crow_{row}"] = _curve(fx, person.eye_height + 0.02 + slant * np.linspace(0.3, 1, 3) + 0 * spread)
    return {"fold": _curve(x, y), "cheek": cheek, **feet}
