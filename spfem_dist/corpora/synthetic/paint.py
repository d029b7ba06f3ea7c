"""Drawing: the strokes of a face, back to front, with colours that follow the expression."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from spfem_dist.corpora.synthetic.camera import Camera
from spfem_dist.corpora.synthetic.expression import Expression
from spfem_dist.corpora.synthetic.geometry import Mouth
from spfem_dist.corpora.synthetic.identity import Identity

cv2.setNumThreads(1)  # one frame is too small to share; processes are the parallel unit

_SUPER = 2  # drawn at twice the size, then averaged
_SHIFT = 4  # fractional bits of the coordinates given to OpenCV


@dataclass
class Stroke:
    """One filled shape (width 0) or line. points: [T, P, 3] head coordinates. colour: [3] or [T, 3] RGB.
    width: line width in head units."""

    points: np.ndarray
    colour: np.ndarray
    width: float = 0.0


def _mix(a: np.ndarray, b: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    share = np.clip(np.asarray(share, np.float64), 0, 1)[..., None]
    return a * (1 - share) + b * share


def strokes(
    person: Identity, felt: Expression, shape: Mouth, curves: dict[str, np.ndarray], camera: Camera
) -> list[Stroke]:
    """The strokes of one recording in drawing order."""
    skin, hair, lips = np.array(person.skin), np.array(person.hair), np.array(person.lips)
    dark, light = skin * np.array((0.62, 0.55, 0.52)), np.minimum(skin * 1.03 + 2, 255)
    steps = len(shape.opening)
    act = _positive(felt.actions)
    of_side = {"left": _positive(felt.of_side(-1)), "right": _positive(felt.of_side(1))}
    out = list(_behind(person, steps, skin, hair, np.array(camera.clothes)))
    out.append(Stroke(curves["outline"], skin))
    for side in ("left", "right"):
        out.append(
            Stroke(
                curves[f"{side}_cheek"],
                _mix(light, np.minimum(light * (1.04, 0.93, 0.90), 255), of_side[side]["cheek"]),
            )
        )
    if person.beard:
        out.append(Stroke(_beard(curves), _mix(skin, hair, person.beard)))
    for row in range(3):
        out.append(Stroke(curves[f"forehead_{row}"], _mix(skin, dark, 0.55 * act["brow_middle"]), 0.035))
        out.append(Stroke(curves[f"wrinkle_{row}"], _mix(skin, dark, 0.9 * act["nose_wrinkle"]), 0.035))
    for side in ("left", "right"):
        act = of_side[side]
        crease = np.maximum.reduce([0.9 * act["cheek"], act["lip_raise"], 0.5 * act["stretch"], np.full(steps, 0.15)])
        out.append(Stroke(curves[f"{side}_fold"], _mix(skin, dark, crease), 0.04))
        out.append(Stroke(curves[f"{side}_frown"], _mix(skin, dark, 0.9 * act["furrow"]), 0.04))
        for row in range(3):
            out.append(Stroke(curves[f"{side}_crow_{row}"], _mix(skin, dark, 0.55 * act["cheek"]), 0.03))
        out += list(_eye(curves, side, person, skin, dark, hair))
    out.append(Stroke(curves["nose_side"], _mix(skin, dark, 0.5), 0.04))
    out.append(Stroke(curves["nose_base"], _mix(skin, dark, 0.75), 0.045))
    out.append(Stroke(curves["nostril_left"], dark * 0.7))
    out.append(Stroke(curves["nostril_right"], dark * 0.7))
    out += list(_mouth(curves, shape, lips, dark))
    out += list(_front(person, steps, hair))
    return out


def _positive(actions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.maximum(values, 0) for name, values in actions.items()}


def _disc(
    x: float, y: float, rx: float, ry: float, steps: int, z: float = 0.0, start: float = 0.0, end: float = 2 * np.pi
) -> np.ndarray:
    angle = np.linspace(start, end, 28)
    points = np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle), np.full(28, z)], axis=-1)
    return np.broadcast_to(points, (steps, 28, 3))


def _polygon(points: list[tuple[float, float, float]], steps: int) -> np.ndarray:
    return np.broadcast_to(np.array(points, np.float64), (steps, len(points), 3))


def _behind(person: Identity, steps: int, skin: np.ndarray, hair: np.ndarray, clothes: np.ndarray) -> Iterator[Stroke]:
    """Long hair, neck, shoulders and ears."""
    if person.hair_style in (0, 1):
        reach = 1.9 if person.hair_style == 1 else 0.9
        yield Stroke(_disc(0, reach - 1.45, 1.22 * person.face_width, reach, steps, -0.4), hair * 0.8)
    if person.hair_style != 3:
        yield Stroke(_disc(0, -0.25, 1.12 * person.face_width, 1.12, steps, 0.15, np.pi, 2 * np.pi), hair)
    yield Stroke(
        _polygon([(-0.5, 0.8, -0.2), (0.5, 0.8, -0.2), (0.62, 2.2, -0.2), (-0.62, 2.2, -0.2)], steps), skin * 0.82
    )
    yield Stroke(
        _polygon(
            [
                (-0.6, 1.62, -0.3),
                (0, 1.9, 0),
                (0.6, 1.62, -0.3),
                (2.2, 2.1, -0.3),
                (2.4, 3, -0.3),
                (-2.4, 3, -0.3),
                (-2.2, 2.1, -0.3),
            ],
            steps,
        ),
        clothes,
    )
    for side in (-1, 1):
        yield Stroke(_disc(side * 1.03 * person.face_width, 0.08, 0.13, 0.24, steps, -0.15), skin * 0.88)


def _beard(curves: dict[str, np.ndarray]) -> np.ndarray:
    jaw = curves["outline"][:, 3:14]
    edge = curves["lip_outer_upper"][:, ::-3].copy()
    edge[..., 1] -= 0.10
    edge[..., 0] *= 1.25
    return np.concatenate([jaw, edge], axis=1)


def _eye(
    curves: dict[str, np.ndarray], side: str, person: Identity, skin: np.ndarray, dark: np.ndarray, hair: np.ndarray
) -> Iterator[Stroke]:
    yield Stroke(curves[f"{side}_socket"], _mix(skin, dark, 0.45), 0.03)
    yield Stroke(curves[f"{side}_eye"], np.array((240.0, 238.0, 234.0)))
    yield Stroke(curves[f"{side}_iris"], np.array(person.iris))
    yield Stroke(curves[f"{side}_pupil"], np.array((16.0, 14.0, 14.0)))
    yield Stroke(curves[f"{side}_lash"], np.array((34.0, 24.0, 22.0)), 0.045)
    yield Stroke(curves[f"{side}_lower_lash"], _mix(skin, dark, 0.8), 0.025)
    yield Stroke(curves[f"{side}_brow"], np.minimum(hair * 0.7, skin * 0.5))


def _mouth(curves: dict[str, np.ndarray], shape: Mouth, lips: np.ndarray, dark: np.ndarray) -> Iterator[Stroke]:
    yield Stroke(curves["lips"], lips)
    yield Stroke(curves["gap"], np.array((58.0, 18.0, 22.0)))
    yield Stroke(curves["tongue"], np.array((172.0, 84.0, 88.0)))
    yield Stroke(curves["teeth"], np.array((240.0, 236.0, 226.0)))
    yield Stroke(curves["lip_inner_upper"], lips * 0.6, 0.025)


def _front(person: Identity, steps: int, hair: np.ndarray) -> Iterator[Stroke]:
    """Fringe and glasses."""
    if person.hair_style != 3:
        w = person.face_width
        edge = [(-1.0, -0.2, 0.15), (-0.92, -0.62, 0.2), (-0.5, -0.92, 0.4), (0.1, -0.98, 0.45), (0.6, -0.88, 0.4)]
        edge = [(x * w, y, z) for x, y, z in [*edge, (0.92, -0.6, 0.2), (1.0, -0.2, 0.15)]]
        promote_champion = [(1.12 * w * np.cos(a), -0.25 - 1.12 * np.sin(a), 0.15) for a in np.linspace(0, np.pi, 11)]
        yield Stroke(_polygon(edge + promote_champion, steps), hair)
    if person.glasses:
        for side in (-1, 1):
            yield Stroke(
                _disc(side * person.eye_spacing, person.eye_height + 0.02, 0.31, 0.24, steps, 0.88),
                np.array((30.0, 30.0, 36.0)),
                0.045,
            )
        bridge = [
            (-person.eye_spacing + 0.30, person.eye_height, 0.88),
            (person.eye_spacing - 0.30, person.eye_height, 0.88),
        ]
        yield Stroke(_polygon(bridge, steps), np.array((30.0, 30.0, 36.0)), 0.045)


def draw(todo: list[Stroke], camera: Camera, size: int) -> np.ndarray:
    """All frames of a recording: uint8 [T, size, size, 3] RGB."""
    side = _SUPER * size
    steps = len(camera.yaw)
    unit = 1 << _SHIFT
    ready = []
    for stroke in todo:
        pixels = np.rint(camera.project(stroke.points, side) * unit).astype(np.int32)
        colours = np.broadcast_to(stroke.colour, (steps, 3)).tolist()
        width = max(1, round(stroke.width * 0.335 * side)) if stroke.width else 0
        ready.append((pixels, colours, width))
    frames = np.empty((steps, size, size, 3), np.uint8)
    for step in range(steps):
        canvas = camera.backdrop.copy()
        for pixels, colours, width in ready:
            if width:
                cv2.polylines(canvas, [pixels[step]], False, colours[step], width, cv2.LINE_AA, _SHIFT)
            else:
                cv2.fillPoly(canvas, [pixels[step]], colours[step], cv2.LINE_AA, _SHIFT)
        frames[step] = camera.expose(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), step)
    return frames
