"""A batch as ICface sees it: pairs of frames of one person, the units that they show, and edits of source windows.

What must be computed on the host (units of landmarks, draws) is added to a batch in the loader's threads (`Measuring`); `prepare` and all
that follows stay on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spfem_dist.generators.face.light import with_colours_of
from spfem_dist.generators.face.maps import EDGE, FaceMaps, mask_edge, warped
from spfem_dist.generators.face.texture import ExpressionTexture
from spfem_dist.generators.guided import Pictures
from spfem_dist.generators.icface.networks import Known
from spfem_dist.generators.icface.units import POSE, Measured, Units
from spfem_dist.nets.augment import uniform
from spfem_dist.records import Batch
from spfem_dist.streaming.views import REFERENCE, SOURCE


@dataclass
class Face:
    """What a job knows of faces: units, the maps of their mesh, the lines that units draw, and each training speaker's shape at rest."""

    units: Units
    maps: FaceMaps
    texture: ExpressionTexture
    rests: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        units: Units,
        texture: ExpressionTexture,
        rests: Mapping[str, np.ndarray] | None = None,
        device: torch.device | str = "cpu",
    ) -> Face:
        """What is drawn with lies on `device`."""
        return cls(units, FaceMaps(units.model).to(device), texture.to(device), rests or {})


class Measuring:
    """Adds to a batch what ICface needs of the host; called in the loader's threads, a function of each sample alone.

    person: int64 [B], the speaker's number among the training part's; -100 for others. shown, wanted: int64 [B, 2], row and frame of a
    picture and of its driving frame; across: bool [B], whether that is of the other recording. shown_condition, wanted_condition: float32
    [B, C]. vertices: float32 [B, V, 2], the driving face laid over the picture; laid: float32 [B, 2, 3], how (as `affine_grid` takes it).
    own, edit: float32 [B, T, C], the source window's conditions, and with the reference's level. first: float32 [B], where the edited frames begin.
    pair_shapes: float32 [B, 3, V, 2], edit_shapes: [B, T, 3, V, 2], the face as it is, without expression and under the wanted units.

    people: training speakers in order. levels: mean units [U] of the training recordings by group and emotion, index into
    `list(Emotion)`; of others the window's own mean is taken. across: share of pairs over two recordings. window: measures frames [T] of a
    recording of a group by their landmarks [T, L, 2], given the person's rest.
    """

    def __init__(
        self,
        face: Face,
        people: list[str],
        levels: Mapping[tuple[str, int], np.ndarray],
        across: float,
        size: int,
        window: Callable[[str, np.ndarray, np.ndarray, np.ndarray | None], Measured],
    ):
        self.face, self.levels, self.across, self.size, self.window = face, levels, across, size, window
        self.people = {speaker: number for number, speaker in enumerate(people)}

    def __call__(self, batch: Batch) -> Batch:
        assert batch.landmarks is not None, "the loader's source was asked for landmarks"
        assert batch.speakers is not None
        landmarks, draws = batch.landmarks.float().numpy(), self._draws(batch)
        each = [
            self._of_sample(
                landmarks[i],
                batch.position[i].numpy(),
                batch.speakers[i],
                [(batch.keys[i], int(emotion)) for emotion in batch.emotion[i, :2]],
                draws["shown"][i].tolist(),
                draws["wanted"][i].tolist(),
            )
            for i in range(len(batch))
        ]
        fits = {name: torch.from_numpy(np.stack([found[name] for found in each])) for name in each[0]}
        person = torch.tensor([self.people.get(speaker, -100) for speaker in batch.speakers])
        return replace(batch, extras={"person": person, **draws, **fits})

    def _draws(self, batch: Batch) -> dict[str, Tensor]:
        """What chance decides of each sample."""
        t = batch.valid.shape[2]
        draw = lambda what: uniform(batch.seed, f"icface/{what}")  # noqa: E731
        across = draw("across") < self.across
        row, first, second = (draw("recording") * 2).long(), (draw("from") * t).long(), draw("to")
        alike = (first + 1 + (second * max(1, t - 1)).long()) % t
        to = torch.where(across, 1 - row, row), torch.where(across, (second * t).long(), alike)
        return {
            "first": draw("edited"),
            "shown": torch.stack([row, first], 1),
            "wanted": torch.stack(to, 1),
            "across": across,
        }

    def _of_sample(
        self,
        landmarks: np.ndarray,
        positions: np.ndarray,
        speaker: str,
        names: list[tuple[str, int]],
        shown: list[int],
        wanted: list[int],
    ) -> dict[str, np.ndarray]:
        """Units and places of one sample: landmarks [R, T, L, 2] at positions [R, T]. names: group and emotion of source and reference."""
        units, maps = self.face.units, self.face.maps
        rest = self.face.rests.get(speaker)
        rows = [self.window(names[row][0], positions[row], landmarks[row], rest) for row in (SOURCE, REFERENCE)]
        laid, matrix = _laid(rows, landmarks, shown, wanted, self.size)
        ring = maps.anchors(landmarks[shown[0], shown[1]][None])[0]
        level = [self.levels.get(name, row.values.mean(0)) for name, row in zip(names, rows, strict=True)]
        source, seen, frame = rows[SOURCE], rows[shown[0]], shown[1]
        edit = edited_values(units, source.values, level[1] - level[0])
        wanted_units = rows[wanted[0]].values[wanted[1]]
        pair = shapes(self.face, landmarks[shown[0]], seen, np.broadcast_to(wanted_units, seen.values.shape))
        return {
            "shown_condition": seen.conditions[frame],
            "wanted_condition": rows[wanted[0]].conditions[wanted[1]],
            "vertices": np.concatenate([laid, ring]).astype(np.float32),
            "laid": matrix,
            "own": source.conditions,
            "edit": np.concatenate([edit, source.pose], 1).astype(np.float32),
            "pair_shapes": pair[frame],
            "edit_shapes": shapes(self.face, landmarks[SOURCE], source, edit),
        }


def shapes(face: Face, landmarks: np.ndarray, measured: Measured, wanted: np.ndarray) -> np.ndarray:
    """The face of a clip [T, L, 2] as it is, without expression, and under the units `wanted` [T, U]: float32 [T, 3, V, 2], with the ring."""
    ring = face.maps.anchors(landmarks)
    calm, moved = (face.units.moved(landmarks, measured, v) for v in (np.zeros_like(measured.values), wanted))
    each = [np.concatenate([points, ring], 1) for points in (landmarks, calm, moved)]
    return np.stack(each, 1).astype(np.float32)


def known_changes(face: Face, faces: Tensor, shown: Tensor, wanted: Tensor, size: int) -> tuple[Known, Tensor]:
    """How units are known to change faces, and where these are redrawn, soft at the edge: [N, 1, size, size].

    faces: [N, 3, V, 2], see `shapes`. shown, wanted: their conditions [N, C].
    """
    seen, calm, aimed = faces.unbind(1)
    own, asked = (condition[:, :-POSE].to(faces.dtype) for condition in (shown, wanted))
    calm_maps, _ = face.maps.draw(calm, seen, size)
    maps, _ = face.maps.draw(aimed, seen, size)
    between, whole = face.maps.flows(aimed, (calm, seen), size)[:2]
    known = Known(
        calm=face.maps.flow(calm, seen, size),
        between=between,
        whole=whole,
        calm_light=face.texture.light(own, torch.zeros_like(own), calm_maps),
        light=face.texture.light(own, asked, maps),
    )
    return known, mask_edge(maps[:, -1:], max(1, round(EDGE * size)))


def edited_values(units: Units, values: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Units [T, U] whose level is changed by [U], timing kept; what words move stays as it is."""
    return units.bounded(values + np.where(units.spoken, 0, change).astype(values.dtype))


def _laid(
    rows: list[Measured], landmarks: np.ndarray, shown: list[int], wanted: list[int], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The driving frame's landmarks [L, 2] laid over the picture by the still points, and the matrix [2, 3] that looks its pixels up."""
    (here, at), (there, from_) = (
        (rows[row].seen.factor[frame], rows[row].seen.centre[frame] @ (1, 1j)) for row, frame in (shown, wanted)
    )
    points = landmarks[wanted[0], wanted[1]].astype(np.float64) @ (1, 1j)
    placed = (points - from_) / there * here + at
    turn = there / here
    shift = from_ - at * turn
    a, b, t = turn.real, turn.imag, 2 * shift / size
    matrix = np.array([[a, -b, a - b - 1 + t.real], [b, a, a + b - 1 + t.imag]], np.float32)
    return np.stack([placed.real, placed.imag], -1), matrix


@dataclass
class Prepared:
    """What the phases of one step share. Pictures are in [-1, 1].

    picture, driving: [B, 3, S, S], the second laid over the first and in its colours. shown, wanted: conditions [B, C]. soft: [B, 1, S, S], where
    pictures are redrawn; weight: the same, eyes and mouth counting more. across: [B]. person: int64 [B].
    edited: int64 [B, F], the source frames that are edited; to_edit: [B * F, 3, S, S], own, edit: their conditions [B * F, C]; edit_soft.
    known, edit_known: how units are known to change both.
    frames: [B, R, T, 3, S, S]. results: what one phase leaves for the next.
    """

    picture: Tensor
    driving: Tensor
    shown: Tensor
    wanted: Tensor
    soft: Tensor
    weight: Tensor
    across: Tensor
    person: Tensor
    edited: Tensor
    to_edit: Tensor
    own: Tensor
    edit: Tensor
    edit_soft: Tensor
    known: Known
    edit_known: Known
    frames: Pictures
    speech: Tensor
    emotion: Tensor
    results: dict[str, Any]


#: How much more an error within eyes and mouth counts than one elsewhere in the face.
FEATURES = 2.0


def prepare(batch: Batch, face: Face, dtype: torch.dtype, edited: int) -> Prepared:
    """The batch's pairs and edits, on its device. edited: neighbouring frames of each source whose edit is drawn; 0: none is."""
    extras, t, size = batch.extras, batch.valid.shape[2], batch.frames.shape[-1]
    each = torch.arange(len(batch), device=batch.frames.device)
    # Half precision would place a landmark of a large picture half a pixel off.
    wide = torch.promote_types(dtype, torch.float32)
    frames = Pictures(batch.frames, dtype)
    picture, driving = (frames[(each, *extras[name].unbind(1))] for name in ("shown", "wanted"))
    vertices = extras["vertices"].to(wide)
    drawn, _ = face.maps.draw(vertices, vertices, size)
    shown, wanted = (extras[f"{name}_condition"].to(wide) for name in ("shown", "wanted"))
    known, soft = known_changes(face, extras["pair_shapes"].to(wide), shown, wanted, size)
    soft = soft.to(dtype)
    features = F.max_pool2d(drawn[:, 3:6].sum(1, keepdim=True).clamp(max=1), 5, 1, 2).to(dtype)
    grid = F.affine_grid(extras["laid"].to(wide), list(picture.shape), align_corners=False)
    driving = warped(driving.to(wide), grid).to(dtype)
    across = extras["across"]
    driving = torch.where(across[:, None, None, None], with_colours_of(driving, picture, soft), driving)

    first = (extras["first"] * (t - edited + 1)).long().clamp(max=t - edited)
    rows = first[:, None] + torch.arange(edited, device=first.device)
    at = (each[:, None], rows)
    own, edit = (extras[name].to(wide)[at].flatten(0, 1) for name in ("own", "edit"))
    edit_known, edit_soft = known_changes(face, extras["edit_shapes"].to(wide)[at].flatten(0, 1), own, edit, size)
    return Prepared(
        picture=picture,
        driving=driving,
        shown=shown.to(dtype),
        wanted=wanted.to(dtype),
        soft=soft,
        weight=soft * (1 + FEATURES * features),
        across=across.to(dtype),
        person=extras["person"],
        edited=rows,
        to_edit=frames[each[:, None], SOURCE, rows].flatten(0, 1),
        own=own.to(dtype),
        edit=edit.to(dtype),
        edit_soft=edit_soft.to(dtype),
        known=known,
        edit_known=edit_known,
        frames=frames,
        speech=batch.speech,
        emotion=batch.emotion,
        results={},
    )


def composed(picture: Tensor, around: Tensor, soft: Tensor) -> Tensor:
    """The drawn picture within the face, `around` outside; all [N, ., S, S]."""
    return picture * soft + around * (1 - soft)
