"""A batch as stage 2 sees it: windows of coefficients, faces to redraw, and what the renderer is given of them.

What must be computed on the host (fits of landmarks, draws) is added to a batch in the loader's threads (`Fitting`); `prepare` and all
that follows stay on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spfem_dist.generators.face.light import with_colours_of
from spfem_dist.generators.face.maps import EDGE, mask_edge, warped
from spfem_dist.generators.face.recordings import FittedRecordings
from spfem_dist.generators.guided import Pictures
from spfem_dist.generators.ned.motions import Face, Windows
from spfem_dist.nets.augment import uniform
from spfem_dist.records import Batch
from spfem_dist.streaming.views import MATCHED, SOURCE


@dataclass
class Scene:
    """Faces to draw, N frames of one shape S x S.

    maps: [N, 10, S, S]. source: [N, 8, S, S], see networks.Renderer. soft: [N, 1, S, S], where the picture is redrawn.
    """

    maps: Tensor
    source: Tensor
    soft: Tensor

    @property
    def moved(self) -> Tensor:
        """The source's face in its new shape and expression [N, 3, S, S]: what is shown where no renderer paints over it."""
        return self.source[:, 3:6]

    @property
    def flow(self) -> Tensor:
        """Where each pixel comes from [N, S, S, 2], as `FaceMaps.flow` gives it."""
        return self.source[:, 6:].permute(0, 2, 3, 1) / 8

    def composed(self, picture: Tensor, around: Tensor) -> Tensor:
        """The drawn picture within the face, `around` outside; both [N, 3, S, S]."""
        return picture * self.soft + around * (1 - self.soft)

    def detached(self) -> Scene:
        """The same without gradient."""
        return Scene(self.maps.detach(), self.source.detach(), self.soft.detach())


@dataclass
class Coefficients:
    """Windows of which a manipulator learns, N of them: see `motions.Windows.draw`, its two leading axes as one."""

    source: Tensor
    reference: Tensor
    emotion: Tensor
    target: Tensor
    noise: Tensor
    by_reference: Tensor
    matched: Tensor
    paired: Tensor

    @classmethod
    def of(cls, batch: Batch, dtype: torch.dtype) -> Coefficients:
        """Those that the loader added to the batch."""
        found = {name.removeprefix("windows/"): v for name, v in batch.extras.items() if name.startswith("windows/")}
        flat = {name: value.flatten(0, 1) for name, value in found.items()}
        return cls(**{name: v.to(dtype) if v.is_floating_point() else v for name, v in flat.items()})


class Fitting:
    """Adds to a batch what stage 2 needs of the host; called in the loader's threads, a function of each sample alone.

    windows/...: `count` windows for each sample (`motions.Windows.draw`). coefficients: float32 [B, 3, T, C] of the three windows;
    seen/...: [B, T, ...], how the source's head is seen (`FaceModel.seen`, `UnitModel.seen`); anchors: float32 [B, 3, T, A, 2]; and what is
    drawn by the sample's seed: which frames are edited and redrawn, and how.
    """

    def __init__(self, face: Face, fitted: FittedRecordings, windows: Windows, speakers: dict[str, str], count: int):
        self.face, self.fitted, self.windows, self.speakers, self.count = face, fitted, windows, speakers, count

    def __call__(self, batch: Batch) -> Batch:
        extras = {f"windows/{name}": v for name, v in self.windows.draw(batch.seed.numbers, self.count).items()}
        return replace(batch, extras=extras | self._fits(batch) | _draws(batch))

    def _fits(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.landmarks is not None, "the loader's source was asked for landmarks"
        landmarks = batch.landmarks.float().numpy()
        b, rows, t = batch.valid.shape
        coefficients, seen = [], []
        for i, key in enumerate(batch.keys):
            rest = self.face.rests.get(self.speakers[key])
            fits = [
                self.fitted.window(key, batch.position[i, row].numpy(), landmarks[i, row], rest) for row in range(rows)
            ]
            coefficients.append(np.stack([fit.coefficients for fit in fits]))
            seen.append(fits[SOURCE].seen)
        anchors = self.face.maps.anchors(landmarks.reshape(b * rows * t, *landmarks.shape[3:]))
        return {
            "coefficients": torch.from_numpy(np.stack(coefficients)),
            "anchors": torch.from_numpy(anchors).view(b, rows, t, *anchors.shape[1:]),
        } | {f"seen/{name}": torch.from_numpy(np.stack([each[name] for each in seen])) for name in seen[0]}


def _draws(batch: Batch) -> dict[str, Tensor]:
    """What chance decides of each sample.

    edited: int64 [B], the first source frame whose edit is drawn, as a share of those that can be. shown, wanted: int64 [B, 2], row and
    frame of the picture that is redrawn from, and of the one it shall become: of the same recording (the mouth moves), or of the other
    (the emotion does), which `across` says, bool [B].
    """
    t = batch.valid.shape[2]
    draw = lambda what, *shape: uniform(batch.seed, f"ned/{what}", *shape)  # noqa: E731
    across = draw("across") < 0.5
    row, first, second = (draw("recording") * 2).long(), (draw("from") * t).long(), draw("to")
    alike = (first + 1 + (second * max(1, t - 1)).long()) % t
    to = torch.where(across, 1 - row, row), torch.where(across, (second * t).long(), alike)
    gauss = torch.erfinv((draw("noise", 4) * 2 - 1).clamp(-0.999, 0.999)) * 2**0.5
    return {
        "edited": draw("edited"),
        "shown": torch.stack([row, first], 1),
        "wanted": torch.stack(to, 1),
        "across": across,
        "noise": gauss,
        "by_reference": draw("mode") < 0.5,
    }


@dataclass
class Prepared:
    """What the phases of one step share.

    learnt: the windows that the manipulator learns from. windows: [B, 3, T, C], coefficients of source, reference and matched frames.
    paired: [B, T], where the matched are. by_reference: [B], whether the style is read from the reference or drawn. noise: [B, 4].
    emotion: int64 [B, 3], what source and reference show, index into `list(Emotion)`. landmarks, anchors: [B, T, L or A, 2] of the sources; seen: [B, T, ...] by name, how their heads are seen.
    frames: [B, 3, T, 3, S, S]. edited: int64 [B, F], the source frames whose edit is drawn.
    redraw: makes `redrawn`, scenes of a real frame of each sample, as drawn from another frame of the speaker; wanted: those frames [B, 3, S, S], and
    wanted_speech: what is heard with them.
    across: [B], whether the other frame is of another recording. results: what one phase leaves for the next.
    """

    learnt: Coefficients
    windows: Tensor
    paired: Tensor
    by_reference: Tensor
    noise: Tensor
    emotion: Tensor
    landmarks: Tensor
    anchors: Tensor
    seen: dict[str, Tensor]
    frames: Pictures
    speech: Tensor
    edited: Tensor
    redraw: Callable[[], Scene]
    wanted: Tensor
    wanted_speech: Tensor
    across: Tensor
    results: dict[str, Any]

    @cached_property
    def redrawn(self) -> Scene:
        """See the class. Made when it is asked for: a step without a renderer draws no frame again."""
        return self.redraw()


def prepare(batch: Batch, face: Face, dtype: torch.dtype, edited: int = 1) -> Prepared:
    """The batch's windows and scenes, on its device. edited: neighbouring frames of each source whose edit is drawn."""
    assert batch.landmarks is not None, "the loader's source was asked for landmarks"
    extras, t = batch.extras, batch.valid.shape[2]
    each = torch.arange(len(batch), device=batch.frames.device)
    frames = Pictures(batch.frames, dtype)
    # Half precision would place a landmark of a large picture half a pixel off.
    wide = torch.promote_types(dtype, torch.float32)
    points = torch.cat([batch.landmarks.to(wide), extras["anchors"].to(wide)], 3)
    coefficients = extras["coefficients"].to(wide)
    shown, wanted = ((each, *extras[name].unbind(1)) for name in ("shown", "wanted"))

    def redraw() -> Scene:
        return made_scene(
            face,
            points[wanted],
            points[shown],
            frames[shown],
            frames[wanted],
            (coefficients[shown], coefficients[wanted]),
            extras["across"],
        )

    first = (extras["edited"] * (t - edited + 1)).long().clamp(max=t - edited)
    count = face.model.topology.points
    return Prepared(
        learnt=Coefficients.of(batch, dtype),
        windows=coefficients.to(dtype),
        paired=batch.valid[:, MATCHED],
        by_reference=extras["by_reference"],
        noise=extras["noise"].to(dtype),
        emotion=batch.emotion,
        landmarks=points[:, SOURCE, :, :count],
        anchors=points[:, SOURCE, :, count:],
        seen={name.removeprefix("seen/"): v.to(wide) for name, v in extras.items() if name.startswith("seen/")},
        frames=frames,
        speech=batch.speech,
        edited=first[:, None] + torch.arange(edited, device=first.device),
        redraw=redraw,
        wanted=frames[wanted],
        wanted_speech=batch.speech[wanted],
        across=extras["across"].to(dtype),
        results={},
    )


def made_scene(
    face: Face,
    shape: Tensor,
    seen: Tensor,
    picture: Tensor,
    around: Tensor,
    expressions: tuple[Tensor, Tensor],
    recoloured: Tensor | None = None,
) -> Scene:
    """The face of `picture` [N, 3, S, S] with vertices `seen` [N, V, 2], moved to the vertices `shape`, within `around`.

    expressions: coefficients [N, C] of the face seen and of the one wanted; their lines go and come.
    recoloured: bool [N], whether the moved face gets the colours that `around` has there: another recording has another light.
    Vertices are in float32 or better; the scene is in the picture's precision.
    """
    size, dtype = picture.shape[-1], picture.dtype
    picture, around = picture.to(shape.dtype), around.to(shape.dtype)
    drawn, grid = face.maps.draw(shape, seen, size)
    moved, mask = warped(picture, grid), drawn[:, -1:]
    moved = face.texture.drawn_on(moved, *expressions, drawn)
    soft = mask_edge(mask, max(1, round(EDGE * size)))
    if recoloured is not None:
        moved = torch.where(recoloured[:, None, None, None], with_colours_of(moved, around, soft), moved)
    axis = (torch.arange(size, device=grid.device, dtype=grid.dtype) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    distance = 4 * (grid - torch.stack([x, y], -1)).permute(0, 3, 1, 2)
    source = torch.cat([around * (1 - mask), moved, distance], 1)
    return Scene(drawn.to(dtype), source.to(dtype), soft.to(dtype))


def edited_scene(prepared: Prepared, face: Face, edited: Tensor) -> tuple[Scene, Tensor]:
    """The F frames of each source with the edited coefficients [B, T, C], and those frames as they are [B * F, 3, S, S].

    Differentiable in the coefficients.
    """
    each = torch.arange(len(edited), device=edited.device)[:, None]
    at = (each, prepared.edited)
    before = prepared.windows[:, SOURCE][at].to(prepared.landmarks.dtype).flatten(0, 1)
    after = face.model.bounded(edited[at].to(before.dtype).flatten(0, 1))
    shift = face.shift(before, after, {name: value[at].flatten(0, 1) for name, value in prepared.seen.items()})
    landmarks, anchors = prepared.landmarks[at].flatten(0, 1), prepared.anchors[at].flatten(0, 1)
    picture = prepared.frames[each, SOURCE, prepared.edited].flatten(0, 1)
    shape, seen = (torch.cat([points, anchors], 1) for points in (landmarks + shift, landmarks))
    return made_scene(face, shape, seen, picture, picture, (before, after)), picture
