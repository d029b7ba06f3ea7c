"""Readings of face landmarks that do not depend on which landmarks they are."""

from __future__ import annotations

import numpy as np

#: For each topology: inner lip (upper, lower), corners of the mouth, outer corners of the eyes, and the lips' outline.
#: mesh468 is MediaPipe's order, mesh478 the same with five points of each iris behind, ibug68 the 300-W order (also the synthetic corpus's).
_POINTS: dict[str, dict[str, tuple[int, ...]]] = {
    "mesh468": {
        "upper": (82, 13, 312),
        "lower": (87, 14, 317),
        "corners": (61, 291),
        "eyes": (33, 263),
        "lips": (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),
    },
    "ibug68": {
        "upper": (61, 62, 63),
        "lower": (67, 66, 65),
        "corners": (48, 54),
        "eyes": (36, 45),
        "lips": tuple(range(48, 60)),
    },
}
_POINTS["mesh478"] = _POINTS["mesh468"]
TOPOLOGIES = tuple(_POINTS)

#: The points of the mesh that lie where each iBUG point does; two are averaged. iBUG counts from the left of the picture:
#: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, outer lips 48-59, inner lips 60-67.
_IBUG68: tuple[tuple[int, ...], ...] = (
    *((127,), (234,), (93,), (132, 58), (58, 172), (136,), (150,), (176,), (152,)),
    *((400,), (379,), (365,), (397, 288), (361, 288), (323,), (454,), (356,)),
    *((70,), (63,), (105,), (66,), (107,), (336,), (296,), (334,), (293,), (300,)),
    *((168, 6), (197, 195), (5,), (4,), (75,), (97,), (2,), (326,), (305,)),
    *((33,), (160,), (158,), (133,), (153,), (144,), (362,), (385,), (387,), (263,), (373,), (380,)),
    *((61,), (39,), (37,), (0,), (267,), (269,), (291,), (321,), (314,), (17,), (84,), (91,)),
    *((78,), (82,), (13,), (312,), (308,), (317,), (14,), (87,)),
)


def converted(landmarks: np.ndarray, have: str, want: str) -> np.ndarray | None:
    """Landmarks [..., L, 2] of topology `have` in the topology `want`, in the same unit and type; None where there is no way.

    iBUG's jaw is the visible outline and the mesh's lies on the head, so the jaw of a turned face differs.
    """
    _checked(landmarks, have)
    if have == want:
        return landmarks
    if (have, want) == ("mesh478", "mesh468"):
        return landmarks[..., :468, :]
    if not have.startswith("mesh") or want != "ibug68":
        return None
    first, second = ([points[at] for points in _IBUG68] for at in (0, -1))
    return ((landmarks[..., first, :] + landmarks[..., second, :]) / 2).astype(landmarks.dtype)


def mouth_opening(landmarks: np.ndarray, topology: str) -> np.ndarray:
    """Distance between the inner lips in outer-eye distances, [...], of landmarks [..., L, 2] in any unit.

    Measured between the lips' three middle points and divided by the distance of the outer eye corners, so that neither
    the crop's size nor the head's roll changes it. 0 is closed, 0.6 about wide open; NaN where the landmarks are NaN.
    """
    points = _checked(landmarks, topology)
    gaps = np.linalg.norm(points["lower"] - points["upper"], axis=-1).mean(-1)
    return gaps / np.linalg.norm(points["eyes"][..., 1, :] - points["eyes"][..., 0, :], axis=-1)


def mouth_region(landmarks: np.ndarray, topology: str, margin: float = 0.25) -> np.ndarray:
    """The box around the lips, (x0, y0, x1, y1) as [..., 4] in the landmarks' unit, grown by `margin` of its width.

    The box is not cut at the picture's edge.
    """
    lips = _checked(landmarks, topology)["lips"]
    low, high = lips.min(-2), lips.max(-2)
    grow = margin * (high[..., :1] - low[..., :1])
    return np.concatenate([low - grow, high + grow], axis=-1)


def _checked(landmarks: np.ndarray, topology: str) -> dict[str, np.ndarray]:
    if topology not in _POINTS:
        raise ValueError(f"unknown landmark topology {topology!r}; known: {', '.join(TOPOLOGIES)}")
    count = int(topology.lstrip("meshibug"))
    if landmarks.shape[-2:] != (count, 2):
        raise ValueError(f"{topology} landmarks must have the shape [..., {count}, 2], found {list(landmarks.shape)}")
    landmarks = np.asarray(landmarks, dtype=np.float64)
    return {name: landmarks[..., list(rows), :] for name, rows in _POINTS[topology].items()}
