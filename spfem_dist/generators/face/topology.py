"""What the points of each landmark order are: which stand still in the head, which are lips, eyes and brows."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Topology:
    """Point numbers of one landmark order.

    rigid: points that only the head's pose moves. upper, lower: the inner lips' three middle points. eyes: outlines of both
    eyes. mouth: outline of the inner lips. An outline begins at a corner; its upper half comes first, and each of its points has one
    below it in the lower half, which runs back. lips: the points of the upper lip and of the lower one, without corners and the inner
    outline. brows: of both brows, from left to right in the picture, from which the forehead is measured too. nose: its base, between the
    wings. chin: the lowest point of the jaw. outer_eyes: both outer corners.
    irises: of each eye its iris's centre and four points of its rim, in the order of `eyes`; empty where there are none.
    """

    name: str
    points: int
    rigid: tuple[int, ...]
    upper: tuple[int, ...]
    lower: tuple[int, ...]
    eyes: tuple[tuple[int, ...], tuple[int, ...]]
    mouth: tuple[int, ...]
    lips: tuple[tuple[int, ...], tuple[int, ...]]
    brows: tuple[int, ...]
    nose: tuple[int, ...]
    chin: int
    outer_eyes: tuple[int, int]
    irises: tuple[tuple[int, ...], ...] = ()

    @property
    def surface(self) -> tuple[int, ...]:
        """The points of the face's skin: all but those of the irises, which move beneath the lids."""
        beneath = {point for iris in self.irises for point in iris}
        return tuple(point for point in range(self.points) if point not in beneath)

    @staticmethod
    def opposite(outline: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The points of the outline's upper half without its corners, and those that lie below them."""
        half = len(outline) // 2
        return outline[1:half], outline[:half:-1]


IBUG68 = Topology(
    "ibug68",
    68,
    rigid=(36, 39, 42, 45, 27, 28, 29, 30, 31, 33, 35, 0, 16),
    upper=(61, 62, 63),
    lower=(67, 66, 65),
    eyes=(tuple(range(36, 42)), tuple(range(42, 48))),
    mouth=tuple(range(60, 68)),
    lips=(tuple(range(49, 54)), tuple(range(55, 60))),
    brows=tuple(range(17, 27)),
    nose=tuple(range(31, 36)),
    chin=8,
    outer_eyes=(36, 45),
)

MESH468 = Topology(
    "mesh468",
    468,
    rigid=(33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 127, 356),
    upper=(82, 13, 312),
    lower=(87, 14, 317),
    eyes=(
        (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
        (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
    ),
    mouth=(78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
    lips=(
        (
            *(185, 40, 39, 37, 0, 267, 269, 270, 409),
            *(184, 74, 73, 72, 11, 302, 303, 304, 408),
            *(183, 42, 41, 38, 12, 268, 271, 272, 407),
        ),
        (
            *(146, 91, 181, 84, 17, 314, 405, 321, 375),
            *(77, 90, 180, 85, 16, 315, 404, 320, 307),
            *(96, 89, 179, 86, 15, 316, 403, 319, 325),
        ),
    ),
    brows=(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    nose=(98, 2, 327),
    chin=152,
    outer_eyes=(33, 263),
)

MESH478 = replace(MESH468, name="mesh478", points=478, irises=(tuple(range(468, 473)), tuple(range(473, 478))))

_KNOWN = {"ibug68": IBUG68, "synthetic": IBUG68, "mesh468": MESH468, "mesh478": MESH478}


def topology(name: str) -> Topology:
    """The order called `name`, as an index of shards gives it. Raises ValueError for one that is not known."""
    if name not in _KNOWN:
        raise ValueError(f"unknown landmark order {name!r}; known: {', '.join(_KNOWN)}")
    return _KNOWN[name]
