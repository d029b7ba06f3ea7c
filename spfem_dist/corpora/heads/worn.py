"""What a head wears: hair as sheets over the skull, and glasses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from spfem_dist.corpora.heads.person import Person
from spfem_dist.corpora.heads.skin import ATLAS, HAIR, SKIN, TILE, TILES, hairline
from spfem_dist.head.asset import MATERIALS, Head

_COLUMNS, _ROWS = 72, 18
#: Of which the skull's meridians start, on the mean head.
_CENTRE = np.array((0.0, 0.45, -0.15))


@dataclass(frozen=True)
class Worn:
    """points: float32 [M, 3], on the neutral face. faces: int32 [G, 3], of these points. material: uint8 [G]. uv: float32 [M, 2], of the
    atlas. turning: float32 [M]. hides_ears: whether the ears lie beneath.
    """

    points: np.ndarray
    faces: np.ndarray
    material: np.ndarray
    uv: np.ndarray
    turning: np.ndarray
    hides_ears: bool


@dataclass(frozen=True)
class _Cut:
    """A way to wear hair. lift: thickness at the crown, at the front, at the sides. sheets: how many lie over each other. falls: height to
    which it hangs at the sides and behind, or None. fringe: how far it hangs over the forehead. bumps: unevenness, decimetres."""

    lift: tuple[float, float, float]
    sheets: int = 2
    falls: float | None = None
    fringe: float = 0.0
    bumps: float = 0.01


_CUTS = {
    "cropped": _Cut((0.035, 0.02, 0.02), sheets=3, bumps=0.004),
    "short": _Cut((0.12, 0.10, 0.05), sheets=3),
    "parted": _Cut((0.16, 0.13, 0.06), sheets=2, bumps=0.015),
    "swept": _Cut((0.20, 0.20, 0.07), sheets=2, bumps=0.02),
    "fringe": _Cut((0.16, 0.07, 0.08), sheets=3, fringe=0.30, bumps=0.012),
    "bob": _Cut((0.17, 0.12, 0.14), sheets=2, falls=-0.85, fringe=0.05, bumps=0.02),
    "long": _Cut((0.15, 0.10, 0.15), sheets=2, falls=-1.75, bumps=0.03),
    "tied": _Cut((0.07, 0.05, 0.04), sheets=2, bumps=0.008),
    "curly": _Cut((0.26, 0.20, 0.16), sheets=3, fringe=0.04, bumps=0.06),
    "afro": _Cut((0.50, 0.34, 0.40), sheets=3, bumps=0.05),
}


def worn(head: Head, person: Person, neutral: np.ndarray, rng: np.random.Generator) -> Worn:
    """Hair and glasses of `person`, whose neutral face is `neutral` [N, 3]."""
    parts: list[tuple[np.ndarray, np.ndarray, str, np.ndarray]] = []
    if person.style in _CUTS:
        parts += _hair(head, person, neutral, rng)
    if person.glasses:
        parts += _glasses(head, person, neutral)
    if not parts:
        empty = np.zeros((0, 3), np.float32)
        return Worn(empty, empty.astype(np.int32), np.zeros(0, np.uint8), empty[:, :2], empty[:, 0], False)
    points, faces, materials, uv, start = [], [], [], [], 0
    for place, face, material, texture in parts:
        points.append(place)
        faces.append(face + start)
        materials.append(np.full(len(face), MATERIALS.index(material)))
        uv.append(texture)
        start += len(place)
    every = np.concatenate(points).astype(np.float32)
    return Worn(
        every,
        np.concatenate(faces).astype(np.int32),
        np.concatenate(materials).astype(np.uint8),
        np.concatenate(uv).astype(np.float32),
        turning(every),
        person.style in _CUTS and _CUTS[person.style].falls is not None,
    )


def turning(points: np.ndarray) -> np.ndarray:
    """How much of a nod points [..., 3] near the head follow: 1 at skull and chin, 0 at the shoulders."""
    share = np.clip((points[..., 1] + 0.5 * points[..., 2] + 1.15) / 0.70, 0, 1)
    return (share * share * (3 - 2 * share)).astype(np.float32)


def _hair(head: Head, person: Person, neutral: np.ndarray, rng: np.random.Generator):
    """Sheets [(points, faces, material, uv)] over the skull, from the crown along meridians to where hair ends.

    They are laid on the mean head and carried to this one by the skin beneath them.
    """
    cut = _CUTS[person.style]
    # Hair does not follow the ears, but the skin from which they stand out.
    skin = np.setdiff1d(head.vertices_of("skin"), np.flatnonzero(head.ear & (np.abs(head.mean[:, 0]) > 0.72)))
    across = np.hypot(head.mean[skin, 0], head.mean[skin, 2] - _CENTRE[2])
    skin = skin[
        (head.turning[skin] > 0.75) | ((across < 0.75) & (head.mean[skin, 1] > -1.2))
    ]  # with the neck, not the shoulders
    rays = head.mean[skin] - _CENTRE
    radius = np.linalg.norm(rays, axis=1)
    tree = cKDTree(rays / radius[:, None])
    angle = np.linspace(-180, 180, _COLUMNS + 1)
    bumps = np.array([_ring(rng, 9) for _ in range(_ROWS)]) * cut.bumps
    swirl = _ring(rng, 3)
    sheets = []
    for sheet in range(cut.sheets):
        share = (sheet + 1) / cut.sheets
        place = np.stack(
            [_meridian(a, tree, radius, cut, person, share, swirl[i]) for i, a in enumerate(angle)], axis=1
        )
        outward = place - _CENTRE
        outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
        place += outward * (bumps * share)[..., None]
        place[:, -1] = place[:, 0]  # the seam
        # Each point rides on the skin below it.
        below = cKDTree(head.mean[skin]).query(place.reshape(-1, 3), k=6)
        near = 1 / (below[0] + 0.05) ** 2
        near /= near.sum(1, keepdims=True)
        carried = ((neutral[skin] - head.mean[skin])[below[1]] * near[..., None]).sum(1)
        points = place.reshape(-1, 3) + carried
        row, column = np.mgrid[:_ROWS, : _COLUMNS + 1]
        shift = sheet * 0.31
        u = ((column / _COLUMNS * 2.0 + shift) % 1.0).ravel()  # the strands' picture goes round twice
        wrap = np.where((column.ravel() * 2 % _COLUMNS == 0) & (column.ravel() > 0), 1.0, u)
        u = wrap if not shift else np.abs(((column / _COLUMNS * 2.0 + shift) % 2.0) - 1.0).ravel()
        v = (row / (_ROWS - 1)).ravel()
        uv = np.stack([(HAIR[0] + 2 + u * (SKIN - 4)) / ATLAS, (HAIR[1] + 2 + v * (SKIN - 4)) / ATLAS], axis=1)
        sheets.append((points, _grid(_ROWS, _COLUMNS + 1), "hair", uv))
    return sheets


def _meridian(
    angle: float, tree: cKDTree, radius: np.ndarray, cut: _Cut, person: Person, share: float, swirl: float
) -> np.ndarray:
    """Points [rows, 3] of one sheet from the crown to the end of the hair at `angle` degrees from the face's middle."""
    polar = np.radians(np.linspace(0.5, 150, 120))
    turn = np.radians(angle)
    rays = np.stack([np.sin(polar) * np.sin(turn), np.cos(polar), np.sin(polar) * np.cos(turn)], axis=1)
    distance, near = tree.query(rays, k=5)
    weight = 1 / (distance + 0.02) ** 2
    skull = (radius[near] * weight).sum(1) / weight.sum(1)
    face = np.clip(1 - abs(angle) / 55, 0, 1)
    crown, front, side = cut.lift
    down = np.clip(polar / np.radians(75), 0, 1)
    lift = crown + (front * face + side * (1 - face) - crown) * down
    if person.style in ("parted", "swept"):  # higher on one side of the parting
        lift = lift * (1 + 0.5 * np.tanh((angle / 45 - person.parting) * 2) * face * (1 if person.parting < 0 else -1))
    bare = float(hairline(np.array(angle), person.hairline)) + 0.02 * swirl
    end = bare - cut.fringe * np.clip(1 - abs(angle) / 36, 0, 1) ** 0.5 * (1 + 0.12 * swirl)
    if cut.falls is not None:
        hangs = np.clip((abs(angle) - 36) / 9, 0, 1)
        end = end + (cut.falls + 0.08 * swirl - end) * hangs
    elif abs(angle) > 36:  # short hair lies close where it ends: at sideburn, ear and nape
        height = (_CENTRE + rays * skull[:, None])[:, 1]
        lift = lift * (0.15 + 0.85 * np.clip((height - end) / 0.5, 0, 1))
    place = _CENTRE + rays * (skull + 0.008 + lift * share)[:, None]
    if cut.falls is not None or cut.fringe:
        # What hangs does not follow the skull back inwards, but falls straight from where it stands out most.
        across = np.hypot(place[:, 0], place[:, 2] - _CENTRE[2])
        draped = np.maximum.accumulate(across)
        hanging = np.clip((abs(angle) - 34) / 14, 0, 1) if cut.falls is not None else 0.0
        across = across + (draped - across) * max(hanging, 0.35 * (cut.fringe > 0.1))
        place[:, 0], place[:, 2] = across * np.sin(turn), _CENTRE[2] + across * np.cos(turn)
        if cut.falls is not None and place[-1, 1] > end:
            place = np.concatenate([place, place[-1:] * (1, 0, 1) + (0, end - 0.05, 0)])
    height = np.minimum.accumulate(place[:, 1])
    reach = np.append(0, np.cumsum(np.linalg.norm(np.diff(place, axis=0), axis=1)))
    last = np.interp(-end, -height, reach)
    wanted = np.linspace(0, last, _ROWS)
    return np.stack([np.interp(wanted, reach, values) for values in place.T], axis=1)


def _ring(rng: np.random.Generator, waves: int) -> np.ndarray:
    """A smooth random curve around the head, [_COLUMNS + 1], about unit variance, closed."""
    angle = np.linspace(0, 2 * np.pi, _COLUMNS + 1)
    a, b = rng.standard_normal((2, waves))
    order = np.arange(1, waves + 1)
    return (a[:, None] * np.sin(order[:, None] * angle) + b[:, None] * np.cos(order[:, None] * angle)).sum(0) / np.sqrt(
        waves
    )


def _grid(rows: int, columns: int) -> np.ndarray:
    """The triangles of a grid of points, counter-clockwise seen from outside the head."""
    at = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = at[:-1, :-1].ravel(), at[:-1, 1:].ravel(), at[1:, :-1].ravel(), at[1:, 1:].ravel()
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


def _glasses(head: Head, person: Person, neutral: np.ndarray):
    """Two rims, a bridge, and temples to the ears: [(points, faces, material, uv)]."""
    mesh = head.mesh478(neutral)
    left, right = mesh[468], mesh[473]
    apart = float(right[0] - left[0])
    front = float(max(mesh[6, 2], mesh[105, 2] - 0.02, mesh[334, 2] - 0.02)) + 0.05
    wide, high, square, wire = {1: (0.40, 0.32, 3.5, 0.022), 2: (0.37, 0.34, 2.0, 0.011), 3: (0.41, 0.28, 5.0, 0.015)}[
        person.glasses
    ]
    around = np.linspace(0, 2 * np.pi, 33)[:-1]
    cos, sin = np.cos(around), np.sin(around)
    shape = np.stack([np.sign(cos) * np.abs(cos) ** (2 / square), np.sign(sin) * np.abs(sin) ** (2 / square)], axis=1)
    parts = []
    for side, eye in ((-1, left), (1, right)):
        rim = np.zeros((33, 3))
        rim[:, :2] = eye[:2] + (0, -0.03) + np.append(shape, shape[:1], 0) * (wide * apart, high * apart)
        rim[:, 2] = front - 0.35 * (np.abs(rim[:, 0]) - 0.1).clip(0) ** 2
        parts.append(_tube(rim, wire))
        hinge = np.array((eye[0] + side * wide * apart, eye[1] + 0.05, front - 0.08))
        ear = neutral[head.ear & (np.sign(neutral[:, 0]) == side)]
        root = np.array((side * (np.abs(ear[:, 0]).min() + 0.05), eye[1] + 0.03, ear[:, 2].mean()))
        parts.append(_tube(np.stack([hinge, hinge * 0.6 + root * 0.4 + (side * 0.03, 0, 0), root]), wire))
    inner = [
        np.array((eye[0] - side * wide * apart * 0.98, eye[1] + 0.03, front)) for side, eye in ((-1, left), (1, right))
    ]
    middle = (inner[0] + inner[1]) / 2 + (0, 0.025, 0.02)
    parts.append(_tube(np.stack([inner[0], middle, inner[1]]), wire))
    return parts


def _tube(line: np.ndarray, radius: float):
    """A square tube around a line [P, 3]: (points, faces, material, uv)."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    up = np.where(np.abs(along[:, 2:]) > 0.8, (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    side = np.cross(along, up)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    over = np.cross(side, along)
    ring = np.stack([side + over, over - side, -side - over, side - over, side + over], axis=1) * (radius * 0.8)
    points = (line[:, None] + ring).reshape(-1, 3)
    x, y = TILES["frame"]
    uv = np.tile(((x + TILE / 2) / ATLAS, (y + TILE / 2) / ATLAS), (len(points), 1))
    return points, _grid(len(line), 5), "frame", uv
