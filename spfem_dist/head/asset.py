"""The head that comes with the package: vertices, identities, units and landmarks, read from `head.npz`.

Axes: x to the right of the picture, y up, z to the camera; the origin is where a head nods. Unit: decimetre, as in MakeHuman.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numba import njit

#: What a face of the mesh is made of; rows of the shading's table. hair, frame and bead are made by `corpora.heads`.
MATERIALS = ("skin", "mouth", "socket", "eye", "teeth", "tongue", "lash", "hair", "frame")
#: What the skin's map covers: degrees to each side of the middle, and heights from its upper to its lower edge.
MAP_ANGLE, MAP_TOP, MAP_FOOT = 115.0, 1.60, -2.00
#: Where the axis of the map stands.
_AXIS = 0.15
FORMAT = "spfem-head/1"


@dataclass(frozen=True)
class Head:
    """The mean head and what varies of it; N vertices, F faces, K components of identity, U units.

    mean: float32 [N, 3]. basis: float32 [K, N, 3], displacements at one standard deviation. people: float32 [M, K], weights of sampled
    adults. about: name -> float32 [M], of each: age (2/3 is 25 years old, 1 is 90), gender (0 male, 1 female), weight, african, asian and
    caucasian (a share each). units: float32 [U, N, 3], displacements at weight 1, on the mean head. names: of the units, as ARKit has them.
    faces: int32 [F, 3]. material: uint8 [F], rows of MATERIALS. uv: float32 [N, 2] in 0..1: of the skin on its map (u from the
    left of the picture, v downwards), of eyes the direction, of other parts their own layout. occlusion: float32 [N], open share of the sky.
    ear: bool [N]. turning: float32 [N], 0 (shoulders) to 1 (skull): how much of the head's rotation a vertex follows.
    mesh_face, mesh_share: int32 [478] and float32 [478, 3]: on which face MediaPipe's points lie, and where. ibug: int16 [68, 2], the two points of the
    mesh between which each iBUG point lies.
    """

    mean: np.ndarray
    basis: np.ndarray
    people: np.ndarray
    about: dict[str, np.ndarray]
    units: np.ndarray
    names: tuple[str, ...]
    faces: np.ndarray
    material: np.ndarray
    uv: np.ndarray
    occlusion: np.ndarray
    ear: np.ndarray
    turning: np.ndarray
    mesh_face: np.ndarray
    mesh_share: np.ndarray
    ibug: np.ndarray

    def shape(self, identity: np.ndarray) -> np.ndarray:
        """The neutral face of `identity` [K], in standard deviations: float32 [N, 3]."""
        return _weighted(self.mean, self.basis, identity.astype(np.float32)[None])[0]

    def moved(self, neutral: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The faces float32 [T, N, 3] of a neutral one [N, 3] under unit weights [T, U]."""
        return _weighted(neutral, self.units, weights.astype(np.float32))

    def of_material(self, *names: str) -> np.ndarray:
        """Which faces are of one of these materials: bool [F]."""
        return np.isin(self.material, [MATERIALS.index(name) for name in names])

    def vertices_of(self, *names: str) -> np.ndarray:
        """The vertices of the faces of these materials, sorted."""
        return np.unique(self.faces[self.of_material(*names)])

    def mesh478(self, points: np.ndarray) -> np.ndarray:
        """MediaPipe's 478 points of vertices [..., N, D]: [..., 478, D]."""
        corners = points[..., self.faces[self.mesh_face], :]
        return (corners * self.mesh_share[:, :, None]).sum(-2)

    def ibug68(self, mesh: np.ndarray) -> np.ndarray:
        """The 68 points of the 300-W mark-up of mesh points [..., 478, D]: [..., 68, D]."""
        return mesh[..., self.ibug, :].mean(-2)


@njit(cache=True, nogil=True)
def _weighted(rest, shapes, weights):
    """rest [N, 3] and the sum of weights [T, K] times shapes [K, N, 3]: float32 [T, N, 3]. A loop: BLAS sums in an order of its own."""
    out = np.empty((weights.shape[0], rest.shape[0], 3), np.float32)
    for t in range(weights.shape[0]):
        for n in range(rest.shape[0]):
            for k in range(3):
                out[t, n, k] = rest[n, k]
        for s in range(shapes.shape[0]):
            w = weights[t, s]
            if w == 0:
                continue
            for n in range(rest.shape[0]):
                for k in range(3):
                    out[t, n, k] += w * shapes[s, n, k]
    return out


def map_column(angle: np.ndarray) -> np.ndarray:
    """u of angles from the face's middle, degrees: the face itself gets 1.6 times the room that an even map would give it."""
    share = np.clip(angle / MAP_ANGLE, -1, 1)
    return 0.5 + 0.5 * (1.6 * share - 0.6 * share**3)


def map_angle(u: np.ndarray) -> np.ndarray:
    """Degrees from the face's middle at columns u: the inverse of `map_column`."""
    every = np.linspace(-MAP_ANGLE, MAP_ANGLE, 1025)
    return np.interp(u, map_column(every), every)


def skin_map(points: np.ndarray) -> np.ndarray:
    """Where vertices [N, 3] of the mean head lie on the skin's map, float32 [N, 2]: a cylinder, unrolled."""
    u = map_column(np.degrees(np.arctan2(points[:, 0], points[:, 2] + _AXIS)))
    v = (MAP_TOP - points[:, 1]) / (MAP_TOP - MAP_FOOT)
    return np.clip(np.stack([u, v], axis=1), 0.003, 0.997).astype(np.float32)


def packed(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of numbers as 16-bit integers and one scale for each of the first axis's rows."""
    rows = values.reshape(len(values), -1) if values.ndim > 2 else values.reshape(1, -1)
    scale = np.maximum(np.abs(rows).max(1), 1e-12) / 32767
    whole = np.rint(rows / scale[:, None]).astype(np.int16).reshape(values.shape)
    return {name: whole, f"{name}_scale": scale.astype(np.float32)}


def _unpacked(file: Any, name: str) -> np.ndarray:
    whole, scale = file[name], file[f"{name}_scale"]
    shape = (-1,) + (1,) * (whole.ndim - 1) if whole.ndim > 2 else (1,)
    return np.ascontiguousarray(whole.astype(np.float32) * scale.reshape(shape))


@dataclass(frozen=True)
class Expected:
    """What units to expect of people who talk and show emotions, in the order of `Head.names`; `corpora/heads/expect.py` made it.

    mean: float32 [U]. between: float32 [U, U], covariance of recordings' means. within: float32 [U, U], covariance around those. step: float32
    [U], root mean square of the change from one frame to the next, at 25 frames/s.
    """

    mean: np.ndarray
    between: np.ndarray
    within: np.ndarray
    step: np.ndarray


@lru_cache(maxsize=1)
def expected() -> Expected:
    """What `expected.npz` holds, read once."""
    place = resources.files(__package__) / "expected.npz"
    with resources.as_file(place) as path, np.load(path, allow_pickle=False) as file:
        return Expected(**{name: file[name] for name in ("mean", "between", "within", "step")})


@lru_cache(maxsize=1)
def head() -> Head:
    """The head of `head.npz`, read once. Raises ValueError where the file is not what this version reads."""
    place = resources.files(__package__) / "head.npz"
    with resources.as_file(place) as path, np.load(path, allow_pickle=False) as file:
        return read(file, str(place))


def read(file: Any, where: str) -> Head:
    """The head in an opened .npz. where: its place, for the error."""
    if (found := str(file["format"]) if "format" in file else "none") != FORMAT:
        raise ValueError(
            f"{where} has format {found!r} and this version reads {FORMAT!r}: make it again with corpora/heads/finish.py"
        )
    about = {name[6:]: file[name] for name in file.files if name.startswith("about_")}
    return Head(
        mean=_unpacked(file, "mean"),
        basis=_unpacked(file, "basis"),
        people=file["people"].astype(np.float32),
        about={name: values.astype(np.float32) for name, values in about.items()},
        units=_unpacked(file, "units"),
        names=tuple(str(name) for name in file["unit_names"]),
        faces=file["faces"].astype(np.int32),
        material=file["material"],
        uv=file["uv"].astype(np.float32) / 65535,
        occlusion=file["occlusion"].astype(np.float32) / 255,
        ear=file["ear"],
        turning=file["turning"].astype(np.float32) / 255,
        mesh_face=file["mesh_face"].astype(np.int32),
        mesh_share=file["mesh_share"].astype(np.float32),
        ibug=file["ibug"],
    )
