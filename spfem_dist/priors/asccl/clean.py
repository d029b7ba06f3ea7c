"""ASCCL, clean form: do two faces of one speaker say the same, judged place by place, whatever the emotion (CVPR 2024, corrected).

A metric between two pictures, not an embedding: at each place the disparities (features minus those of each of the eight neighbours)
of one face are compared with those of the other. The published objective is solved mostly by recognising the place. Here the metric
has to tell the matching frame from other moments of the clip too, half of the places lie around the mouth, and the adaptive weight
makes hard places count more. See docs/priors.md for what each difference is.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.config import Data
from spfem_dist.nets.augment import colour_jitter, face_crop, flip, random_shift, uniform
from spfem_dist.nets.batchnorm import BatchNorm2d, synchronise
from spfem_dist.nets.frozen import evaluating
from spfem_dist.nets.small import SIDE, resized, to_unit_range, unit
from spfem_dist.priors.asccl.metric import (
    around_mouth,
    codes_at,
    disagreement_picture,
    disparities,
    drawn_places,
    square,
)
from spfem_dist.priors.asccl.settings import Settings
from spfem_dist.priors.asccl.trunk import PAPER_SIZE, four_maps, paper_trunk
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch, Seeds
from spfem_dist.streaming.views import CONTENT

#: The adaptive weight's factor and power (lambda and r of the paper).
FACTOR, POWER = 2.0, 2
#: Places drawn in each map for a training sample, finest map first; each gives eight disparities.
PLACES = (16, 12, 8, 4)
#: Stage 2 looks at no more places than this along a side of a map.
GUIDED = 12


class SmallTrunk(nn.Module):
    """Faces [N, 3, 48, 48] -> maps [N, 48, 24, 24] and [N, 96, 12, 12]."""

    channels, side = (48, 96), SIDE
    compilable = True

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(*convolution(3, 32, 5, 2), *convolution(32, 48, 3, 1))
        self.coarse = nn.Sequential(*convolution(48, 96, 3, 2), *convolution(96, 96, 3, 1))

    def forward(self, faces: Tensor) -> list[Tensor]:
        # Channels last halves the time of these convolutions on the CPU.
        fine = self.fine(faces.contiguous(memory_format=torch.channels_last))
        return [fine, self.coarse(fine)]


def convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [layer, BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class PaperTrunk(nn.Module):
    """Faces [N, 3, 224, 224] -> the four maps of an iresnet50 begun from ArcFace's weights, 112 to 14 cells a side."""

    side = PAPER_SIZE
    compilable = True

    def __init__(self, pretrained: bool) -> None:
        super().__init__()
        self.network = paper_trunk(pretrained)
        del self.network.bn2  # comes after the last map
        self.channels = self.network.channels

    def forward(self, faces: Tensor) -> list[Tensor]:
        return four_maps(self.network, faces)


class CleanASCCL(nn.Module):
    """How alike two faces are in what they say: disparities at corresponding places, as unit vectors, and their cosines."""

    view = CONTENT
    hears, frames, softened = False, 1, False
    compares_with: Literal["source", "reference"] = "source"

    def __init__(self, settings: Settings, data: Data, *, pretrained: bool = True):
        super().__init__()
        self.settings, self.minimum_gap = settings, data.minimum_gap
        self.trunk: SmallTrunk | PaperTrunk = PaperTrunk(pretrained) if settings.network == "paper" else SmallTrunk()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(c, c), nn.ReLU(inplace=True), nn.Linear(c, max(32, c // 4)))
            for c in self.trunk.channels
        )
        synchronise(self)

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses and monitors of a batch with R = 2 recordings whose frames k match in time.

        `asccl/place`: the place among all drawn places of the matching frame. `asccl/moment`: the matching frame among the other
        recording's frames that are `data.minimum_gap` or more away, by the mean over the same places. Monitors: how often each is
        right, by map.
        """
        b, r, k = batch.valid.shape
        if r != 2:
            raise ValueError(f"ASCCL needs 2 recordings for each sample, found {r}: draw content views")
        same = torch.eye(k, dtype=torch.bool, device=batch.valid.device)
        far = (batch.position[..., :, None] - batch.position[..., None, :]).abs() >= self.minimum_gap
        candidates = (far & batch.valid[:, :, None, :]) | same  # [B, 2, K, K]
        both = (batch.valid[:, 0] & batch.valid[:, 1]).float()
        place, moment = [], []
        monitors: dict[str, Tensor] = {}
        for level, maps in enumerate(self.trunk(self.augmented(batch).to(self._dtype))):
            centres = self.drawn(batch.seed, level, maps.shape[-1]).repeat_interleave(2 * k, 0)
            differs = disparities(maps, centres)
            codes = self.code(level, differs).view(b, 2, k, differs.shape[1], -1)
            size = differs.detach().norm(dim=-1).view(b, 2, k, -1)
            weights = adaptive_weight(size, batch.valid)
            hits = []
            for a, p in ((0, 1), (1, 0)):
                query, key, weight = codes[:, a], codes[:, p], weights[:, a]
                entropy, right = place_entropy(query, key, self.settings.temperature)
                place.append(weighted_mean(entropy, weight * both[..., None]))
                hits.append([weighted_mean(right, both[..., None].expand_as(right))])
                similarity = frame_similarity(query, key, weight)
                entropy, right = moment_entropy(similarity, candidates[:, p], self.settings.temperature)
                moment.append(weighted_mean(entropy, both))
                hits[-1].append(weighted_mean(right, both))
            monitors |= {
                f"asccl/{name}_hit{level}": (one + two).detach() / 2
                for name, one, two in zip(("place", "moment"), *hits, strict=True)
            }
        losses = {"asccl/place": torch.stack(place).mean()}
        if self.settings.moment_weight:
            losses["asccl/moment"] = self.settings.moment_weight * torch.stack(moment).mean()
        return losses, monitors

    def guidance(self, edit: EditedFrames) -> dict[str, Tensor]:
        """`asccl/spatial`: 1 - cos of source and generated disparities, a mean over places. See `Prior.guidance`.

        Every place of a grid is compared, so nothing is drawn. `mouth_share` of the weight lies around the mouth, and the source's
        adaptive weight is in it.
        """
        with torch.no_grad():
            wanted = self.face_maps(edit.source.flatten(0, 1))
        found = self.face_maps(edit.generated.flatten(0, 1))
        terms = []
        for level, (real, fake) in enumerate(zip(wanted, found, strict=True)):
            side = real.shape[-1]
            places = self.centres(side)
            step = -(-(side - 2) // GUIDED)
            places = places[((places - 1) % step == 0).all(1)].to(real.device)
            with torch.no_grad():
                wanted_code = codes_at(self, level, real, places)
                size = disparities(real, places.expand(len(real), -1, -1)).norm(dim=-1)
                weight = adaptive_weight(size).unflatten(1, (len(places), -1))
                near = self._near_mouth(places, side)[:, None].to(weight.dtype)
                weight = sum(
                    share * part / part.sum((1, 2), keepdim=True).clamp(min=1e-9)
                    for share, part in (
                        (self.settings.mouth_share, weight * near),
                        (1 - self.settings.mouth_share, weight * (1 - near)),
                    )
                )
            cosines = (wanted_code * codes_at(self, level, fake, places)).sum(-1)
            terms.append((weight * (1 - cosines)).sum((1, 2)))
        return {"asccl/spatial": edit.mean(torch.stack(terms).mean(0))}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`disagreement`: a face, and where the matching face and that of another moment differ from it."""
        with evaluating(self):
            return {"disagreement": disagreement_picture(self, batch)}

    # What `metric.Metric` asks.

    def face_maps(self, frames: Tensor) -> list[Tensor]:
        """Maps [N, C, side, side] of frames [N, 3, S, S], uint8 or in [-1, 1], finest first."""
        return self.trunk(self.cropped(frames).to(self._dtype))

    def code(self, level: int, found: Tensor) -> Tensor:
        """Disparities [N, S, C] of the map `level` -> unit vectors [N, S, D]."""
        return unit(self.heads[level](found))

    def centres(self, side: int, window: str = "face") -> Tensor:
        """The places of a map of that side that are one cell or more from its border, all or those around the `mouth`, int64 [P, 2]."""
        places = square(1, side - 2)
        return places[self._near_mouth(places, side)] if window == "mouth" else places

    def drawn(self, seed: Seeds, level: int, side: int) -> Tensor:
        """The places drawn for each sample, int64 [B, P, 2]: `mouth_share` of them around the mouth, the rest elsewhere."""
        places = self.centres(side)
        numbers = uniform(
            seed.to("cpu"), f"asccl/places{level}", len(places)
        )  # how many lie at the mouth is asked on the host
        near = self._near_mouth(places, side)
        drawn = drawn_places(places, near, numbers, PLACES[level], self.settings.mouth_share)
        return drawn.to(seed.device, non_blocking=True)

    def augmented(self, batch: Batch) -> Tensor:
        """The batch's faces [B * R * K, 3, side, side] in [-1, 1]; shifted, mirrored and recoloured in training only.

        All faces of a sample are shifted and mirrored alike, so that places stay corresponding ones.
        """
        frames, each = batch.frames.flatten(0, 2), tuple(batch.valid.shape[1:])
        if not self.training:
            return self.cropped(frames)
        count = each[0] * each[1]
        moves = random_shift(frames[::count], batch.seed, "asccl/shift", self.settings.shift, (1, 1))
        faces = self.cropped(frames, moves.repeat_interleave(count, 0))
        faces = flip(faces, (uniform(batch.seed, "asccl/flip") < 0.5).repeat_interleave(count, 0))
        colours = uniform(batch.seed, "asccl/colour", *each, 5).flatten(0, 2)
        return colour_jitter(faces, self.settings.colour_jitter, colours)

    def cropped(self, frames: Tensor, offset: Tensor | None = None) -> Tensor:
        """The face of frames [N, 3, S, S] as the trunk sees it, float [N, 3, side, side] in [-1, 1]."""
        crop = face_crop(frames, self.settings.crop, self.settings.crop_row, offset)
        return resized(to_unit_range(crop), self.trunk.side)

    def _near_mouth(self, places: Tensor, side: int) -> Tensor:
        return around_mouth(places, side, self.settings.crop, self.settings.crop_row)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.heads.parameters()).dtype


def place_entropy(query: Tensor, key: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE of each place among all places of the matching frame, and where the right one wins; codes [B, K, S, D] -> both [B, K, S]."""
    logits = torch.einsum("bksd,bktd->bkst", query, key) / temperature
    target = torch.arange(logits.shape[-1], device=logits.device).expand(logits.shape[:3])
    return F.cross_entropy(logits.movedim(3, 1), target, reduction="none"), (logits.argmax(3) == target).float()


def frame_similarity(query: Tensor, key: Tensor, weight: Tensor) -> Tensor:
    """The metric of every two frames: the mean cosine of corresponding places by the query's weight [B, K, S]; codes [B, K, S, D] -> [B, K, K]."""
    share = weight / weight.sum(-1, keepdim=True)
    return (query * share[..., None]).flatten(2) @ key.flatten(2).transpose(1, 2)


def moment_entropy(similarity: Tensor, candidates: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE of the matching frame, frame k for frame k, among the candidates (bool), all [B, K, K], and where it wins; both [B, K]."""
    logits = (similarity / temperature).masked_fill(~candidates, -torch.inf)
    target = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    return F.cross_entropy(logits.transpose(1, 2), target, reduction="none"), (logits.argmax(2) == target).float()


def adaptive_weight(size: Tensor, valid: Tensor | None = None) -> Tensor:
    """How much each disparity counts: from 1 at its sample's mean size up to 2 for large ones.

    size: [B, ..., S], the disparities' norms. valid: bool [B, ...], the frames whose mean is meant; None takes all. The paper's
    2 sigmoid(|d|)^2, by place, of sizes relative to their mean, so that it does not depend on the features' scale.
    """
    counted = torch.ones_like(size) if valid is None else valid[..., None].expand_as(size).to(size.dtype)
    mean = (size * counted).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)
    t = torch.sigmoid(size / mean.clamp(min=1e-9).view(-1, *[1] * (size.dim() - 1)))
    return (FACTOR * t**POWER).clamp(min=1.0)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of each sample [B, ...], then over samples; a sample without weight counts as 0."""
    values, weights = (torch.where(weights > 0, values, torch.zeros_like(values)).flatten(1), weights.flatten(1))
    return ((values * weights).sum(1) / weights.sum(1).clamp(min=1e-9)).mean()
