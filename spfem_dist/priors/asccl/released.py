"""ASCCL as published: what the authors' code computes, its defects included.

ASCCL (Chen et al., CVPR 2024), "Learning Adaptive Spatial Coherent Correlations"; facts about the code, in our own words:

* The whole iresnet50, begun from ArcFace's weights and trained with the rest, gives four maps. In each, 32, 16, 8 and 4 places are
  drawn; the features of a place minus those of its eight neighbours are its disparities.
* An MLP for each map turns disparities into unit vectors. InfoNCE (temperature .07): the query's vector at a place belongs to the
  key's at the same place, against all other places and neighbours of **the same picture**. Never asked: at which moment. The key
  gets no gradient.
* The adaptive weight of a channel's disparity d is 2 t^2 where t = sigmoid(|d|) > .8, else 1; it multiplies the mean loss **by its
  own mean**, so that no place counts more than another, and it is not detached, so that large disparities are pulled towards 0.
* In the last map the places begin at the border: a neighbour beyond it is the one at the far edge.
* Stage 1 reads pictures blue-green-red, stage 2 hands over red-green-blue ones of another size.
* In stage 2 the published module stays in train mode (batch statistics of generated and real frames apart). Here `freeze` keeps it in
  eval mode, as every prior: frames would otherwise depend on the frames and workers beside them.
"""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.nets.batchnorm import synchronise
from spfem_dist.nets.frozen import evaluating
from spfem_dist.nets.iresnet import IResNet, load_exactly, read_tensors
from spfem_dist.nets.presented import present
from spfem_dist.priors.asccl.metric import around_mouth, disagreement_picture, disparities, drawn, square
from spfem_dist.priors.asccl.settings import Settings
from spfem_dist.priors.asccl.trunk import PAPER_SIZE, four_maps, paper_trunk, without_embedding
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch, Seeds
from spfem_dist.streaming.views import CONTENT

#: Parameters at the published sizes, all of them trained.
PAPER_PARAMETERS = 31_180_656
#: Side of the small network's pictures, pixels.
SMALL_SIZE = 64
#: Places in the four maps; each gives eight disparities.
PLACES = (32, 16, 8, 4)
TEMPERATURE, SCALE = 0.07, 0.3
#: The adaptive weight's threshold, factor and power.
HARD, FACTOR, POWER = 0.8, 2.0, 2


def region(side: int) -> tuple[int, int]:
    """Where places are drawn in a map of that side: the first row and column, and how many of each."""
    extent = int(side // 2 + 0.45 * side)
    return (side - extent) // 2, extent


def normalised(vectors: Tensor) -> Tensor:
    """Unit vectors along the last dimension, with the published constant."""
    return vectors / (vectors.norm(dim=-1, keepdim=True) + 1e-7)


def place_entropy(query: Tensor, key: Tensor) -> Tensor:
    """-log of the share of the right place among all of the picture, [N, S]; query, key: unit vectors [N, S, D]. Nothing reaches `key`."""
    logits = torch.einsum("nsd,ntd->nst", query, key.detach()) / TEMPERATURE
    target = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return F.cross_entropy(logits.transpose(1, 2), target, reduction="none")


def adaptive_weight(found: Tensor) -> Tensor:
    """1, or 2 sigmoid(|d|)^2 where the sigmoid exceeds .8; of disparities of any shape. Gradients flow through it, as published."""
    t = torch.sigmoid(found.abs())
    return torch.where(t > HARD, FACTOR * t**POWER, torch.ones_like(t))


class ReleasedASCCL(nn.Module):
    """The published ASCCL, trainable on batches of utterance groups. See the module's docstring for what it computes.

    settings.network: "paper" has the published sizes (224 px, iresnet50 begun from ArcFace's weights; 31,180,656 parameters); "small"
    is the same computation for a laptop (64 px, a trunk of one block for each map, from scratch). pretrained: load ArcFace's weights
    into the paper trunk. Names are the authors', so their state_dict loads.
    """

    view = CONTENT
    hears, frames, softened = False, 1, False
    compares_with: Literal["source", "reference"] = "source"

    def __init__(self, settings: Settings, *, pretrained: bool = True):
        super().__init__()
        self.settings = settings
        paper = settings.network == "paper"
        self.size = PAPER_SIZE if paper else SMALL_SIZE
        self.resnet50 = paper_trunk(pretrained) if paper else small_trunk()
        self.resnet50.bn2.requires_grad_(False)  # used by nothing: no gradient ever moves it
        self.mlp = nn.ModuleList()
        for width in self.resnet50.channels:
            self.mlp += [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width // 4)]
        synchronise(self)

    @property
    def _dtype(self) -> torch.dtype:
        return self.mlp[0].weight.dtype  # type: ignore[return-value]

    def code(self, level: int, found: Tensor) -> Tensor:
        """Disparities [N, S, C] of the map `level` -> unit vectors [N, S, C / 4]."""
        first, rectify, second = self.mlp[3 * level : 3 * level + 3]
        return normalised(second(rectify(first(found))))

    def contrast(self, query: Tensor, key: Tensor, centres: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """For each map the mean loss of places and the mean adaptive weight of each pair, [N] each.

        query, key: images [N, 3, H, W]. centres: places in each map, int64 [N, P, 2].
        """
        return self.contrast_maps(four_maps(self.resnet50, query), four_maps(self.resnet50, key), centres)

    def contrast_maps(
        self, query: list[Tensor], key: list[Tensor], centres: list[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """`contrast` of the four maps of query and key images."""
        found = []
        for level, (places, q, k) in enumerate(zip(centres, query, key, strict=True)):
            differs = disparities(q, places)
            entropy = place_entropy(self.code(level, differs), self.code(level, disparities(k, places)))
            found.append((entropy.mean(1), adaptive_weight(differs).mean((1, 2))))
        return found

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`asccl/spatial` of a batch with two recordings of matching frames: recording 0 asks, recording 1 is the key.

        A sample's K pairs are what the published code calls a batch: one draw of places, one mean loss times one mean weight.
        """
        b, r, k = batch.valid.shape
        if r < 2:
            raise ValueError(f"ASCCL needs 2 recordings for each sample, found {r}: draw content views")
        images = present(batch.frames[:, :2].transpose(0, 1).flatten(0, 2), self.size, "released", self._dtype)
        query, key = images.chunk(2)
        centres = []
        for number, count in enumerate(PLACES):
            places = drawn(batch.seed, f"asccl/places{number}", count, *region(self.size // 2 ** (number + 1)))
            centres.append(places.repeat_interleave(k, 0))
        counted = (batch.valid[:, 0] & batch.valid[:, 1]).to(self._dtype)

        def mean(values: Tensor) -> Tensor:
            return (values.view(b, k) * counted).sum(1) / counted.sum(1).clamp(min=1.0)

        parts = [(mean(entropy), mean(weight)) for entropy, weight in self.contrast(query, key, centres)]
        loss = SCALE * sum((entropy * weight).mean() for entropy, weight in parts)
        monitors = {f"asccl/place_entropy{i}": entropy.detach().mean() for i, (entropy, _) in enumerate(parts)}
        return {"asccl/spatial": loss}, monitors

    def guidance(self, edit: EditedFrames) -> dict[str, Tensor]:
        """`asccl/spatial`: the published stage-2 loss, the generated frame asking; a mean over frames. See `Prior.guidance`.

        The places of a frame are drawn by its source's pixels, so that a step that is repeated repeats them, whatever else is in
        the batch.
        """
        source, generated = edit.source.detach().flatten(0, 1), edit.generated.flatten(0, 1)
        side = source.shape[-1]
        query, key = (present(frames, side, "rgb", self._dtype) for frames in (generated, source))
        pixels = key.float().cpu().numpy()  # the one place of a step that waits for the host
        seeds = Seeds(tuple(zlib.crc32(one.tobytes()) for one in pixels), source.device)
        with torch.no_grad():
            wanted = four_maps(self.resnet50, key)
        centres = []
        for number, (count, maps) in enumerate(zip(PLACES, wanted, strict=True)):
            centres.append(drawn(seeds, f"asccl/places{number}", count, *region(maps.shape[-1])))
        parts = self.contrast_maps(four_maps(self.resnet50, query), wanted, centres)
        return {"asccl/spatial": edit.mean(SCALE * torch.stack([entropy * weight for entropy, weight in parts]).sum(0))}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`disagreement`: a face, and where the matching face and that of another moment differ from it."""
        with evaluating(self):
            return {"disagreement": disagreement_picture(self, batch)}

    # What `metric.Metric` asks.

    def face_maps(self, frames: Tensor) -> list[Tensor]:
        """Maps [N, C, side, side] of frames [N, 3, S, S], uint8 or in [-1, 1], as stage 1 presents them, finest first."""
        return four_maps(self.resnet50, present(frames, self.size, "released", self._dtype))

    def centres(self, side: int, window: str = "face") -> Tensor:
        """The places of a map of that side that may be drawn, all or those around the `mouth`, int64 [P, 2]."""
        places = square(*region(side))
        return places[around_mouth(places, side)] if window == "mouth" else places

    def load_released(self, path: str) -> None:
        """Fills the network from a checkpoint of the authors' code; raises ValueError where it does not fit."""
        load_exactly(self, read_tensors(path), str(path))


def small_trunk() -> IResNet:
    """A random trunk of one block for each map."""
    return without_embedding(IResNet((24, 48, 96, 96), (1, 1, 1, 1), stem=8, embedding=16, size=SMALL_SIZE))
