"""A batch as stage 2 sees it: windows of coefficients, faces to redraw, and what the renderer is given of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spfem_dist.generators.face.maps import FaceMaps, mask_edge, warped
from spfem_dist.generators.face.model import ClipFit, FaceModel
from spfem_dist.nets.augment import uniform
from spfem_dist.records import Batch

SOURCE, REFERENCE, MATCHED = 0, 1, 2
#: Width of the soft edge within which an edited face passes into the source, pixels of 64.
EDGE = 2 / 64


@dataclass
class Scene:
    """Faces to draw, N frames of one shape S x S.

    maps: [N, 10, S, S]. source: [N, 8, S, S], see networks.Renderer. soft: [N, 1, S, S], where the picture is redrawn.
    """

    maps: Tensor
    source: Tensor
    soft: Tensor

    def composed(self, picture: Tensor, around: Tensor) -> Tensor:
        """The drawn picture within the face, `around` outside; both [N, 3, S, S]."""
        return picture * self.soft + around * (1 - self.soft)

    def detached(self) -> Scene:
        """The same without gradient."""
        return Scene(self.maps.detach(), self.source.detach(), self.soft.detach())


@dataclass
class Prepared:
    """What the phases of one step share.

    windows: [B, 3, T, 51], coefficients of source, reference and matched frames. paired: [B, T], where the matched are. by_reference: [B],
    whether the style is read from the reference or drawn. noise: [B, 4]. emotion, target: int64 [B]. fits: for the sources.
    frames: [B, 3, T, 3, S, S] in [-1, 1]. edited: int64 [B], the source frame whose edit is drawn.
    redrawn: scenes of a real frame of each sample, as drawn from another frame of the speaker; wanted: those frames [B, 3, S, S], and
    wanted_speech: what is heard with them.
    across: [B], whether the other frame is of another recording. results: what one phase leaves for the next.
    """

    windows: Tensor
    paired: Tensor
    by_reference: Tensor
    noise: Tensor
    emotion: Tensor
    target: Tensor
    fits: list[ClipFit]
    landmarks: np.ndarray
    anchors: np.ndarray
    frames: Tensor
    speech: Tensor
    edited: Tensor
    redrawn: Scene
    wanted: Tensor
    wanted_speech: Tensor
    across: Tensor
    results: dict[str, Any]


def prepare(
    batch: Batch, model: FaceModel, maps: FaceMaps, neutral_shapes: list[np.ndarray | None], dtype: torch.dtype
) -> Prepared:
    """The batch's windows and scenes; every draw belongs to its sample. neutral_shapes: each sample's speaker at rest, None where not known."""
    assert batch.landmarks is not None, "the loader's source was asked for landmarks"
    device = batch.frames.device
    landmarks = batch.landmarks.float().cpu().numpy()
    b, _, t = batch.valid.shape
    fits = [[model.fit(landmarks[i, row], neutral_shapes[i]) for row in range(3)] for i in range(b)]
    windows = torch.from_numpy(np.stack([np.stack([fit.coefficients for fit in row]) for row in fits]))
    frames = batch.frames.to(dtype) / 127.5 - 1
    draw = lambda what, *shape: uniform(batch.seed, f"ned/{what}", *shape)  # noqa: E731
    anchors = np.stack([maps.anchors(faces) for faces in landmarks.reshape(b * 3, t, *landmarks.shape[3:])])
    anchors = anchors.reshape(b, 3, t, *anchors.shape[2:])

    # One frame of each sample is redrawn from another one: of the same recording (the mouth moves), or of the other (the emotion does).
    across = draw("across") < 0.5
    row, first, second = (draw("recording") * 2).long(), (draw("from") * t).long(), draw("to")
    alike = (first + 1 + (second * max(1, t - 1)).long()) % t
    place = (row, first), (torch.where(across, 1 - row, row), torch.where(across, (second * t).long(), alike))
    each = torch.arange(b, device=device)

    # Half precision would place a landmark of a large picture half a pixel off.
    wide = torch.promote_types(dtype, torch.float32)

    def at(array: np.ndarray, where: tuple[Tensor, Tensor]) -> Tensor:
        return torch.from_numpy(array[(np.arange(b), *(w.cpu().numpy() for w in where))]).to(device, wide)

    seen, shape = (torch.cat([at(landmarks, where), at(anchors, where)], 1) for where in place)
    picture, wanted = (frames[(each, *where)] for where in place)
    redrawn = made_scene(maps, shape, seen, picture, wanted, across)
    gauss = torch.erfinv((draw("noise", 4) * 2 - 1).clamp(-0.999, 0.999)) * 2**0.5
    return Prepared(
        windows=windows.to(device, dtype),
        paired=batch.valid[:, MATCHED],
        by_reference=draw("mode") < 0.5,
        noise=gauss.to(dtype),
        emotion=batch.emotion[:, SOURCE],
        target=batch.emotion[:, REFERENCE],
        fits=[row_fits[SOURCE] for row_fits in fits],
        landmarks=landmarks[:, SOURCE],
        anchors=anchors[:, SOURCE],
        frames=frames,
        speech=batch.speech,
        edited=(draw("edited") * t).long(),
        redrawn=redrawn,
        wanted=wanted,
        wanted_speech=batch.speech[(each, *place[1])],
        across=across.to(dtype),
        results={},
    )


def made_scene(
    maps: FaceMaps, shape: Tensor, seen: Tensor, picture: Tensor, around: Tensor, recoloured: Tensor | None = None
) -> Scene:
    """The face of `picture` [N, 3, S, S] with vertices `seen` [N, V, 2], moved to the vertices `shape`, within `around`.

    recoloured: bool [N], whether the moved face gets the colours that `around` has there: another recording has another light.
    Vertices are in float32 or better; the scene is in the picture's precision.
    """
    size, dtype = picture.shape[-1], picture.dtype
    picture, around = picture.to(shape.dtype), around.to(shape.dtype)
    drawn, grid = maps.draw(shape, seen, size)
    moved, mask = warped(picture, grid), drawn[:, -1:]
    soft = mask_edge(mask, max(1, round(EDGE * size)))
    if recoloured is not None:
        moved = torch.where(recoloured[:, None, None, None], _recoloured(moved, around, soft), moved)
    axis = (torch.arange(size, device=grid.device, dtype=grid.dtype) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    distance = 4 * (grid - torch.stack([x, y], -1)).permute(0, 3, 1, 2)
    source = torch.cat([around * (1 - mask), moved, distance], 1)
    return Scene(drawn.to(dtype), source.to(dtype), soft.to(dtype))


def edited_scene(prepared: Prepared, model: FaceModel, maps: FaceMaps, edited: Tensor) -> tuple[Scene, Tensor]:
    """One frame of each source with the edited coefficients [B, T, 51], and that frame as it is [B, 3, S, S].

    Differentiable in the coefficients.
    """
    b = len(edited)
    each, frame = torch.arange(b, device=edited.device), prepared.edited
    change = edited[each, frame] - prepared.windows[each, SOURCE, frame]
    change = change.to(torch.promote_types(change.dtype, torch.float32))
    numbers, rows = np.arange(b), frame.cpu().numpy()
    factor = torch.tensor(
        [[f.pose.factor[k].real, f.pose.factor[k].imag] for f, k in zip(prepared.fits, rows, strict=True)]
    ).to(change)
    basis = torch.from_numpy(model.basis).to(change)
    shift = torch.einsum("bc,cld->bld", change, basis)
    x, y = shift.unbind(-1)
    cos, sin = factor[:, :1], factor[:, 1:]
    shift = torch.stack([x * cos - y * sin, x * sin + y * cos], -1)
    landmarks = torch.from_numpy(prepared.landmarks[numbers, rows]).to(change)
    anchors = torch.from_numpy(prepared.anchors[numbers, rows]).to(change)
    picture = prepared.frames[each, SOURCE, frame]
    shape, seen = (torch.cat([points, anchors], 1) for points in (landmarks + shift, landmarks))
    return made_scene(maps, shape, seen, picture, picture), picture


def _recoloured(moved: Tensor, around: Tensor, soft: Tensor) -> Tensor:
    """`moved` with the mean and spread that `around` has under the soft mask, channel by channel."""
    weight = soft / soft.sum((2, 3), keepdim=True).clamp(min=1e-6)

    def moments(picture: Tensor) -> tuple[Tensor, Tensor]:
        mean = (picture * weight).sum((2, 3), keepdim=True)
        return mean, (((picture - mean).square() * weight).sum((2, 3), keepdim=True) + 1e-4).sqrt()

    (mean, spread), (wanted, wanted_spread) = moments(moved), moments(around)
    return ((moved - mean) / spread * wanted_spread + wanted).clamp(-1, 1)


def slow(error: Tensor, soft: Tensor) -> Tensor:
    """The slow part of an error picture [N, C, S, S] under a soft mask: patches of light and colour, no lines."""
    width = max(1, error.shape[-1] // 10)

    def blurred(x: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(x, width), x.shape[-2:], mode="bilinear", align_corners=False)

    return blurred(error * soft) / (blurred(soft) + 1e-3)
