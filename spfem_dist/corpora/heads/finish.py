"""From what `cut.py` cut to the `head.npz` of the package: texture coordinates, open sky, and where MediaPipe's points lie.

    python -m spfem_dist.corpora.heads.finish cut.npz

The 468 points are found by the mesh network itself: heads of several people are rendered, with mouths closed and open and turned to both
sides; each point it finds is traced back to the surface, and the median over all pictures is its place. The ten points of the irises lie on the
eyeballs by construction. Takes a minute or two; needs `spfem weights pull face-mesh`, and not anny.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from spfem_dist.corpora.heads import folds as folds_module
from spfem_dist.corpora.heads import raster
from spfem_dist.corpora.heads.acting import Units
from spfem_dist.corpora.heads.camera import View
from spfem_dist.corpora.heads.folds import Folds, folds
from spfem_dist.corpora.heads.person import Person, person
from spfem_dist.corpora.heads.scene import Scene
from spfem_dist.corpora.heads.skin import ATLAS, IRIS, SKIN, TILE, TILES, Surface, eyeball, surface
from spfem_dist.corpora.heads.worn import Worn, turning
from spfem_dist.head import asset
from spfem_dist.head.asset import FORMAT, MATERIALS, Head, packed, read, skin_map

_SIDE = 448
#: Open share of the sky inside an open mouth: at its back, and behind the lips.
_INSIDE = {"mouth": (0.04, 0.45), "teeth": (0.15, 0.85), "tongue": (0.15, 0.65)}


def texture_coordinates(mean: np.ndarray, faces: np.ndarray, material: np.ndarray, part_uv: np.ndarray) -> np.ndarray:
    """uv [N, 2] as `Head.uv` has them."""

    def of(name: str) -> np.ndarray:
        return np.unique(faces[material == MATERIALS.index(name)])

    uv = np.zeros((len(mean), 2))
    for name in ("mouth", "socket", "tongue"):
        at = of(name)
        low, high = part_uv[at].min(0), part_uv[at].max(0)
        uv[at] = (part_uv[at] - low) / np.maximum(high - low, 1e-9)
    skin = of("skin")
    uv[skin] = skin_map(mean[skin])
    for sign in (-1, 1):
        eye = of("eye")[np.sign(mean[of("eye"), 0]) == sign]
        centre, _ = _ball(mean[eye])
        ray = mean[eye] - centre
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        flat = ray[:, :2] * (1, -1)
        behind = ray[:, 2] < 0
        flat[behind] /= np.maximum(np.linalg.norm(flat[behind], axis=1, keepdims=True), 1e-6)
        uv[eye] = 0.5 + 0.5 * flat
    arches = _islands(faces[material == MATERIALS.index("teeth")], of("teeth"))
    for arch, upper in zip(sorted(arches, key=lambda arch: mean[arch, 1].mean()), (False, True), strict=True):
        place = _arch(part_uv[arch], mean[arch])
        uv[arch] = np.stack([place[:, 0], 0.5 * place[:, 1] if upper else 1 - 0.5 * place[:, 1]], axis=1)
    lash = of("lash")
    lid = cKDTree(mean[skin])
    for group in _islands(faces[material == MATERIALS.index("lash")], lash):
        own = part_uv[group]
        own = (own - own.min(0)) / np.maximum(np.ptp(own, axis=0), 1e-9)
        away = lid.query(mean[group])[0]
        if abs(np.corrcoef(own[:, 0], away)[0, 1]) > abs(np.corrcoef(own[:, 1], away)[0, 1]):
            own = own[:, ::-1].copy()
        if np.corrcoef(own[:, 1], away)[0, 1] < 0:
            own[:, 1] = 1 - own[:, 1]
        uv[group] = own
    return np.clip(uv, 0, 1)


def _arch(bent: np.ndarray, points: np.ndarray) -> np.ndarray:
    """u along an arch of teeth and v from the gum over the edge to the back, of a strip of 17 x 4 vertices that lies bent on its map."""
    size = len(bent) // 4
    middle = (bent[:, 0].min() + bent[:, 0].max()) / 2

    def rows_around(height: float) -> tuple[float, np.ndarray]:
        radius = np.hypot(bent[:, 0] - middle, bent[:, 1] - height)
        rows = np.argsort(radius, kind="stable").reshape(4, size)
        return float(radius[rows].var(1).sum()), rows

    # The strip's rows are circles round one point above or below it: the one around which they are thinnest.
    low, high = bent[:, 1].min(), bent[:, 1].max()
    heights = np.concatenate([np.linspace(low - 0.15, low - 0.005, 300), np.linspace(high + 0.005, high + 0.15, 300)])
    _, rows = min((rows_around(float(h)) for h in heights), key=lambda found: found[0])
    if np.ptp(points[rows[0], 2]) + np.ptp(points[rows[0], 0]) < np.ptp(points[rows[-1], 2]) + np.ptp(
        points[rows[-1], 0]
    ):
        rows = rows[::-1]  # the outer gum is the widest row
    uv = np.zeros((len(bent), 2))
    for row, v in zip(rows, (0.02, 0.50, 0.94, 0.99), strict=True):
        ordered = row[np.argsort(points[row, 0] / (points[row, 2] - points[:, 2].min() + 0.15), kind="stable")]
        along = np.append(0, np.cumsum(np.linalg.norm(np.diff(points[ordered], axis=0), axis=1)))
        uv[ordered] = np.stack([along / along[-1], np.full(size, v)], axis=1)
    return uv


def _ball(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and radius of the sphere nearest to points."""
    rows = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    solved = np.linalg.lstsq(rows, (points**2).sum(1), rcond=None)[0]
    return solved[:3], float(np.sqrt(solved[3] + (solved[:3] ** 2).sum()))


def _islands(faces: np.ndarray, vertices: np.ndarray) -> list[np.ndarray]:
    """The connected parts of a mesh, as vertices each."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number = {int(v): i for i, v in enumerate(vertices)}
    edges = np.array([(number[int(a)], number[int(b)]) for f in faces for a, b in ((f[0], f[1]), (f[1], f[2]))])
    size = len(vertices)
    _, part = connected_components(coo_array((np.ones(len(edges)), edges.T), shape=(size, size)), directed=False)
    return [vertices[part == k] for k in range(part.max() + 1)]


def occlusion(points: np.ndarray, faces: np.ndarray, material: np.ndarray, directions: int = 160) -> np.ndarray:
    """The open share of the sky above each vertex, float64 [N], by looking at the mesh from many sides."""
    points = np.ascontiguousarray(points, np.float32)
    seen = np.isin(material, [MATERIALS.index(name) for name in ("lash",)], invert=True)
    solid = np.ascontiguousarray(faces[seen].astype(np.int32))
    normal = np.empty_like(points)
    raster.vertex_normals(points, faces.astype(np.int32), normal)
    k = np.arange(directions) + 0.5
    polar, turn = np.arccos(1 - 2 * k / directions), np.pi * (1 + 5**0.5) * k
    rays = np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], axis=1)
    side = 384
    buffers = (
        np.empty((side, side), np.float32),
        np.empty((side, side), np.int32),
        np.empty((side, side, 2), np.float32),
    )
    blank = np.zeros((len(points), 2), np.float32), np.full((2, 2), 255, np.uint8)
    open_sky, whole = np.zeros(len(points)), np.zeros(len(points))
    for ray in rays:
        right = np.cross((0.0, 1.0, 0.0), ray)
        right /= np.linalg.norm(right)
        axes = np.stack([right, -np.cross(ray, right), ray])
        there = (points @ axes.T).astype(np.float32)
        there[:, :2] = there[:, :2] * (side / 5.2) + side / 2
        buffers[0].fill(-1e6)
        buffers[1].fill(-1)
        every = np.ones(len(solid), bool)
        raster.rasterise(there, solid, every, ~every, *blank, *buffers)
        facing = np.maximum(normal @ ray, 0)
        x, y = (np.clip(there[:, i].astype(int), 0, side - 1) for i in (0, 1))
        open_sky += facing * (there[:, 2] + 0.035 >= buffers[0][y, x])
        whole += facing
    return open_sky / np.maximum(whole, 1e-6)


def still_view(yaw: float, pitch: float) -> View:
    """A plain view of one frame: soft light from the front, no noise."""
    one = np.array([1.0])
    lights = np.array(
        [(0.25, 0.45, 0.86), (1.0, 1.0, 1.0), (-0.5, 0.1, 0.86), (0.35, 0.35, 0.35), (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)],
        np.float32,
    )
    return View(
        np.radians([yaw]), np.radians([pitch]), 0 * one, np.zeros((1, 2)), 0.8 * one, 12.0, lights, 0.6, np.ones(3, np.float32),
        np.full((256, 256, 3), 150, np.uint8), np.zeros((1, 2)), 0.0, 0.0, 0, np.ones(1, np.float32), np.zeros((1, 2), int), np.zeros((_SIDE + 32, _SIDE + 32, 3), np.float32),
    )  # fmt: skip


def plain(someone: Person, rng: np.random.Generator) -> Surface:
    """Skin of one tone, and eyes."""
    atlas = np.zeros((ATLAS, ATLAS, 4), np.float32)
    atlas[...] = (*someone.skin, 0.3)
    x, y = TILES["eye"]
    atlas[y : y + TILE, x : x + TILE] = eyeball(someone, rng)
    atlas[..., :3] = np.sqrt(np.clip(atlas[..., :3], 0, 1))
    return Surface((atlas * 255).astype(np.uint8), np.full((ATLAS, ATLAS), 255, np.uint8))


def flat(units: int) -> Folds:
    """Skin without folds."""
    size = folds_module.SIDE
    nothing = np.zeros((1, size, size), np.float32)
    return Folds(
        nothing,
        np.zeros((1, 4), np.int32),
        nothing[0],
        np.zeros((1, units), np.float32),
        np.ones((SKIN, SKIN), np.uint8),
    )


def nothing_worn() -> Worn:
    """No hair and no glasses."""
    empty = np.zeros((0, 3), np.float32)
    return Worn(empty, empty.astype(np.int32), np.zeros(0, np.uint8), empty[:, :2], empty[:, 0], False)


def mesh_places(
    head: Head, painted: bool, people: int = 12, pictures: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Faces [468] and shares [468, 3] of MediaPipe's points on `head`. painted: whether `head` has places already, so that its skin can be painted.
    pictures: a folder for what was rendered, to look at."""
    import cv2

    from spfem_dist.prepare.mesh import FaceModels, region_of

    models, units = FaceModels(), Units(head.names)
    opened = units.row({"jawOpen": 0.4, "mouthUpperUp": 0.15, "mouthLowerDown": 0.15})
    closed = np.zeros_like(opened)
    reference = head.moved(head.mean, opened[None])[0]
    skin = head.of_material("skin")
    traced: list[np.ndarray] = []
    for number in range(people):
        someone = person(head, 77, number)
        someone = replace(
            someone, shape=0.7 * someone.shape, beard=0.0, scalp=0.0, glasses=0, style="bald", neckline=-1.0
        )
        neutral = head.shape(someone.shape)
        rng = np.random.default_rng(number)
        eyes = neutral[head.vertices_of("eye")]
        balls = [eyes[np.sign(eyes[:, 0]) == sign].mean(0) for sign in (-1, 1)]
        apart = float(balls[1][0] - balls[0][0])
        framing = (balls[0] + balls[1]) / 2 + (0, -0.64 * apart, 0.2), apart
        look = surface(head, someone, rng) if painted else plain(someone, rng)
        lines = folds(head, someone, rng) if painted else flat(len(head.names))
        for yaw in (-22.0, 0.0, 22.0):
            for weights in (closed, opened):
                scene = Scene(
                    head,
                    someone,
                    neutral,
                    look,
                    lines,
                    nothing_worn(),
                    still_view(yaw, float(number % 3 - 1) * 8),
                    _SIDE,
                    1,
                    framing,
                )
                moved = head.moved(neutral, weights[None])
                frame = scene.frame(moved[0], weights, 0)
                if pictures and number < 4:
                    cv2.imwrite(str(pictures / f"{painted}-{number}-{yaw:g}-{weights.any():d}.png"), frame[..., ::-1])
                faces = models.detect(frame)
                if not faces:
                    continue
                points, score = models.landmarks(frame, faces[0].region())
                points, score = models.landmarks(frame, region_of(points))
                if score > 0.5:
                    place = _traced(scene, head, points, skin, reference)
                    # Of a turned head the far side's outline is not where its points are: the cheek hides them.
                    place[place[:, 0] * yaw > 0.02 * abs(yaw)] = np.nan
                    traced.append(place)
    print(f"{len(traced)} of {people * 6} pictures have a face")
    rows = np.stack(traced)
    place = np.nanmedian(rows, axis=0)
    lost = ~np.isfinite(place).all(1)
    if lost.any():
        raise ValueError(
            f"{lost.sum()} points of the mesh were never seen on the skin, such as {np.flatnonzero(lost)[:5]}"
        )
    place = _symmetric(place)
    return _on_surface(place, reference, head.faces, np.flatnonzero(skin))


def _traced(scene: Scene, head: Head, points: np.ndarray, skin: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Where on `reference` [N, 3] the found points [468, 2] lie: [468, 3], NaN where they are on no skin or on skin seen at a slant."""
    kept = len(head.faces)
    index = scene.face
    usable = (index >= 0) & (index < kept)
    usable[usable] = skin[index[usable]]
    rows, columns = np.nonzero(usable)
    tree = cKDTree(np.stack([columns, rows], axis=1) + 0.5)
    distance, nearest = tree.query(points)
    y, x = rows[nearest], columns[nearest]
    corner = head.faces[index[y, x]]
    share = scene.share[y, x]
    weights = np.stack([1 - share.sum(1), share[:, 0], share[:, 1]], axis=1)[..., None]
    place = (reference[corner] * weights).sum(1)
    facing = (scene.normal[corner] * weights).sum(1)[:, 2]
    place[(distance > 6) | (facing < 0.3)] = np.nan
    return place


def _symmetric(place: np.ndarray) -> np.ndarray:
    """Points [P, 3] with each one and its mirror image brought together, where these are each other's nearest."""
    mirrored = place * (-1, 1, 1)
    partner = cKDTree(mirrored).query(place)[1]
    mutual = partner[partner] == np.arange(len(place))
    result = place.copy()
    result[mutual] = (place[mutual] + mirrored[partner[mutual]]) / 2
    return result


def _on_surface(
    place: np.ndarray, vertices: np.ndarray, faces: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest faces (among `chosen`) to points [P, 3], and barycentric shares [P, 3]."""
    corners = vertices[faces[chosen]]
    near = cKDTree(corners.mean(1)).query(place, k=24)[1]
    found, shares = [], []
    for point, candidates in zip(place, near, strict=True):
        best: tuple[float, int, np.ndarray] | None = None
        for c in candidates:
            a, b, d = corners[c]
            basis = np.stack([b - a, d - a], axis=1)
            inner, *_ = np.linalg.lstsq(basis, point - a, rcond=None)
            share = np.clip(np.array([1 - inner.sum(), *inner]), 0, None)
            share /= share.sum()
            off = float(np.linalg.norm(share @ corners[c] - point))
            if best is None or off < best[0]:
                best = off, int(c), share
        assert best is not None
        found.append(chosen[best[1]])
        shares.append(best[2])
    return np.array(found), np.array(shares)


def iris_places(head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Faces [10] and shares [10, 3] of the irises, the eye on the left of the picture first; of each the centre, and its rim on the
    outside (towards the ear), above, on the inside, and below: the network sees one of both in a mirror."""
    eyes = head.of_material("eye")
    place = []
    for sign in (-1, 1):
        vertices = head.vertices_of("eye")
        centre, radius = _ball(head.mean[vertices[np.sign(head.mean[vertices, 0]) == sign]].astype(float))
        reach = float(np.sqrt(1 - IRIS**2))
        for x, y in ((0, 0), (IRIS, 0), (0, IRIS), (-IRIS, 0), (0, -IRIS)):
            place.append(centre + radius * np.array((sign * x, y, 1.0 if not (x or y) else reach)))
    return _on_surface(np.array(place), head.mean, head.faces, np.flatnonzero(eyes))


def main() -> None:
    """Write head.npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cut", type=Path, help="the file that cut.py wrote")
    parser.add_argument("--out", type=Path, default=Path(asset.__file__).with_name("head.npz"))
    parser.add_argument("--pictures", type=Path, help="a folder for some of what was rendered, to look at")
    asked = parser.parse_args()
    from spfem_dist.prepare.landmarks import _IBUG68

    file = dict(np.load(asked.cut, allow_pickle=False))
    mean, faces, material = file["mean"], file["faces"], file["material"]
    uv = texture_coordinates(mean, faces, material, file["part_uv"])
    sky = occlusion(mean, faces, material)
    for name, (least, most) in _INSIDE.items():
        # A mouth is closed on the mean head: how much light there is inside goes by the way to the lips instead.
        within = np.setdiff1d(
            np.unique(faces[material == MATERIALS.index(name)]), np.unique(faces[material == MATERIALS.index("skin")])
        )
        sky[within] = least + (most - least) * np.clip((mean[within, 2] - 0.55) / 0.55, 0, 1)
    made: dict[str, Any] = {
        "format": np.array(FORMAT),
        **packed("mean", mean),
        **packed("basis", file["basis"]),
        "people": file["people"].astype(np.float16),
        **packed("units", np.where(np.abs(file["units"]) < 2e-5, 0, file["units"])),
        "unit_names": file["unit_names"],
        "faces": faces.astype(np.uint16),
        "material": material.astype(np.uint8),
        "uv": np.rint(uv * 65535).astype(np.uint16),
        "occlusion": np.rint(np.clip(sky, 0, 1) * 255).astype(np.uint8),
        "ear": file["ear"],
        "turning": np.rint(turning(mean) * 255).astype(np.uint8),
        "mesh_face": np.zeros(478, np.uint16),
        "mesh_share": np.full((478, 3), 1 / 3, np.float16),
        "ibug": np.array([(pair[0], pair[-1]) for pair in _IBUG68], np.int16),
        **{name: values.astype(np.float16) for name, values in file.items() if name.startswith("about_")},
    }
    for painted in (False, True):
        np.savez_compressed(asked.out, **made)
        with np.load(asked.out, allow_pickle=False) as stored:
            head = read(stored, str(asked.out))
        skin_face, skin_share = mesh_places(head, painted, pictures=asked.pictures)
        iris_face, iris_share = iris_places(head)
        made["mesh_face"] = np.concatenate([skin_face, iris_face]).astype(np.uint16)
        made["mesh_share"] = np.concatenate([skin_share, iris_share]).astype(np.float16)
    np.savez_compressed(asked.out, **made)
    print(f"wrote {asked.out}: {asked.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
