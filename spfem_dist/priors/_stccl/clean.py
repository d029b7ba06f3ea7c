"""STCCL, clean form: do two windows of one speaker say the same, place by place and step by step (TPAMI 2026, corrected).

A metric between two windows of consecutive frames, not an embedding. In space it is ASCCL's; in time it compares how the features of a
place change over the window. The published temporal contrast is solved by recognising the place. Here the metric has to tell the
matching window from windows of the same clip that begin some frames earlier or later too. See docs/priors.md for each difference.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from spfem_dist.nets.augment import colour_jitter, face_crop, flip, random_shift, uniform
from spfem_dist.nets.batchnorm import synchronise
from spfem_dist.nets.frozen import evaluating
from spfem_dist.nets.small import resized, to_unit_range
from spfem_dist.priors._stccl.pictures import disagreement_picture
from spfem_dist.priors._stccl.settings import WindowSettings
from spfem_dist.priors.asccl.clean import (
    PaperTrunk,
    SmallTrunk,
    adaptive_weight,
    frame_similarity,
    moment_entropy,
    place_entropy,
    weighted_mean,
)
from spfem_dist.priors.asccl.metric import around_mouth, drawn_places, square
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch, Seeds
from spfem_dist.streaming.views import windows_view

#: Places drawn in each map for a training sample, finest map first.
PLACES = (16, 12, 8, 4)
#: Stage 2 looks at no more places than this along a side of a map.
GUIDED = 12


class CleanSTCCL(nn.Module):
    """How alike two windows are in what they say: relations at corresponding places, as unit vectors, and their cosines.

    relation: how places are described, a module that answers `relations.Relation`, made for the trunk's `channels`.
    """

    hears, softened = False, False
    compares_with: Literal["source", "reference"] = "source"

    def __init__(self, settings: WindowSettings, trunk: SmallTrunk | PaperTrunk, relation: nn.Module):
        super().__init__()
        self.settings, self.kind, self.frames = settings, settings.kind, settings.window
        self.view = windows_view(settings.stretch)
        self.weights = {"spatial": settings.spatial_weight, "temporal": settings.temporal_weight}
        self.trunk = trunk
        self.relation = relation
        synchronise(self)

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses and monitors of a batch with R = 2 recordings whose K consecutive frames match in time.

        For space and time each: `place`, the place among all drawn places of the matching frame or window; `moment`, the matching window
        among the windows of the other recording that begin `window_gap` or more frames apart, by the mean over the same places.
        """
        b, r, k = batch.valid.shape
        if r != 2:
            raise ValueError(f"{self.kind} needs 2 recordings for each sample, found {r}: draw views of windows")
        if k < (length := self.settings.window):
            raise ValueError(f"{self.kind} judges windows of {length} frames, found {k}: raise {self.kind}.stretch")
        valid = batch.valid[:, 0] & batch.valid[:, 1]
        whole = valid.unfold(1, length, 1).all(2)  # [B, W], the windows of found faces
        counted = {"spatial": valid, "temporal": whole}
        begins = torch.arange(whole.shape[1], device=whole.device)
        apart = (begins[:, None] - begins).abs()
        candidates = ((apart >= self.settings.window_gap) & whole[:, None, :]) | (apart == 0)  # [B, W, W]
        losses: dict[str, list[Tensor]] = {}
        monitors: dict[str, list[Tensor]] = {}
        for level, maps in enumerate(self.trunk(self.augmented(batch).to(self._dtype))):
            places = self.drawn(batch.seed, level, maps.shape[-1]).repeat_interleave(2, 0)
            for name, (codes, size) in self.relations(level, maps.unflatten(0, (2 * b, k)), places).items():
                if not self.weights[name]:
                    continue
                count = counted[name].float()
                hard = adaptive_weight(size.unflatten(0, (b, 2)), counted[name][:, None].expand(b, 2, -1))
                pair = codes.unflatten(0, (b, 2))
                for a, p in ((0, 1), (1, 0)):
                    query, key, weight = pair[:, a], pair[:, p], hard[:, a]
                    place, placed = place_entropy(query, key, self.settings.temperature)
                    similarity = frame_similarity(query, key, weight)
                    if name == "spatial":
                        similarity = of_windows(similarity, length)
                    moment, timed = moment_entropy(similarity, candidates, self.settings.temperature)
                    for task, entropy, right, share in (
                        ("place", place, placed, count[..., None].expand_as(place)),
                        ("moment", moment, timed, whole.float()),
                    ):
                        harder = share * weight if task == "place" else share
                        losses.setdefault(f"{name}_{task}", []).append(weighted_mean(entropy, harder))
                        monitors.setdefault(f"{name}_{task}_hit{level}", []).append(weighted_mean(right, share))
        scale = {
            f"{name}_{task}": weight * (self.settings.moment_weight if task == "moment" else 1.0)
            for name, weight in self.weights.items()
            for task in ("place", "moment")
        }
        return (
            {f"{self.kind}/{n}": scale[n] * torch.stack(v).mean() for n, v in losses.items() if scale[n]},
            {f"{self.kind}/{n}": torch.stack(v).detach().mean() for n, v in monitors.items()},
        )

    def guidance(self, edit: EditedFrames) -> dict[str, Tensor]:
        """`spatial`, `temporal`: 1 - cos of source and generated relations, a mean over places and frames or windows. See `Prior.guidance`.

        edit: windows of T >= `frames` consecutive frames; every `frames` of them in turn are a window. Every place of a grid is
        compared, so nothing is drawn. `mouth_share` of the weight lies around the mouth, and the source's adaptive weight is in it.
        """
        n, t = edit.generated.shape[:2]
        if t < self.frames:
            raise ValueError(f"{self.kind} judges windows of {self.frames} consecutive frames, found {t}")
        valid = torch.ones(n, t, device=edit.generated.device) if edit.valid is None else edit.valid
        counts = {"spatial": valid.float(), "temporal": valid.unfold(1, self.frames, 1).float().amin(2)}
        with torch.no_grad():
            wanted = self.face_maps(edit.source)
        found = self.face_maps(edit.generated)
        terms: dict[str, list[Tensor]] = {name: [] for name in counts}
        for level, (real, fake) in enumerate(zip(wanted, found, strict=True)):
            places = self.grid(real.shape[-1], GUIDED).to(real.device)
            near = self._near_mouth(places, real.shape[-1])
            with torch.no_grad():
                asked = self.relations(level, real, places.expand(n, -1, -1))
            for name, (codes, _) in self.relations(level, fake, places.expand(n, -1, -1)).items():
                if not self.weights[name]:
                    continue
                shape = (n, counts[name].shape[1], len(places), -1)
                with torch.no_grad():
                    weight = adaptive_weight(asked[name][1]).view(shape)
                    weight = self._shared_out(weight, near)
                cosines = (asked[name][0] * codes).sum(-1).view(shape)
                terms[name].append((weight * (1 - cosines)).sum((2, 3)))
        return {
            f"{self.kind}/{name}": self.weights[name]
            * (torch.stack(each).mean(0) * counts[name]).sum()
            / counts[name].sum().clamp(min=1)
            for name, each in terms.items()
            if each
        }

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`disagreement`: a face, and where the matching window and a later one differ from its window."""
        with evaluating(self):
            return {"disagreement": disagreement_picture(self, batch)}

    # What scores and pictures ask.

    def face_maps(self, frames: Tensor) -> list[Tensor]:
        """Maps [N, T, C, side, side] of windows [N, T, 3, S, S], uint8 or in [-1, 1], finest first."""
        maps = self.trunk(self.cropped(frames.flatten(0, 1)).to(self._dtype))
        return [found.unflatten(0, frames.shape[:2]) for found in maps]

    def relations(self, level: int, maps: Tensor, places: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """What the map `level` [N, T, C, H, W] of consecutive frames says at places [N, P, 2]: codes and sizes by name.

        `spatial`: [N, T, S, D] and [N, T, S]; `temporal`: [N, W, P, D] and [N, W, P], for each of W = T - `frames` + 1 windows.
        """
        n, t = maps.shape[:2]
        codes, size = self.relation.spatial(level, maps.flatten(0, 1), places.repeat_interleave(t, 0))
        return {
            "spatial": (codes.unflatten(0, (n, t)), size.unflatten(0, (n, t))),
            "temporal": self.relation.temporal(level, maps, places, self.frames),
        }

    def in_space(self, level: int, maps: Tensor, places: Tensor) -> Tensor | None:
        """Codes [N, S, D] of frames' maps [N, C, H, W] of that level at places [P, 2]; None where space has no weight."""
        if not self.weights["spatial"]:
            return None
        return self.relation.spatial(level, maps, places.expand(len(maps), -1, -1))[0]

    def in_time(self, level: int, maps: Tensor, places: Tensor) -> Tensor | None:
        """Codes [N, P, D] of windows' maps [N, `frames`, C, H, W] of that level at places [P, 2]; None where time has no weight."""
        if not self.weights["temporal"]:
            return None
        return self.relation.temporal(level, maps, places.expand(len(maps), -1, -1), self.frames)[0][:, 0]

    def grid(self, side: int, along: int, window: str = "face") -> Tensor:
        """Evenly spaced places of a map of that side, `along` or fewer each way, all or those around the `mouth`; int64 [P, 2]."""
        places, margin = self.centres(side, window), self.relation.margin
        step = -(-(side - 2 * margin) // along)
        return places[((places - margin) % step == 0).all(1)]

    def _shared_out(self, weight: Tensor, near: Tensor) -> Tensor:
        """Weights [N, T, P, E] that sum to 1 in each frame, `mouth_share` of them at the places [P] that are `near` the mouth."""
        inside = near[:, None].to(weight.dtype)
        return sum(
            share * part / part.sum((2, 3), keepdim=True).clamp(min=1e-9)
            for share, part in (
                (self.settings.mouth_share, weight * inside),
                (1 - self.settings.mouth_share, weight * (1 - inside)),
            )
        )

    def augmented(self, batch: Batch) -> Tensor:
        """The batch's faces [B * R * K, 3, side, side] in [-1, 1]; shifted, mirrored and recoloured in training only.

        All faces of a sample are shifted and mirrored alike, so that places stay corresponding ones; all of a recording are
        recoloured alike, so that light does not flicker.
        """
        frames, (r, k) = batch.frames.flatten(0, 2), batch.valid.shape[1:]
        if not self.training:
            return self.cropped(frames)
        moves = random_shift(frames[:: r * k], batch.seed, f"{self.kind}/shift", self.settings.shift, (1, 1))
        faces = self.cropped(frames, moves.repeat_interleave(r * k, 0))
        faces = flip(faces, (uniform(batch.seed, f"{self.kind}/flip") < 0.5).repeat_interleave(r * k, 0))
        colours = uniform(batch.seed, f"{self.kind}/colour", r, 5).flatten(0, 1).repeat_interleave(k, 0)
        return colour_jitter(faces, self.settings.colour_jitter, colours)

    def cropped(self, frames: Tensor, offset: Tensor | None = None) -> Tensor:
        """The face of frames [N, 3, S, S] as the trunk sees it, float [N, 3, side, side] in [-1, 1]."""
        crop = face_crop(frames, self.settings.crop, self.settings.crop_row, offset)
        return resized(to_unit_range(crop), self.trunk.side)

    def drawn(self, seed: Seeds, level: int, side: int) -> Tensor:
        """The places drawn for each sample, int64 [B, P, 2]: `mouth_share` of them around the mouth, the rest elsewhere."""
        places = self.centres(side)
        numbers = uniform(
            seed.to("cpu"), f"{self.kind}/places{level}", len(places)
        )  # how many lie at the mouth is asked on the host
        near = self._near_mouth(places, side)
        drawn = drawn_places(places, near, numbers, PLACES[level], self.settings.mouth_share)
        return drawn.to(seed.device, non_blocking=True)

    def centres(self, side: int, window: str = "face") -> Tensor:
        """The places of a map of that side that keep the relation's margin, all or those around the `mouth`, int64 [P, 2]."""
        margin = self.relation.margin
        places = square(margin, side - 2 * margin)
        return places[self._near_mouth(places, side)] if window == "mouth" else places

    def _near_mouth(self, places: Tensor, side: int) -> Tensor:
        return around_mouth(places, side, self.settings.crop, self.settings.crop_row)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.relation.parameters()).dtype


def trunk_of(settings: WindowSettings, pretrained: bool) -> SmallTrunk | PaperTrunk:
    """ASCCL's trunk of the network that the settings name."""
    return PaperTrunk(pretrained) if settings.network == "paper" else SmallTrunk()


def of_windows(similarity: Tensor, length: int) -> Tensor:
    """How alike two windows of `length` frames are by their frames in turn: [B, K, K] of frames -> [B, W, W], W = K - length + 1."""
    k = similarity.shape[1]
    w = k - length + 1
    return torch.stack([similarity[:, i : i + w, i : i + w] for i in range(length)]).mean(0)
