"""One person before one camera: faces under units and pose become frames, depth, normals and masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from spfem_dist.corpora.heads import raster
from spfem_dist.corpora.heads.camera import View
from spfem_dist.corpora.heads.folds import Folds, folded
from spfem_dist.corpora.heads.person import Person
from spfem_dist.corpora.heads.skin import ATLAS, SKIN, TILE, TILES, Surface
from spfem_dist.corpora.heads.worn import Worn
from spfem_dist.cropping import CROP_DROP, CROP_SIDE, RIGID
from spfem_dist.head.asset import MATERIALS, Head

#: What a pixel shows, in `Layers.mask`.
LABELS = ("background", "skin", "lips", "eye", "teeth", "tongue", "mouth", "hair", "glasses", "clothes")
_LABEL = {"skin": 1, "mouth": 6, "socket": 1, "eye": 3, "teeth": 4, "tongue": 5, "lash": 3, "hair": 7, "frame": 8}
_SHADOW_SIDE = 160
#: Strength of a highlight, its sharpness, how far light reaches round, whether folds show, glow; by material.
_TABLE = {
    "skin": (0.30, 4, 0.30, 1.0, 0.0),
    "mouth": (0.30, 5, 0.20, 0.0, 0.0),
    "socket": (0.10, 4, 0.30, 0.0, 0.0),
    "eye": (1.10, 8, 0.10, 0.0, 0.0),
    "teeth": (0.55, 6, 0.25, 0.0, 0.0),
    "tongue": (0.35, 5, 0.30, 0.0, 0.0),
    "lash": (0.05, 3, 0.10, 0.0, 0.0),
    "hair": (0.22, 4, 0.15, 0.0, 0.0),
    "frame": (0.80, 6, 0.05, 0.0, 0.0),
}


@dataclass(frozen=True)
class Layers:
    """What frames show, pixel by pixel. depth: float32 [T, S, S], decimetres from the camera, infinite where nothing is. normals: float32
    [T, S, S, 3], of unit length in the camera's axes (x right, y up, z to the camera), 0 where nothing is. mask: uint8 [T, S, S], places in `LABELS`."""

    depth: np.ndarray
    normals: np.ndarray
    mask: np.ndarray


class Scene:
    """A person before a camera. Buffers are made once; frames are drawn one after the other.

    neutral: float32 [N, 3]. size: side of the frames. supersampling: pixels drawn for one of the frame, along each axis; None takes 2, and
    more for frames below 128 pixels, in which lashes and teeth would flicker. framing: as `framed` gives it, for a head without landmarks.
    """

    def __init__(
        self,
        head: Head,
        person: Person,
        neutral: np.ndarray,
        surface: Surface,
        folds: Folds,
        worn: Worn,
        view: View,
        size: int,
        supersampling: int | None = None,
        framing: tuple[np.ndarray, float] | None = None,
    ):
        self.head, self.person, self.neutral, self.surface, self.folds, self.worn, self.view, self.size = (
            head,
            person,
            neutral,
            surface,
            folds,
            worn,
            view,
            size,
        )
        self.multiple = supersampling or max(2, round(192 / size))
        side = size * self.multiple
        kept = np.ones(len(head.faces), bool)
        if worn.hides_ears:
            kept &= ~head.ear[head.faces].all(1)
        faces = head.faces[kept]
        self.faces = np.ascontiguousarray(np.concatenate([faces, worn.faces + len(head.mean)]).astype(np.int32))
        self.material = np.concatenate([head.material[kept], worn.material]).astype(np.uint8)
        self.two_sided = np.isin(self.material, [MATERIALS.index(m) for m in ("lash", "hair", "teeth")])
        self.cut = np.isin(self.material, [MATERIALS.index(m) for m in ("lash", "hair")])
        self.uv = np.concatenate([_atlas_uv(head), worn.uv]).astype(np.float32)
        self.turning = np.concatenate([head.turning, worn.turning])[:, None]
        self.occlusion = np.concatenate([head.occlusion, np.full(len(worn.points), 0.9, np.float32)])
        self.table = np.array([_TABLE[name] for name in MATERIALS], np.float32)
        self.depth = np.empty((side, side), np.float32)
        self.face = np.empty((side, side), np.int32)
        self.share = np.empty((side, side, 2), np.float32)
        self.light = np.empty((side, side, 3), np.float32)
        self.shadow = np.empty((_SHADOW_SIDE, _SHADOW_SIDE), np.float32)
        self._shadow_face = np.empty((_SHADOW_SIDE, _SHADOW_SIDE), np.int32)
        self._shadow_share = np.empty((_SHADOW_SIDE, _SHADOW_SIDE, 2), np.float32)
        self._casts = ~np.isin(
            self.material, [MATERIALS.index(m) for m in ("lash", "eye", "teeth", "tongue", "mouth", "socket")]
        )
        self._shadow_faces = np.ascontiguousarray(self.faces[self._casts])
        self.normal = np.empty((len(self.turning), 3), np.float32)
        # The strips of teeth are too coarse for normals of their own: they face outwards from the middle of their arches.
        self._teeth = head.vertices_of("teeth")
        outwards = (neutral[self._teeth] - (0, 0, 0.55)) * (1, 0, 1)
        self._outwards = (outwards / np.linalg.norm(outwards, axis=1, keepdims=True)).astype(np.float32)
        self.anchor, self.eye_distance = framing or framed(head, neutral)
        self.rotations = view.rotations()
        self._curve = _tone_curve()

    # --- geometry ---------------------------------------------------------------------------------------------------

    def posed(self, points: np.ndarray, step: int, turning: np.ndarray | float = 1.0) -> np.ndarray:
        """Points [..., 3] of the upright head as the pose of frame `step` turns them."""
        turned = _rotated(np.ascontiguousarray(points, np.float32), self.rotations[step])
        return points + (turned - points) * turning

    def project(self, points: np.ndarray, step: int) -> np.ndarray:
        """Posed points float32 [..., 3] in pixels of frame `step`, x right and y down, and their nearness (1 over the distance): [..., 3]."""
        view = self.view
        near = 1 / (view.distance - points[..., 2])
        anchor = self.posed(self.anchor, step)
        focus = 1 / (view.distance - self.anchor[2])
        side = CROP_SIDE * self.eye_distance * focus / view.zoom[step]
        at = 1 / (view.distance - anchor[2])
        x = (
            ((points[..., 0] - self.anchor[0]) * near - (anchor[0] - self.anchor[0]) * at) / side
            + 0.5
            + view.shift[step, 0]
        )
        y = (
            (-(points[..., 1] - self.anchor[1]) * near + (anchor[1] - self.anchor[1]) * at) / side
            + 0.5
            + view.shift[step, 1]
        )
        return np.stack([x * self.size, y * self.size, near], axis=-1).astype(np.float32)

    def landmarks(self, moved: np.ndarray) -> np.ndarray:
        """MediaPipe's 478 points of faces [T, N, 3] in pixels of the frames: float32 [T, 478, 2]."""
        rows = [self.project(self.posed(self.head.mesh478(face), step), step)[:, :2] for step, face in enumerate(moved)]
        return np.stack(rows)

    # --- drawing ----------------------------------------------------------------------------------------------------

    def _found(self, moved: np.ndarray, step: int) -> np.ndarray:
        """Fill depth, face and share for one frame; returns the posed vertices."""
        points = self.posed(np.concatenate([moved, self.worn.points]), step, self.turning)
        seen = self.project(points, step)
        seen[:, :2] *= self.multiple
        self.depth.fill(-np.inf)
        self.face.fill(-1)
        raster.rasterise(
            seen, self.faces, self.two_sided, self.cut, self.uv, self.surface.alpha, self.depth, self.face, self.share
        )
        raster.vertex_normals(points, self.faces, self.normal)
        self.normal[self._teeth] = _rotated(self._outwards, self.rotations[step])
        return points

    def frame(self, moved: np.ndarray, units: np.ndarray, step: int) -> np.ndarray:
        """Frame `step` of a face [N, 3] under `units` [U]: uint8 [S, S, 3] RGB."""
        view = self.view
        points = self._found(moved, step)
        in_light = self._cast(points)
        relief = folded(self.folds, units)
        tangents = np.array([(1, 0, 0), self.rotations[step][:, 1]], np.float32)
        camera = np.array((self.anchor[0], self.anchor[1], view.distance), np.float32)
        raster.shade(
            self.face, self.share, self.faces, self.material, self.table, points, self.normal, self.uv, self.occlusion,
            self.surface.atlas, relief, tangents, camera, view.lights, self.shadow, in_light, self.light,
        )  # fmt: skip
        gain = (view.exposure * view.flicker[step]) * view.white
        picture = _developed(
            self.light, self.face, view.behind(step, self.size), gain.astype(np.float32), self.multiple, self._curve
        )
        return self._recorded(picture, step)

    def _cast(self, points: np.ndarray) -> np.ndarray:
        """Draw what the key light sees; returns the vertices there, float32 [N, 3]: texels and nearness."""
        towards = self.view.lights[0]
        right = np.cross((0.0, 1.0, 0.0), towards)
        right /= np.linalg.norm(right)
        axes = np.stack([right, -np.cross(towards, right), towards]).astype(np.float32)
        there = _rotated(points, axes)
        there[:, 1] -= np.float32(0.2)  # the middle of the head and the shoulders
        there[:, :2] = there[:, :2] * np.float32(_SHADOW_SIDE / 4.0) + np.float32(_SHADOW_SIDE / 2)
        self.shadow.fill(-1e6)
        self._shadow_face.fill(-1)
        raster.rasterise(
            there, self._shadow_faces, np.ones(len(self._shadow_faces), bool), np.zeros(len(self._shadow_faces), bool),
            self.uv, self.surface.alpha, self.shadow, self._shadow_face, self._shadow_share,
        )  # fmt: skip
        return there

    def _recorded(self, picture: np.ndarray, step: int) -> np.ndarray:
        """What lens, sensor and coder make of a picture float32 [S, S, 3] in grey levels: uint8."""
        view, size = self.view, self.size
        blur = view.blur * size / 128
        if blur > 0.2:
            picture = cv2.GaussianBlur(picture, (0, 0), blur)
        row, column = view.grain_at[step]
        picture = picture + view.sensor * view.grain[row : row + size, column : column + size]
        frame = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
        if view.quality:
            _, code = cv2.imencode(".jpg", frame[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, view.quality))
            frame = np.ascontiguousarray(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))[..., ::-1])
        return frame

    def layers(self, moved: np.ndarray, steps: Iterable[int] | None = None) -> Layers:
        """Depth, normals and masks of faces [T, N, 3], at the middle of each pixel; of some frames where `steps` names them."""
        at = np.arange(self.size) * self.multiple + self.multiple // 2
        labels = np.array([_LABEL[name] for name in MATERIALS], np.uint8)[self.material]
        depths, normals, masks = [], [], []
        for step in range(len(moved)) if steps is None else steps:
            self._found(moved[step], step)
            index = self.face[np.ix_(at, at)]
            there = index >= 0
            share = np.where(there[..., None], self.share[np.ix_(at, at)], 0)  # of no face it was never written
            corners = self.faces[index]
            weights = np.stack([1 - share.sum(-1), share[..., 0], share[..., 1]], axis=-1)[..., None]
            normal = (self.normal[corners] * weights).sum(-2)
            normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
            uv = (self.uv[corners] * weights).sum(-2)
            mask = labels[index]
            texel = np.clip((uv * ATLAS).astype(int), 0, SKIN - 1)
            skin = mask == 1
            mask[skin] = self.folds.labels[texel[..., 1], texel[..., 0]][skin]
            depths.append(
                np.where(there, 1 / np.where(there, self.depth[np.ix_(at, at)], 1), np.inf).astype(np.float32)
            )
            normals.append(np.where(there[..., None], normal, 0).astype(np.float32))
            masks.append(np.where(there, mask, 0).astype(np.uint8))
        return Layers(np.stack(depths), np.stack(normals), np.stack(masks))


def framed(head: Head, neutral: np.ndarray) -> tuple[np.ndarray, float]:
    """The crop's middle [3] on a neutral face, and the distance of its eyes, as `spfem prepare` has them."""
    mesh = head.mesh478(neutral)
    left, right = mesh[[33, 133]].mean(0), mesh[[362, 263]].mean(0)
    apart = float(np.linalg.norm(right - left))
    return mesh[list(RIGID)].mean(0) - np.array((0, CROP_DROP * apart, 0)), apart


def _atlas_uv(head: Head) -> np.ndarray:
    """The head's own texture coordinates in those of the atlas: float32 [N, 2]."""
    uv = np.zeros((len(head.mean), 2), np.float32)
    scale, margin = np.float32(SKIN / ATLAS), np.float32(1.5 / TILE)
    for names, tile in (
        (("mouth", "socket"), "mouth"),
        (("skin",), None),
        (("eye",), "eye"),
        (("lash",), "lash"),
        (("tongue",), "tongue"),
        (("teeth",), "teeth"),
    ):
        at = head.vertices_of(*names)
        if tile is None:
            uv[at] = head.uv[at] * scale
        else:
            corner = np.array(TILES[tile], np.float32)
            uv[at] = (corner + TILE * (margin + (1 - 2 * margin) * np.clip(head.uv[at], 0, 1))) / ATLAS
    return uv


@njit(cache=True, nogil=True)
def _rotated(points, matrix):
    """points [..., 3] times the transpose of a matrix [3, 3], summed in one order on every machine."""
    flat = points.reshape(-1, 3)
    out = np.empty_like(flat)
    for n in range(flat.shape[0]):
        for k in range(3):
            out[n, k] = matrix[k, 0] * flat[n, 0] + matrix[k, 1] * flat[n, 1] + matrix[k, 2] * flat[n, 2]
    return out.reshape(points.shape)


def _tone_curve() -> np.ndarray:
    """Grey level, float32 [1025], by the square root of linear light over 0 to 1.6: nearly straight, with a soft shoulder."""
    root = np.linspace(0, 1.6, 1025)
    linear = root * root
    linear = linear * (1 + linear / 4.0) / (1 + 0.55 * linear)
    return (
        255 * np.clip(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055), 0, 1)
    ).astype(np.float32)


@njit(cache=True, nogil=True)
def _developed(light, face, behind, gain, multiple, curve):
    """The picture, float32 [S, S, 3] in grey levels: means of multiple x multiple samples, the background where there is no face."""
    size = light.shape[0] // multiple
    out = np.empty((size, size, 3), np.float32)
    share = np.float32(1.0 / (multiple * multiple))
    for y in range(size):
        for x in range(size):
            r, g, b = np.float32(0), np.float32(0), np.float32(0)
            empty = 0
            for i in range(y * multiple, (y + 1) * multiple):
                for j in range(x * multiple, (x + 1) * multiple):
                    if face[i, j] >= 0:
                        # One bright sample shall not fill the pixel.
                        r += min(light[i, j, 0], np.float32(4))
                        g += min(light[i, j, 1], np.float32(4))
                        b += min(light[i, j, 2], np.float32(4))
                    else:
                        empty += 1
            free = np.float32(empty) * share
            for channel in range(3):
                value = (r if channel == 0 else g if channel == 1 else b) * share * gain[channel] + free * behind[
                    y, x, channel
                ]
                place = np.sqrt(max(value, np.float32(0))) * np.float32(640.0)
                low = min(int(place), 1023)
                part = min(place - np.float32(low), np.float32(1))
                out[y, x, channel] = curve[low] + (curve[low + 1] - curve[low]) * part
    return out
