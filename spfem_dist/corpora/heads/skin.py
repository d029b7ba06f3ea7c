"""What a head looks like: one atlas of colours and gloss, one of holes, and the folds that units draw. All procedural.

The atlas has the skin's map in its upper left quarter, hair in the upper right one, and small tiles below. Colours are kept as
square roots of linear light, which spends 8 bits about as the eye does and costs the shading one product.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from spfem_dist.corpora.heads.person import Person
from spfem_dist.head.asset import MAP_FOOT, MAP_TOP, Head, map_angle

ATLAS, SKIN, TILE = 1024, 512, 128
#: Upper left corners of the tiles, in texels.
TILES = {
    "eye": (0, 512),
    "teeth": (128, 512),
    "tongue": (384, 512),
    "mouth": (512, 512),
    "lash": (640, 512),
    "frame": (768, 512),
}
HAIR = (512, 0)

_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_GAP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
_BROWS = (((70, 63, 105, 66, 107), (46, 53, 52, 65, 55)), ((300, 293, 334, 296, 336), (276, 283, 282, 295, 285)))
_EYES = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
)
_JAW = (127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356)


@dataclass(frozen=True)
class Surface:
    """atlas: uint8 [A, A, 4], roots of linear RGB, and gloss. alpha: uint8 [A, A], 0 where hair and lashes have gaps."""

    atlas: np.ndarray
    alpha: np.ndarray


def surface(head: Head, person: Person, rng: np.random.Generator) -> Surface:
    """Paint `person`. Draws from `rng` in a fixed order."""
    atlas = np.zeros((ATLAS, ATLAS, 4), np.float32)
    alpha = np.full((ATLAS, ATLAS), 255, np.uint8)
    place = head.mesh478(head.uv) * SKIN
    atlas[:SKIN, :SKIN] = _skin(place, person, rng)
    strands, holes = _strands(person, rng)
    atlas[: HAIR[1] + SKIN, HAIR[0] : HAIR[0] + SKIN] = strands
    alpha[: HAIR[1] + SKIN, HAIR[0] : HAIR[0] + SKIN] = holes
    tiles = {
        "eye": eyeball(person, rng),
        "teeth": _teeth(person, rng),
        "tongue": _plain((0.36, 0.13, 0.12), rng, 0.7),
        "mouth": _plain((0.17, 0.045, 0.045), rng, 0.4),
        "lash": _plain(0.25 * np.array(person.brow), rng, 0.1),
        "frame": _plain(person.frame, rng, 1.0),
    }
    for name, tile in tiles.items():
        x, y = TILES[name]
        atlas[y : y + TILE, x : x + TILE] = tile
    x, y = TILES["lash"]
    alpha[y : y + TILE, x : x + TILE] = _lash_holes(rng)
    roots = np.sqrt(np.clip(atlas, 0, 1))
    roots[..., 3] = np.clip(atlas[..., 3], 0, 1)
    return Surface((roots * 255 + 0.5).astype(np.uint8), alpha)


def noise(rng: np.random.Generator, side: int, *cells: int) -> np.ndarray:
    """A smooth random picture [side, side], about unit variance: coarse grids of `cells` a side, enlarged and added."""
    total = np.zeros((side, side), np.float32)
    for count in cells:
        grid = rng.standard_normal((count, count)).astype(np.float32)
        total += cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
    return total / np.float32(np.sqrt(0.6 * len(cells)))


def _polygon(points: np.ndarray, blur: float, side: int = SKIN) -> np.ndarray:
    """1 inside the polygon, 0 outside, float32 [side, side], with an edge of about `blur` texels."""
    mask = np.zeros((side, side), np.float32)
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 1.0, lineType=cv2.LINE_AA, shift=4)
    return cv2.GaussianBlur(mask, (0, 0), blur) if blur else mask


def strokes(lines: Iterable[tuple[np.ndarray, float]], width: int = 1, side: int = SKIN) -> np.ndarray:
    """Polylines [P, 2] with strengths 0 to 1, float32 [side, side]: the last one lies on top. 8 bits, as OpenCV smooths no other lines."""
    canvas = np.zeros((side, side), np.uint8)
    for line, strength in lines:
        points = [np.rint(np.asarray(line) * 16).astype(np.int32)]
        cv2.polylines(canvas, points, False, round(255 * min(strength, 1.0)), width, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def _dots(places: np.ndarray, sizes: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Discs, float32 [SKIN, SKIN]."""
    canvas = np.zeros((SKIN, SKIN), np.uint8)
    for place, size, strength in zip(places, sizes, strengths, strict=True):
        centre = tuple(np.rint(place * 16).astype(int).tolist())
        cv2.circle(canvas, centre, int(size * 16), round(255 * float(strength)), -1, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def _spot(centre: np.ndarray, wide: float, high: float, side: int = SKIN) -> np.ndarray:
    """A soft ellipse of height 1, half axes in texels."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return np.exp(-0.5 * (((x - centre[0]) / wide) ** 2 + ((y - centre[1]) / high) ** 2)).astype(np.float32)


def _mix(picture: np.ndarray, colour: np.ndarray, share: np.ndarray) -> None:
    """Put `colour` [3] over picture [..., 3] by `share`, in place."""
    picture += (np.asarray(colour, np.float32) - picture) * share[..., None]


def _skin(place: np.ndarray, person: Person, rng: np.random.Generator) -> np.ndarray:
    tone = np.array(person.skin, np.float32)
    skin = np.broadcast_to(tone, (SKIN, SKIN, 3)).copy()
    gloss = np.full((SKIN, SKIN), 0.35, np.float32)
    eyes = [place[list(rim)].mean(0) for rim in _EYES]
    apart = float(np.linalg.norm(eyes[1] - eyes[0]))
    nose, chin = place[4], place[152]

    # Blood and pigment: slow blotches, red where skin is thin, dark around the eyes.
    skin *= 1 + 0.035 * noise(rng, SKIN, 12, 30)[..., None]
    redness = 0.2 * noise(rng, SKIN, 9, 20)
    for spot, wide, high, strength in (
        (nose, 0.30, 0.26, 0.7),
        (place[50], 0.38, 0.30, 0.8),
        (place[280], 0.38, 0.30, 0.8),
        (chin - (0, 0.15 * apart), 0.35, 0.22, 0.35),
        (place[9], 0.45, 0.25, 0.2),
    ):
        redness += strength * _spot(spot, wide * apart, high * apart)
    flush = person.flush * np.clip(redness, -0.4, 1.4)[..., None]
    skin *= 1 + flush * np.array((0.10, -0.16, -0.13), np.float32)
    for eye, below in zip(eyes, (place[119], place[348]), strict=True):
        skin *= 1 - (0.10 * _spot(eye, 0.42 * apart, 0.22 * apart))[..., None] * np.array((0.8, 1.0, 0.9), np.float32)
        bag = _spot(0.35 * eye + 0.65 * below, 0.26 * apart, 0.10 * apart)[..., None]
        skin *= 1 - (0.06 + 0.12 * person.age) * bag * np.array((0.7, 1.0, 0.8), np.float32)
    skin *= 1 + 0.025 * noise(rng, SKIN, 170)[..., None]  # pores
    _freckles(skin, place, person, apart, rng)

    # Shine: forehead, nose, cheek bones; lips most of all.
    for spot, wide, high, strength in (
        (nose - (0, 0.18 * apart), 0.10, 0.22, 0.5),
        (place[151], 0.5, 0.3, 0.3),
        (place[50], 0.3, 0.2, 0.2),
        (place[280], 0.3, 0.2, 0.2),
    ):
        gloss += strength * _spot(spot, wide * apart, high * apart)
    gloss *= person.oil * (1 + 0.12 * noise(rng, SKIN, 90))

    _stubble(skin, place, person, apart, rng)
    _lips(skin, gloss, place, person, rng)
    _lids(skin, place, person)
    _brows(skin, place, person, rng)
    _cover(skin, gloss, place, person, rng)
    return np.concatenate([np.maximum(skin, 0.002), gloss[..., None]], axis=-1)


def _freckles(skin: np.ndarray, place: np.ndarray, person: Person, apart: float, rng: np.random.Generator) -> None:
    """Freckles over nose and cheeks, and a few moles anywhere."""
    middle, reach = place[195], np.array((0.75, 0.35)) * apart
    spots, sizes, depths = (
        middle + reach * rng.standard_normal((260, 2)),
        rng.uniform(0.5, 1.5, 260),
        rng.uniform(0.2, 0.7, 260),
    )
    count, moles = int(260 * person.freckles), int(rng.integers(0, 5))
    marks = _dots(spots[:count], sizes[:count], depths[:count])
    spots, sizes = rng.uniform(0.25, 0.75, (5, 2)) * SKIN * (1, 0.75), rng.uniform(0.8, 1.6, 5)
    marks += 1.4 * _dots(spots[:moles], sizes[:moles], np.ones(moles))
    marks = cv2.GaussianBlur(marks, (0, 0), 0.6)
    skin *= 1 - marks[..., None] * np.array((0.30, 0.42, 0.50), np.float32)


def _lips(skin: np.ndarray, gloss: np.ndarray, place: np.ndarray, person: Person, rng: np.random.Generator) -> None:
    shape = lip_region(place)
    middle = place[list(_LIPS)].mean(0)
    lines = 1 + 0.10 * cv2.resize(rng.standard_normal((24, SKIN)).astype(np.float32), (SKIN, SKIN))
    inside = cv2.GaussianBlur(_polygon(place[list(_GAP)], 0), (0, 0), 3.5)
    colour = np.array(person.lips, np.float32) * lines[..., None] * (1 - 0.25 * inside[..., None])
    skin += (colour - skin) * (0.92 * shape)[..., None]
    # The rim catches light above the upper lip and throws a shadow below the lower one.
    below = _spot(middle + np.array((0, 26)), 22, 6) * (1 - shape)
    skin *= 1 - 0.14 * below[..., None]
    gloss += (person.lip_gloss - gloss) * shape


def lip_region(place: np.ndarray) -> np.ndarray:
    """Where the lips are on the skin's map, for mesh points [478, 2] in its texels: float32 [SKIN, SKIN], 0..1, soft."""
    return _polygon(place[list(_LIPS)], 1.6)


def worn_region(person: Person) -> np.ndarray:
    """Where clothes cover the skin's map: float [SKIN, SKIN], 0..1."""
    row, column = np.mgrid[:SKIN, :SKIN].astype(np.float32) / SKIN
    angle, height = map_angle(column), MAP_TOP - row * (MAP_TOP - MAP_FOOT)
    collar = person.collar + 0.10 * np.cos(np.radians(angle * 1.2)) * person.neckline
    return 1 / (1 + np.exp(np.clip((height - collar) / 0.008, -60, 60)))


def _lids(skin: np.ndarray, place: np.ndarray, person: Person) -> None:
    """The lash line, and shadow (made up, or not) on the upper lid."""
    for rim, brow in zip(_EYES, _BROWS, strict=True):
        outline = place[list(rim)]
        upper = outline[:9]
        line = np.maximum(strokes([(upper, 1.0)], 2), strokes([(outline[8:], 0.35)]))
        _mix(skin, 0.12 * np.array(person.brow), person.liner * cv2.GaussianBlur(line, (0, 0), 0.7))
        lid = np.concatenate([upper, 0.55 * upper[::-1] + 0.45 * place[list(brow[1])].mean(0)])
        skin *= 1 - person.shadow * _polygon(lid, 4)[..., None] * np.array((0.5, 0.7, 0.5), np.float32)
        wet = _polygon(outline, 0.8)
        _mix(skin, np.array((0.55, 0.22, 0.20)) * (0.4 + np.array(person.skin)), 0.5 * wet)


def _brows(skin: np.ndarray, place: np.ndarray, person: Person, rng: np.random.Generator) -> None:
    """Single hairs, from the lower edge upwards and outwards."""
    shade = np.zeros((SKIN, SKIN), np.float32)
    hairs: list[tuple[np.ndarray, float]] = []
    for side, (upper, lower) in zip((-1, 1), _BROWS, strict=True):
        top, foot = place[list(upper)], place[list(lower)]
        middle = (top + foot) / 2
        top, foot = middle + (top - middle) * person.brow_width, middle + (foot - middle) * person.brow_width
        body = _polygon(np.concatenate([top, foot[::-1]]), 2.0)
        shade = np.maximum(shade, 0.5 * person.brow_density * body)
        for along, start, length, lean, depth in rng.uniform(0, 1, (170, 5)):
            k = along * 3.999
            low, share = int(k), k - int(k)
            a, b = (points[low] * (1 - share) + points[low + 1] * share for points in (foot, top))
            # Hairs stand up at the inner end (along 1) and lie flat at the outer one.
            flat = 1 - along
            root = a + (b - a) * start * 0.9
            rise = (0.25 + 0.75 * along) * (1 - 0.9 * flat * start) - 0.2 * (lean - 0.5)
            tip = root + (6 + 6 * length) * np.array((side * (0.35 + 0.65 * flat), -rise))
            hairs.append((np.stack([root, tip]), (0.35 + 0.6 * depth) * person.brow_density))
    drawn = np.maximum(shade, cv2.GaussianBlur(strokes(hairs), (0, 0), 0.5))
    _mix(skin, 0.6 * np.array(person.brow), np.clip(1.15 * drawn, 0, 0.97))


def beard_region(place: np.ndarray, apart: float) -> np.ndarray:
    """Where a beard grows: float32 [SKIN, SKIN], 0..1, soft."""
    jaw = place[list(_JAW)]
    lower = jaw[2:-2]
    throat = np.concatenate([lower, lower[::-1] + np.array((0, 0.55)) * apart])
    face = np.concatenate([lower, place[[436, 426]], place[[2]], place[[206, 216]]])
    region = np.maximum(_polygon(face, 5), 0.8 * _polygon(throat, 9))
    bare = _polygon(place[list(_LIPS)], 2.5)
    under = 0.5 * _spot(place[17] + (0, 0.10 * apart), 0.10 * apart, 0.05 * apart)
    return np.clip(region - bare - under, 0, 1)


def _stubble(skin: np.ndarray, place: np.ndarray, person: Person, apart: float, rng: np.random.Generator) -> None:
    grain = rng.standard_normal((SKIN, SKIN)).astype(np.float32)
    ragged = noise(rng, SKIN, 60)
    if person.beard <= 0:
        return
    region = beard_region(place, apart)
    shadow = np.clip(region * (1 + 0.15 * ragged), 0, 1)
    speckle = np.clip(0.72 + 0.30 * cv2.GaussianBlur(grain, (0, 0), 0.7), 0, 1)
    _mix(
        skin,
        0.55 * np.array(person.brow) + 0.08 * np.array(person.skin),
        np.clip(shadow * person.beard * speckle, 0, 0.93),
    )


def hairline(angle: np.ndarray, high: float) -> np.ndarray:
    """Height (decimetres above the pivot) below which skin is bare, at `angle` degrees from the middle of the face."""
    a = np.abs(angle)
    front = high - 0.10 * np.minimum(a / 30, 1) ** 2
    # Recess at the temple, sideburn before the ear (58 to 86 degrees), over the ear, down behind it, nape.
    temple = np.interp(
        a, [0, 22, 30, 36, 41, 45, 54, 58, 86, 94, 180], [0, 0, 0.06, 0.18, 0.50, 0.85, 0.90, 0.45, 0.50, 1.10, 1.30]
    )
    return front - temple


def _cover(skin: np.ndarray, gloss: np.ndarray, place: np.ndarray, person: Person, rng: np.random.Generator) -> None:
    """The scalp under the hair, and clothes below the collar."""
    row, column = np.mgrid[:SKIN, :SKIN].astype(np.float32) / SKIN
    angle, height = map_angle(column), MAP_TOP - row * (MAP_TOP - MAP_FOOT)
    ragged = 0.012 * noise(rng, SKIN, 80) + 0.02 * noise(rng, SKIN, 25)
    if person.scalp > 0:
        grown = 1 / (1 + np.exp(-(height + ragged - hairline(angle, person.hairline)) / 0.03))
        _mix(skin, 0.5 * np.array(person.hair), (grown * person.scalp).astype(np.float32))
        gloss *= 1 - 0.7 * grown * person.scalp
    worn = worn_region(person)
    weave = 1 + 0.05 * noise(rng, SKIN, 128) + 0.06 * noise(rng, SKIN, 14)
    skin += (np.array(person.clothes, np.float32) * weave[..., None] - skin) * worn[..., None].astype(np.float32)
    gloss *= 1 - 0.95 * worn


def _strands(person: Person, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hair: colour and gloss [SKIN, SKIN, 4], strands along v; and what is left of it, uint8 [SKIN, SKIN]."""
    fine = cv2.resize(rng.standard_normal((6, SKIN)).astype(np.float32), (SKIN, SKIN), interpolation=cv2.INTER_CUBIC)
    thick = cv2.resize(rng.standard_normal((5, 90)).astype(np.float32), (SKIN, SKIN), interpolation=cv2.INTER_CUBIC)
    if person.curl > 0:
        bumps = noise(rng, SKIN, 48, 90)
        fine, thick = (
            (1 - person.curl) * fine + person.curl * bumps,
            (1 - person.curl) * thick + person.curl * noise(rng, SKIN, 36),
        )
    shade = np.clip(1 + 0.22 * fine + 0.22 * thick, 0.25, 2)
    colour = np.array(person.hair, np.float32) * shade[..., None]
    grey = np.clip(person.grey + 0.35 * fine, 0, 1) * person.grey
    _mix(colour, np.array((0.42, 0.41, 0.40)), grey.astype(np.float32))
    gloss = np.clip(0.5 + 0.35 * thick + 0.2 * fine, 0, 1)
    # Towards the ends (v grows along a strand) and towards both edges of the sheet hair thins out.
    row, column = np.mgrid[:SKIN, :SKIN].astype(np.float32) / SKIN
    end = np.clip((1 - row) / 0.10, 0, 1)
    edge = np.clip(np.minimum(column, 1 - column) / 0.03, 0, 1)
    density = 0.75 + 0.45 * fine + 0.35 * thick
    holes = ((density + 2.2 * np.minimum(end, edge) - 1.7) > 0).astype(np.uint8) * 255
    return np.concatenate([colour, gloss[..., None]], axis=-1), holes


def eyeball(person: Person, rng: np.random.Generator) -> np.ndarray:
    """The eyeball seen along its axis; the tile's side is the ball's diameter."""
    row, column = (np.mgrid[:TILE, :TILE].astype(np.float32) + 0.5) / (TILE / 2) - 1
    radius, angle = np.hypot(row, column), np.arctan2(row, column)
    white = np.broadcast_to(np.array((0.72, 0.68, 0.66), np.float32), (TILE, TILE, 3)) * (
        1 - 0.25 * np.clip(radius - 0.5, 0, 1)[..., None]
    )
    veins = np.clip(noise(rng, TILE, 22), 0, 2) * np.clip(radius - 0.45, 0, 1)
    eye = white * (1 - veins[..., None] * np.array((0.05, 0.35, 0.35), np.float32))
    spokes = np.interp(
        np.degrees(angle) % 360, np.linspace(0, 360, 91), np.append(s := rng.uniform(0.6, 1.4, 90), s[0])
    ).astype(np.float32)
    inner = np.clip((radius - 0.13) / 0.25, 0, 1)
    iris = np.array(person.iris, np.float32) * spokes[..., None] * (1.25 - 0.55 * inner)[..., None]
    ring = 1 / (1 + np.exp((radius - IRIS) / 0.018))
    eye = eye + (iris * (1 - 0.6 * np.exp(-(((radius - IRIS) / 0.05) ** 2)))[..., None] - eye) * ring[..., None]
    _mix(eye, np.array((0.006, 0.005, 0.005)), (1 / (1 + np.exp((radius - person.pupil) / 0.02))).astype(np.float32))
    gloss = np.full((TILE, TILE, 1), 1.0, np.float32)
    return np.concatenate([eye, gloss], axis=-1).astype(np.float32)


#: The iris's radius in the eyeball's (5.9 mm; MakeHuman's eyeballs are as large as 15).
IRIS = 0.39


def _teeth(person: Person, rng: np.random.Generator) -> np.ndarray:
    """Two arches of teeth along u: the upper one from its gum (v 0) to the edge (v .5), the lower one from there to its gum."""
    row, column = (np.mgrid[:TILE, :TILE].astype(np.float32) + 0.5) / TILE
    widths = np.array([1.1, 1.1, 0.9, 0.9, 0.95, 0.85, 1.1, 1.1, 0.85, 0.95, 0.9, 0.9, 1.1, 1.1])
    edges = np.concatenate([[0], np.cumsum(widths)]) / widths.sum()
    gap = np.min(np.abs(column[..., None] - edges), axis=-1)
    tints = rng.normal(1, 0.025, (2, len(widths)))
    tooth = np.clip(np.searchsorted(edges, column) - 1, 0, len(widths) - 1)
    lower = (row > 0.5).astype(int)
    colour = (
        np.array(person.teeth, np.float32)
        * (tints[lower, tooth] * (1 - 0.4 * np.exp(-((gap / 0.007) ** 2))))[..., None]
    )
    height = np.where(lower, 1 - row, row) * 2
    gum = 1 / (1 + np.exp((height - 0.22 + 0.06 * np.cos(np.pi * np.clip(gap * 28, 0, 1))) / 0.03))
    _mix(colour, np.array((0.45, 0.17, 0.16)), gum.astype(np.float32))
    return np.concatenate([colour, np.full((TILE, TILE, 1), 0.8)], axis=-1).astype(np.float32)


def _plain(colour, rng: np.random.Generator, gloss: float) -> np.ndarray:
    tile = np.array(colour, np.float32) * (1 + 0.08 * noise(rng, TILE, 16))[..., None]
    return np.concatenate([tile, np.full((TILE, TILE, 1), gloss, np.float32)], axis=-1).astype(np.float32)


def _lash_holes(rng: np.random.Generator) -> np.ndarray:
    """Lashes along v: roots at 0 stand close, tips at 1 apart."""
    row, column = (np.mgrid[:TILE, :TILE].astype(np.float32) + 0.5) / TILE
    comb = 0.5 + 0.5 * np.cos(2 * np.pi * 24 * column + 1.5 * noise(rng, TILE, 12))
    return ((comb > 0.45 + 0.55 * row) * 255).astype(np.uint8)
