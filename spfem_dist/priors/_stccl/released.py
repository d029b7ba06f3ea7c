"""STCCL as published: what the authors' code computes, its defects included. It has visual differences alone; of the correlation matrix
no code was published.

STCCL (TPAMI 2026), three models of one repository; facts about the code, in our own words:

* `spatial`: ASCCL's disparities, whose MLPs are not called: the raw vectors are compared, weight .3.
* `temporal`, the one whose training loop runs: in each of iresnet50's four maps 256, 128, 64 and 32 positions are drawn **with
  replacement**, the same for both clips, anywhere in the map; the features of every earlier frame minus those of every later one pass
  ASCCL's MLPs, and InfoNCE (temperature .07) tells the place among the drawn ones, for each pair of frames apart. A position that is
  drawn twice is a negative that equals the positive. Never asked: at which moment.
* `joint`: the spatial contrast (with MLPs, without the .3) plus a temporal one of whole features at the drawn positions after a
  transformer over time for each map. The transformers sit in a plain list: **no optimiser reaches them**, they stay as they were drawn.
  The temperature is handed over in the place of a weight, so that the temporal term counts .07 * 5.

Windows are consecutive steps of the time-warp, 9 as both published trainers have them; frames repeat where it stalls. Two things are not
copied: the published reshape lets frames of different samples of a batch attend to each other, here each sample is alone (the same
for a batch of one); and the transformers' dropout, which nothing turns off there, is off, so that losses repeat. The repository has no
stage 2: guidance is the training loss with the generated window asking, as in ASCCL's.
"""

from __future__ import annotations

import math
import zlib
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from spfem_dist.nets.augment import uniform
from spfem_dist.nets.batchnorm import synchronise
from spfem_dist.nets.frozen import evaluating
from spfem_dist.nets.iresnet import load_exactly, read_tensors
from spfem_dist.nets.presented import present
from spfem_dist.priors._stccl.pictures import disagreement_picture
from spfem_dist.priors._stccl.relations import features_at
from spfem_dist.priors.asccl.metric import around_mouth, disparities, drawn, square
from spfem_dist.priors.asccl.released import (
    PLACES,
    SMALL_SIZE,
    adaptive_weight,
    normalised,
    place_entropy,
    region,
    small_trunk,
)
from spfem_dist.priors.asccl.trunk import PAPER_SIZE, four_maps, paper_trunk
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch, Seeds
from spfem_dist.streaming.views import windows_view

#: Positions drawn in the four maps, with replacement.
POSITIONS = (256, 128, 64, 32)
#: The spatial model's weight; the joint model's of its temporal term, and the temperature that is handed over as a weight.
SCALE, JOINT_WEIGHT, MISPLACED = 0.3, 5.0, 0.07
#: Parameters at the published sizes: of the trunk and MLPs, all trained, and of the four transformers, none of them trained.
PAPER_PARAMETERS, TIME_PARAMETERS = 31_180_656, 92_424_192
#: Which of the published models.
Model = Literal["spatial", "temporal", "joint"]


def frame_differences(features: Tensor) -> Tensor:
    """Each earlier frame's features minus each later one's, [N, T (T - 1) / 2, P, C], the first frame's first; features: [N, T, P, C]."""
    earlier, later = torch.triu_indices(features.shape[1], features.shape[1], 1, device=features.device)
    return features[:, earlier] - features[:, later]


class Positions(nn.Module):
    """Sines and cosines of the place in time, added to [T, N, width]; a buffer `pe` of 5000 rows, as published."""

    pe: Tensor

    def __init__(self, width: int):
        super().__init__()
        place = torch.arange(5000.0)[:, None]
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        page = torch.zeros(5000, 1, width)
        page[:, 0, 0::2], page[:, 0, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
        self.register_buffer("pe", page)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[: len(x)].to(x.dtype)


class TimeTransformer(nn.Module):
    """Features of T frames at all positions of a map, [N, T, P * C] -> the same shape: a projection to `width`, four layers over time, and back."""

    def __init__(self, inputs: int, width: int = 512, heads: int = 8, layers: int = 4):
        super().__init__()
        self.input_embedding = nn.Linear(inputs, width)
        self.positional_encoding = Positions(width)
        layer = nn.TransformerEncoderLayer(width, heads, width, dropout=0.0)
        self.transformer_encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.output_layer = nn.Linear(width, inputs)

    def forward(self, features: Tensor) -> Tensor:
        x = self.positional_encoding(self.input_embedding(features.transpose(0, 1)))
        return self.output_layer(self.transformer_encoder(x)).transpose(0, 1)


class ReleasedSTCCL(nn.Module):
    """The published STCCL, trainable on windows of utterance groups. See the module's docstring for what it computes.

    kind: what its losses are called by. model: which of the published ones. window: frames of a judgement. paper: the published sizes
    (224 px, iresnet50 begun from ArcFace's weights where `pretrained`), else the same computation for a laptop (64 px, one block for each
    map, from scratch). Names are the authors', so their state_dict loads; their transformers, which are in none, stay as drawn.
    """

    hears, softened = False, False
    compares_with: Literal["source", "reference"] = "source"

    def __init__(self, kind: str, model: Model, window: int, paper: bool, pretrained: bool = True):
        super().__init__()
        self.kind, self.model, self.frames = kind, model, window
        self.view = windows_view(window, along_path=True)
        self.size = PAPER_SIZE if paper else SMALL_SIZE
        self.resnet50 = paper_trunk(pretrained) if paper else small_trunk()
        self.resnet50.bn2.requires_grad_(False)  # used by nothing: no gradient ever moves it
        self.mlp = nn.ModuleList()
        for width in self.resnet50.channels:
            self.mlp += [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width // 4)]
        if model == "spatial":
            self.mlp.requires_grad_(False)  # never called
        synchronise(self)
        if model == "joint":
            sizes = (count * width for count, width in zip(POSITIONS, self.resnet50.channels, strict=True))
            self.time = nn.ModuleList(
                TimeTransformer(size, *((512, 8) if paper else (64, 4))) for size in sizes
            ).requires_grad_(False)

    @property
    def _dtype(self) -> torch.dtype:
        return self.resnet50.conv1.weight.dtype

    def code(self, level: int, found: Tensor) -> Tensor:
        """Differences [..., C] of the map `level` -> unit vectors [..., C / 4]; in the spatial model as they are, [..., C]."""
        if self.model == "spatial":
            return normalised(found)
        first, rectify, second = self.mlp[3 * level : 3 * level + 3]
        return normalised(second(rectify(first(found))))

    def spatial(self, query: list[Tensor], key: list[Tensor], centres: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """For each map the mean loss of places and the mean adaptive weight of each frame, [N] each; maps [N, C, H, W], centres [N, P, 2]."""
        found = []
        for level, (places, q, k) in enumerate(zip(centres, query, key, strict=True)):
            differs = disparities(q, places)
            entropy = place_entropy(self.code(level, differs), self.code(level, disparities(k, places)))
            found.append((entropy.mean(1), adaptive_weight(differs).mean((1, 2))))
        return found

    def temporal(self, query: list[Tensor], key: list[Tensor], positions: list[Tensor]) -> list[Tensor]:
        """For each map the mean entropy of each window, [N]; maps [N, T, C, H, W], positions [N, P, 2]."""
        found = []
        for level, (places, q, k) in enumerate(zip(positions, query, key, strict=True)):
            vectors = [self.over_time(level, maps, places).flatten(0, 1) for maps in (q, k)]
            found.append(place_entropy(*vectors).view(len(q), -1).mean(1))
        return found

    def over_time(self, level: int, maps: Tensor, places: Tensor) -> Tensor:
        """Unit vectors [N, R, P, D] at places [N, P, 2] of maps [N, T, C, H, W]: one for each pair of frames, or in the joint model each frame."""
        n, t = maps.shape[:2]
        features = features_at(maps.flatten(0, 1), places.repeat_interleave(t, 0)).unflatten(0, (n, t))
        if self.model != "joint":
            return self.code(level, frame_differences(features))
        # The published vector of a frame has all positions of its first channel first.
        through = self.time[level](features.transpose(2, 3).flatten(2))
        return normalised(through.unflatten(2, (-1, places.shape[1])).transpose(2, 3))

    def contrasts(self, query: list[Tensor], key: list[Tensor], seed: Seeds, valid: Tensor) -> dict[str, Tensor]:
        """Losses [N] of windows by name, 0 where a window does not count. query, key: maps [N, T, C, H, W]; seed: of each; valid: bool [N, T]."""
        whole, t = valid.all(1).to(self._dtype), valid.shape[1]
        losses: dict[str, Tensor] = {}
        if self.model != "temporal":
            centres = [
                drawn(seed, f"{self.kind}/places{i}", count, *region(maps.shape[-1])).repeat_interleave(t, 0)
                for i, (count, maps) in enumerate(zip(PLACES, query, strict=True))
            ]
            q, k = ([maps.flatten(0, 1) for maps in side] for side in (query, key))
            parts = [
                entropy.view(-1, t).mean(1) * weight.view(-1, t).mean(1)
                for entropy, weight in self.spatial(q, k, centres)
            ]
            losses["spatial"] = (SCALE if self.model == "spatial" else 1.0) * torch.stack(parts).sum(0) * whole
        if self.model != "spatial":
            scale = JOINT_WEIGHT * MISPLACED if self.model == "joint" else 1.0
            each = torch.stack(self.temporal(query, key, self.positions(seed, query))).sum(0)
            losses["temporal"] = scale * each * whole
        return {f"{self.kind}/{name}": value for name, value in losses.items()}

    def positions(self, seed: Seeds, maps: list[Tensor]) -> list[Tensor]:
        """Positions of each map, anywhere and with replacement, int64 [N, P, 2], a function of each sample's seed."""
        found = []
        for level, (count, page) in enumerate(zip(POSITIONS, maps, strict=True)):
            side = page.shape[-1]
            flat = (uniform(seed, f"{self.kind}/positions{level}", count) * side * side).long()
            found.append(torch.stack([flat // side, flat % side], -1).clamp(max=side - 1))
        return found

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`spatial`, `temporal` of a batch with two recordings whose K steps match: recording 0 asks, recording 1 is the key."""
        b, r, k = batch.valid.shape
        if r < 2:
            raise ValueError(f"{self.kind} needs 2 recordings for each sample, found {r}: draw views of windows")
        images = present(batch.frames[:, :2].transpose(0, 1).flatten(0, 2), self.size, "released", self._dtype)
        maps = [found.unflatten(0, (2, b, k)) for found in four_maps(self.resnet50, images)]
        query, key = ([found[side] for found in maps] for side in (0, 1))
        losses = self.contrasts(query, key, batch.seed, batch.valid[:, 0] & batch.valid[:, 1])
        return {name: each.mean() for name, each in losses.items()}, {}

    def guidance(self, edit: EditedFrames) -> dict[str, Tensor]:
        """The training loss with the generated window asking, a mean over windows of `frames` consecutive frames. See `Prior.guidance`.

        The places of a window are drawn by its source's pixels, so that a step that is repeated repeats them.
        """
        n, t = edit.generated.shape[:2]
        if t < self.frames:
            raise ValueError(f"{self.kind} judges windows of {self.frames} consecutive frames, found {t}")
        source, generated = (
            present(frames.flatten(0, 1), frames.shape[-1], "rgb", self._dtype)
            for frames in (edit.source.detach(), edit.generated)
        )
        valid = torch.ones(n, t, dtype=torch.bool, device=generated.device) if edit.valid is None else edit.valid
        with torch.no_grad():
            wanted = four_maps(self.resnet50, source)
        found = four_maps(self.resnet50, generated)

        def windows(maps: Tensor) -> Tensor:
            return maps.unflatten(0, (n, t)).unfold(1, self.frames, 1).movedim(-1, 2).flatten(0, 1)

        pixels = windows(source).float().cpu().numpy()  # the one place of a step that waits for the host
        seed = Seeds(tuple(zlib.crc32(one.tobytes()) for one in pixels), generated.device)
        query, key = ([windows(maps) for maps in side] for side in (found, wanted))
        counted = valid.unfold(1, self.frames, 1).flatten(0, 1)
        losses = self.contrasts(query, key, seed, counted)
        return {name: each.sum() / counted.all(1).sum().clamp(min=1) for name, each in losses.items()}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`disagreement`: a face, and where the matching window and a later one differ from its window."""
        with evaluating(self):
            return {"disagreement": disagreement_picture(self, batch)}

    # What scores and pictures ask.

    def face_maps(self, frames: Tensor) -> list[Tensor]:
        """Maps [N, T, C, side, side] of windows [N, T, 3, S, S], uint8 or in [-1, 1], as stage 1 presents them, finest first."""
        maps = four_maps(self.resnet50, present(frames.flatten(0, 1), self.size, "released", self._dtype))
        return [found.unflatten(0, frames.shape[:2]) for found in maps]

    def in_space(self, level: int, maps: Tensor, places: Tensor) -> Tensor | None:
        """Codes [N, S, D] of maps [N, C, H, W] at places [P, 2]; None where the model has no spatial part."""
        return (
            None if self.model == "temporal" else self.code(level, disparities(maps, places.expand(len(maps), -1, -1)))
        )

    def in_time(self, level: int, maps: Tensor, places: Tensor) -> Tensor | None:
        """Codes [N, S, D] of windows [N, T, C, H, W] at places [P, 2]; None where the model has no temporal part.

        The joint model's transformers take exactly as many positions as were drawn in training: the places in turn.
        """
        if self.model == "spatial":
            return None
        if self.model == "joint":
            wanted = torch.arange(POSITIONS[level], device=places.device) % len(places)
            return self.over_time(level, maps, places[wanted].expand(len(maps), -1, -1)).flatten(1, 2)
        return self.over_time(level, maps, places.expand(len(maps), -1, -1)).transpose(1, 2).flatten(1, 2)

    def grid(self, side: int, along: int, window: str = "face") -> Tensor:
        """Evenly spaced places of a map of that side, `along` or fewer each way, all or those around the `mouth`; int64 [P, 2]."""
        first, extent = region(side)
        places = square(first, extent)
        step = -(-extent // along)
        places = places[((places - first) % step == 0).all(1)]
        return places[around_mouth(places, side)] if window == "mouth" else places

    def load_released(self, path: str) -> None:
        """Fills trunk and MLPs from a checkpoint of the authors' code; raises ValueError where it does not fit."""
        tensors = read_tensors(path)
        own = self.state_dict()
        load_exactly(self, tensors | {name: own[name] for name in own if name.startswith("time.")}, str(path))
