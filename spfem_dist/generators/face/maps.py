"""Pictures drawn from landmarks: what a renderer is told about the face, differentiable in the landmarks.

A mesh over the landmarks and a ring of anchors around the face is drawn pixel by pixel. Which triangle covers a pixel is
decided without gradient; where in that triangle the pixel lies, and so every map, follows the landmarks smoothly.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import ConvexHull, Delaunay
from torch import Tensor

from spfem_dist.generators.face.expressions import ExpressionModel
from spfem_dist.generators.face.model import similarity

#: Maps of one frame: coordinates of the mean face 3, eyes (without their irises, which show the gaze) and mouth 3, shape lit from three sides 3, mask 1.
MAPS = 10
#: Anchors around the face, and how far out they lie: shares of the hull, and of an eye distance above the brows.
_RING, _OUT, _FOREHEAD = 28, 1.10, 0.55
#: Width of the soft edge within which an edited face passes into the source, pixels of 64.
EDGE = 2 / 64


class FaceMaps:
    """Draws the maps of one face model. On a CPU OpenCV says which triangle covers a pixel, elsewhere the device itself does.

    flat: float32 [V, 2] in [0, 1], the mesh of the mean face laid flat: the first two maps say where on it a pixel lies.
    """

    def __init__(self, model: ExpressionModel):
        order = self.order = model.topology
        self.still = list(order.rigid)
        self.mean = model.mean.astype(np.float64)
        forehead = self.mean[list(order.brows)] - np.array([0.0, _FOREHEAD])
        self.ring = _ring(np.concatenate([self.mean, forehead]))
        vertices = np.concatenate([self.mean, self.ring])
        skin = np.array([*order.surface, *range(order.points, len(vertices))])
        self.triangles = skin[Delaunay(vertices[skin]).simplices]
        depth = np.concatenate([model.depth, np.full(_RING, model.depth.min())])
        # Lit from three sides: how the surface turns is told by three greys.
        low, high = vertices.min(0), vertices.max(0)
        flat = (vertices - low) / (high - low)
        scaled = (depth - depth.min()) / (np.ptp(depth) + 1e-9)
        outlines = (*order.eyes, order.mouth)
        self.part_of = torch.from_numpy(
            np.stack([np.isin(self.triangles, outline).all(1) for outline in outlines], -1).astype(np.float32)
        )
        self.coordinates = torch.from_numpy(np.column_stack([flat, scaled]).astype(np.float32))
        self.depth = torch.from_numpy(depth.astype(np.float32))
        self.corners = torch.from_numpy(self.triangles)

    @property
    def flat(self) -> Tensor:
        """See the class."""
        return self.coordinates[:, :2]

    def to(self, device: torch.device | str) -> FaceMaps:
        """Keep what is drawn from on `device`, so that drawing there copies nothing."""
        for name in ("part_of", "coordinates", "depth", "corners"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def anchors(self, landmarks: np.ndarray) -> np.ndarray:
        """The ring [T, A, 2] around faces with landmarks [T, L, 2]: it goes with the head and knows no expression."""
        factor, centre = similarity(landmarks[:, self.still].astype(np.float64), self.mean[self.still])
        ring = (self.ring @ (1, 1j)) * factor[:, None] + (centre @ (1, 1j))[:, None]
        return np.stack([ring.real, ring.imag], -1).astype(np.float32)

    def vertices(self, landmarks: Tensor, anchors: Tensor) -> Tensor:
        """Landmarks [N, L, 2] and anchors [N, A, 2] as the mesh's vertices [N, V, 2]."""
        return torch.cat([landmarks, anchors], 1)

    def draw(self, vertices: Tensor, source: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Maps [N, 10, S, S] in [0, 1] of faces with `vertices` [N, V, 2], and where each pixel comes from in `source` [N, V, 2].

        Both in pixels. The second result [N, S, S, 2] is a grid for `grid_sample` (align_corners False) on the source's picture; outside
        the mesh it is the pixel itself.
        """
        drawn, corners, weights = self.covered(vertices, size)
        inside, n = drawn >= 0, len(vertices)
        coordinates = _interpolated(self.coordinates.to(vertices)[None].expand(n, -1, -1), corners, weights)
        mask = inside.to(vertices.dtype)[..., None]
        shape = self._lit(vertices, drawn.clamp(min=0))
        parts = self.part_of.to(vertices)[drawn.clamp(min=0)] * (1 - self._irises(vertices, size))
        maps = torch.cat([coordinates.clamp(0, 1) * mask, parts * mask, shape * mask, mask], -1)
        grid = torch.where(inside[..., None], _interpolated(source, corners, weights), _pixels(size, vertices))
        return maps.permute(0, 3, 1, 2), grid * 2 / size - 1

    def flow(self, vertices: Tensor, source: Tensor, size: int) -> Tensor:
        """Where each pixel of faces with `vertices` comes from in `source`, both [N, V, 2] pixels: shifts [N, S, S, 2] in shares of the side.

        The second result of `draw`, alone and as a shift: 0 outside the mesh.
        """
        return self.flows(vertices, (source,), size)[0]

    def flows(self, vertices: Tensor, sources: Sequence[Tensor], size: int) -> tuple[Tensor, ...]:
        """`flow` to each of the sources, and last the mask of the mesh [N, 1, S, S]."""
        drawn, corners, weights = self.covered(vertices, size)
        inside = (drawn >= 0).to(vertices.dtype)
        found = [_interpolated(source - vertices, corners, weights) * inside[..., None] / size for source in sources]
        return *found, inside[:, None]

    def covered(self, vertices: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Which triangle covers each pixel, int64 [N, S, S] (-1 outside the mesh), its corners' numbers int64 [N, S, S, 3] and the
        pixel's barycentric weights [N, S, S, 3], differentiable in the vertices [N, V, 2]."""
        on_host = vertices.device.type == "cpu"
        drawn = self._filled(vertices, size) if on_host else _covering(vertices.detach(), self.corners, size)
        corners = self.corners.to(vertices.device)[drawn.clamp(min=0)]
        return drawn, corners, _barycentric(vertices, corners, size)

    def _filled(self, vertices: Tensor, size: int) -> Tensor:
        """The triangle that covers each pixel, int64 [N, S, S], -1 outside the mesh; later triangles lie on top."""
        points = np.round((vertices.detach().float().numpy() - 0.5) * 16).astype(np.int32)
        pictures = np.full((len(points), size, size), -1, np.int32)
        for picture, face in zip(pictures, points, strict=True):
            for number, polygon in enumerate(face[self.triangles]):
                cv2.fillConvexPoly(picture, polygon, number, shift=4)
        return torch.from_numpy(pictures).to(torch.int64)

    def _irises(self, vertices: Tensor, size: int) -> Tensor:
        """Where the irises of the two eyes lie, and none in the mouth: [N, S, S, 3] in [0, 1], with an edge of about a pixel."""
        n = len(vertices)
        shown = vertices.new_zeros(n, size, size, 3)
        if not self.order.irises:
            return shown
        discs = []
        for iris in self.order.irises:
            centre, rim = vertices[:, iris[0]], vertices[:, list(iris[1:])]
            radius = (rim - centre[:, None]).norm(dim=-1).mean(1)[:, None, None]
            away = (_pixels(size, vertices) - centre[:, None, None]).square().sum(-1).add(1e-6).sqrt()
            discs.append(torch.sigmoid(4 * (radius - away)))
        return torch.stack([*discs, shown[..., 0]], -1)

    def _lit(self, vertices: Tensor, drawn: Tensor) -> Tensor:
        """Greys [N, S, S, 3] of the mesh lit from the left, from above and from the front: one normal for each triangle."""
        span = (vertices[:, :, 0].amax(1) - vertices[:, :, 0].amin(1))[:, None, None]
        unit = float(np.ptp(self.mean[:, 0]))
        solid = torch.cat(
            [vertices / span * unit, self.depth.to(vertices)[None, :, None].expand(len(vertices), -1, -1)], -1
        )
        a, b, c = (solid[:, self.corners[:, k].to(vertices.device)] for k in range(3))
        normal = F.normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-6)
        normal = normal * torch.sign(normal[..., 2:] + 1e-12)
        grey = torch.stack([(1 - normal[..., 0]) / 2, (1 - normal[..., 1]) / 2, normal[..., 2]], -1)
        return _gather(grey, drawn)


def _covering(vertices: Tensor, corners: Tensor, size: int) -> Tensor:
    """What `FaceMaps._filled` finds, on any device without asking the host: a pixel is inside where all its weights are positive.

    The weights are linear in the pixel's place, so each is one row of a matrix product; triangles go by in parts of bounded memory.
    """
    n, triangles = len(vertices), len(corners)
    a, b, c = (vertices.float()[:, corners[:, k].to(vertices.device)] for k in range(3))  # [N, T, 2]
    area = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
    area = torch.where(area.abs() < 1e-2, torch.full_like(area, float("nan")), area)  # edge-on: covers nothing

    def plane(p: Tensor, q: Tensor) -> Tensor:
        """Coefficients [N, T, 3] of (x, y, 1) that give the weight of the corner opposite the edge from p to q."""
        x, y = (p[..., 1] - q[..., 1]) / area, (q[..., 0] - p[..., 0]) / area
        return torch.stack([x, y, -(x * p[..., 0] + y * p[..., 1])], -1)

    planes = torch.stack([plane(b, c), plane(c, a), plane(a, b)], 2)  # [N, T, 3, 3]
    places = _pixels(size, planes).flatten(0, 1)
    places = torch.cat([places, torch.ones_like(places[:, :1])], 1).T  # [3, P]
    found = torch.full((n, size * size), -1, dtype=torch.int64, device=vertices.device)
    part = max(1, 2**25 // (n * 3 * size * size))
    for first in range(0, triangles, part):
        inside = ((planes[:, first : first + part] @ places).amin(2) > -1e-4).long()  # nan is not inside
        numbers = torch.arange(first, first + inside.shape[1], device=vertices.device)[None, :, None]
        found = torch.maximum(found, (inside * (numbers + 1) - 1).amax(1))
    return found.view(n, size, size)


def mask_edge(mask: Tensor, width: int) -> Tensor:
    """Masks [N, 1, S, S] that fall off to 0 over `width` pixels inside their edge."""
    if width < 1:
        return mask
    eroded = -F.max_pool2d(-F.pad(mask, [width] * 4), 2 * width + 1, 1)
    return F.avg_pool2d(F.pad(eroded, [width] * 4, mode="replicate"), 2 * width + 1, 1) * mask


def warped(pictures: Tensor, grid: Tensor) -> Tensor:
    """Pictures [N, C, S, S] looked up at grid [N, S, S, 2]."""
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def _ring(points: np.ndarray) -> np.ndarray:
    """Anchors [A, 2] on the convex hull of `points`, grown, at even angles."""
    hull = points[ConvexHull(points).vertices]
    middle = hull.mean(0)
    closed = np.concatenate([hull, hull[:1]])
    edges = np.concatenate([np.linspace(a, b, 64, endpoint=False) for a, b in itertools.pairwise(closed)])
    angles = np.arctan2(*(edges - middle).T[::-1])
    wanted = np.linspace(-np.pi, np.pi, _RING, endpoint=False)
    nearest = np.abs(np.angle(np.exp(1j * (angles[None] - wanted[:, None])))).argmin(1)
    return middle + _OUT * (edges[nearest] - middle)


def _pixels(size: int, like: Tensor) -> Tensor:
    """Centres of pixels [S, S, 2] (x, y)."""
    axis = torch.arange(size, device=like.device, dtype=like.dtype) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1)


def grid_of(flow: Tensor) -> Tensor:
    """The grid [N, S, S, 2] for `warped` that a flow [N, S, S, 2] in shares of the side says."""
    size = flow.shape[1]
    return (_pixels(size, flow) / size + flow) * 2 - 1


def _interpolated(attributes: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    """attributes [N, V, C] of a mesh's vertices at its pixels: [N, S, S, C]."""
    return (weights[..., None] * _gather(attributes, corners)).sum(-2)


def _gather(attributes: Tensor, numbers: Tensor) -> Tensor:
    """attributes [N, V, C] at numbers [N, ...] -> [N, ..., C]."""
    flat = numbers.flatten(1)
    found = attributes.gather(1, flat[..., None].expand(-1, -1, attributes.shape[-1]))
    return found.view(*numbers.shape, attributes.shape[-1])


def _barycentric(vertices: Tensor, corners: Tensor, size: int) -> Tensor:
    """Weights [N, S, S, 3] of each pixel's triangle corners; they sum to 1."""
    a, b, c = _gather(vertices, corners).unbind(-2)
    u, v, p = b - a, c - a, _pixels(size, vertices) - a
    area = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    # A triangle seen edge-on (closed lips) has no inside: its pixels take the corners' mean instead of a far extrapolation.
    thin = area.abs() < 1e-2
    safe = torch.where(thin, torch.ones_like(area), area)
    second = (p[..., 0] * v[..., 1] - p[..., 1] * v[..., 0]) / safe
    third = (u[..., 0] * p[..., 1] - u[..., 1] * p[..., 0]) / safe
    weights = torch.stack([1 - second - third, second, third], -1).clamp(-0.5, 1.5)
    return torch.where(thin[..., None], torch.full_like(weights, 1 / 3), weights / weights.sum(-1, keepdim=True))
