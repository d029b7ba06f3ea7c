"""CCRL as published: what the authors' code computes, its defects included.

CDRL (Chen et al., IJCV 2025), contrastive content representation learning; facts about the code, in our own words:

* A frozen ArcFace trunk gives V_raw(x) [C, h, w]; M (four residual blocks) maps it; speech gives one map s [1, h, w].
* queries W_q(s), one row copied over all channels; keys W_k(M(V_raw)); values W_v(V_raw): linear maps over the P = h * w
  **positions**, applied to each channel.
* A = softmax over keys of (Q^T K / scale), content = V A^T. Because all query rows are copies, the logits are the outer
  product of W_q(s) and the channel sum of the keys: **rank one**. Speech only sets how peaked one distribution is.
* loss = (1 - p) + n, where p and n are means of cosines clamped to [0, 1], between x and y (same content) and x and z.
* y is given **the speech of x**, z its own: speech alone separates them (the shortcut that the clean form removes).
* The trunk's parameters are frozen, but in train mode its batch-norm statistics move with every pass.
* Stage 2 divides the logits by the square root of the channels (16) where stage 1 divides by that of the positions (28).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from spfem_dist.config import Data
from spfem_dist.nets.batchnorm import passing_twice, synchronise
from spfem_dist.nets.frozen import evaluating
from spfem_dist.nets.iresnet import IResNet, iresnet50, load_backbone, load_exactly, read_tensors
from spfem_dist.nets.presented import Convention, present
from spfem_dist.priors.ccrl.settings import Settings
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch
from spfem_dist.streaming.views import CONTENT

#: Trainable parameters at the published sizes (224 px, 256 x 28 x 28 maps, 512-d speech).
PAPER_TRAINABLE = 13_753_217
#: Side of the images, pixels; the map's side is an eighth.
PAPER_SIZE, SMALL_SIZE = 224, 64
#: Width of a speech vector.
SPEECH_DIM = 512
#: How much the projection of log-mel windows magnifies. The speech branch ends in one channel and a ReLU; on unit-scale
#: vectors that channel is dead for every input in 7 of 40 fresh networks and nearly constant in the rest, so that speech
#: would never be heard; at 10 it is dead in 1 of 40, and the speech map varies eight times as much.
WINDOW_GAIN = 10.0


class SpeechMap(nn.Module):
    """Speech vector -> map: four 1-d convolutions along the vector, each with ReLU (the last too), then one linear layer."""

    def __init__(self, speech: int, side: int, width: int = 64):
        super().__init__()
        self.side = side
        self.conv1 = nn.Conv1d(1, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, padding=1)
        self.conv3 = nn.Conv1d(width, width, 3, padding=1)
        self.conv4 = nn.Conv1d(width, 1, 3, padding=1)
        self.fc = nn.Linear(speech, side * side)

    def forward(self, speech: torch.Tensor) -> torch.Tensor:
        """[N, 1, D] -> [N, 1, h, w]."""
        x = speech
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(convolution(x))
        return self.fc(x.flatten(1)).view(-1, 1, self.side, self.side)


class ResidualBlock(nn.Module):
    """conv, norm, ReLU, conv, norm, plus the input (1x1 conv and norm where the width changes), ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.skip_connection = nn.Sequential()
        if inputs != outputs:
            self.skip_connection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.skip_connection(x))


class ImageMap(nn.Module):
    """M: four residual blocks, C -> 2C -> 2C -> C -> C channels at constant size."""

    def __init__(self, channels: int):
        super().__init__()
        self.residual_block1 = ResidualBlock(channels, 2 * channels)
        self.residual_block2 = ResidualBlock(2 * channels, 2 * channels)
        self.residual_block3 = ResidualBlock(2 * channels, channels)
        self.residual_block4 = ResidualBlock(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.residual_block2(self.residual_block1(x))
        return self.residual_block4(self.residual_block3(x))


class MaskLearning(nn.Module):
    """The attention of speech over image positions. Names are the authors', so their state_dict loads.

    channels, side: of the trunk's map (256 and 28 as published). speech: width of the speech vector (512).
    scale: what the logits are divided by, the square root of the `positions` (stage 1) or of the `channels` (stage 2).
    """

    def __init__(
        self,
        channels: int = 256,
        side: int = 28,
        speech: int = 512,
        scale: Literal["positions", "channels"] = "positions",
    ):
        super().__init__()
        self.side, self.channels, self.scale = side, channels, scale
        self.audio_feature_mapping = SpeechMap(speech, side)
        self.image_feature_mapping = ImageMap(channels)
        self.linear_q = nn.Linear(side * side, side * side)
        self.linear_k = nn.Linear(side * side, side * side)
        self.linear_v = nn.Linear(side * side, side * side)

    def query(self, speech: torch.Tensor) -> torch.Tensor:
        """Speech vectors [N, 1, D] -> the one query row, [N, P]."""
        return self.linear_q(self.audio_feature_mapping(speech).flatten(1))

    def keys(self, maps: torch.Tensor) -> torch.Tensor:
        """Trunk maps [N, C, h, w] -> the keys summed over channels, [N, P]: all that equal query rows leave of Q^T K."""
        return self.linear_k(self.image_feature_mapping(maps).flatten(2)).sum(1)

    def values(self, maps: torch.Tensor) -> torch.Tensor:
        """Trunk maps [N, C, h, w] -> values [N, C, P]."""
        return self.linear_v(maps.flatten(2))

    def attention(self, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """[N, P], [N, P] -> A [N, P, P]: row i says how much each position j gives to position i; rows sum to 1."""
        divisor = math.sqrt(self.side * self.side if self.scale == "positions" else self.channels)
        return torch.softmax(query.unsqueeze(2) * keys.unsqueeze(1) / divisor, dim=-1)

    def forward(self, maps: torch.Tensor, speech: torch.Tensor) -> torch.Tensor:
        """Content map [N, C, h, w] of trunk maps [N, C, h, w] under speech vectors [N, 1, D]."""
        return self.attended(self.query(speech), self.keys(maps), self.values(maps))

    def attended(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """[N, P], [N, P], [N, C, P] -> content map [N, C, h, w]."""
        return (values @ self.attention(query, keys).transpose(1, 2)).unflatten(2, (self.side, self.side))


class FrozenProjection(nn.Module):
    """A linear map that is never trained: random by seed, or loaded; stands for the unpublished wav2vec projection.

    Its numbers are buffers, so they travel with checkpoints and no optimiser sees them.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, inputs: int, outputs: int, seed: int, gain: float = 1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        bound = (
            inputs**-0.5
        )  # the range torch gives a fresh nn.Linear, which is what the published script has without its file
        self.register_buffer("weight", torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator) * gain)
        self.register_buffer("bias", torch.empty(outputs).uniform_(-bound, bound, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def content_entropy(real: torch.Tensor, fake: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """The published stage-2 content loss: mean of -log clamp(cos, 0, 1), at most 100 for an item, before its weight of 10.

    real, fake: content maps [N, C, h, w] of a module with scale="channels". Returns a scalar, or [N] with reduction "none".
    """
    cosine = F.cosine_similarity(at_least_float32(real).flatten(1), at_least_float32(fake).flatten(1))
    score = cosine.clamp(0.0, 1.0)
    return F.binary_cross_entropy(score, torch.ones_like(score), reduction=reduction)


def clamped_contrast(
    anchor: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The published loss for each triple: 1 - clamp(cos(x, y), 0, 1) + clamp(cos(x, z), 0, 1), in [0, 2].

    anchor, positive, negative: content maps [N, C, h, w]. Returns the loss and the two unclamped cosines, each [N].
    """
    x, y, z = (at_least_float32(content).flatten(1) for content in (anchor, positive, negative))
    cosine_positive, cosine_negative = F.cosine_similarity(x, y), F.cosine_similarity(x, z)
    loss = 1.0 - cosine_positive.clamp(0.0, 1.0) + cosine_negative.clamp(0.0, 1.0)
    return loss, cosine_positive, cosine_negative


class ReleasedCCRL(nn.Module):
    """The published CCRL, trainable on batches of utterance groups. See the module's docstring for what it computes.

    settings.network: "paper" has the published sizes (224 px, iresnet50 with InsightFace's weights, 256 x 28 x 28 maps,
    512-d speech; 13,753,217 trainable parameters); "small" is the same computation for a laptop (64 px, a random frozen
    trunk of one block per layer, 32 x 8 x 8 maps). Everything else in `settings` belongs to the clean form.
    feature_dim: numbers in one row of speech. Rows of 512 are the authors' own vectors and taken as they are, from the
    middle of the window. Rows of 1024 (wav2vec layer 20) go through a frozen linear map to 512: random by seed, because the
    authors' was not published (`load_projection` fills it). Any other row (log-mel) is taken with its whole window,
    brought to zero mean and unit variance, and projected to 512 by such a map (times `WINDOW_GAIN`).
    pretrained: load InsightFace's weights into the paper trunk; False where a checkpoint will fill it, and in dry runs.
    scale: see `MaskLearning`. convention: how images are presented. seed: of the frozen projection.
    trunk_statistics_move: as published, the frozen trunk's batch-norm statistics follow the data in train mode.
    """

    view = CONTENT
    hears, frames, softened = True, 1, False
    compares_with: Literal["source", "reference"] = "source"

    def __init__(
        self,
        settings: Settings,
        data: Data,
        feature_dim: int,
        *,
        pretrained: bool = True,
        scale: Literal["positions", "channels"] = "positions",
        convention: Convention = "released",
        trunk_statistics_move: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        paper = settings.network == "paper"
        self.size = PAPER_SIZE if paper else SMALL_SIZE
        self.convention: Convention = convention
        self.trunk_statistics_move = trunk_statistics_move
        trunk = paper_trunk(pretrained) if paper else small_trunk()
        self.img_encoder = trunk.requires_grad_(False)
        self.mask_learning = MaskLearning(trunk.channels[2], self.size // 8, SPEECH_DIM, scale)
        self.whole_window = feature_dim not in (SPEECH_DIM, 1024)
        self.row = feature_dim * data.speech_window if self.whole_window else feature_dim
        gain = WINDOW_GAIN if self.whole_window else 1.0
        self.speech_projection = (
            None if feature_dim == SPEECH_DIM else FrozenProjection(self.row, SPEECH_DIM, seed, gain)
        )
        synchronise(self)

    def train(self, mode: bool = True) -> ReleasedCCRL:
        super().train(mode)
        if not self.trunk_statistics_move:
            self.img_encoder.eval()
        return self

    @property
    def _dtype(self) -> torch.dtype:
        return self.mask_learning.linear_q.weight.dtype

    def images(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames [N, 3, S, S] (RGB, uint8 or [-1, 1]) as the trunk takes them, [N, 3, size, size]."""
        pictures = present(frames, self.size, self.convention, self._dtype)
        return pictures.contiguous(memory_format=torch.channels_last)

    def speech_vectors(self, speech: torch.Tensor) -> torch.Tensor:
        """Speech windows [N, W, F] -> speech vectors [N, 1, 512]."""
        if self.whole_window:
            flat = speech.flatten(1).float()
            rows = F.layer_norm(flat, flat.shape[-1:]).to(self._dtype)
        else:
            rows = speech[:, speech.shape[1] // 2].to(self._dtype)
        if rows.shape[-1] != self.row:
            raise ValueError(
                f"speech is {tuple(speech.shape)} ([N, W, F]), which gives {rows.shape[-1]} numbers for each frame; this CCRL "
                f"was built for {self.row}: build it with the feature_dim and data.speech_window of the batches"
            )
        if self.speech_projection is not None:
            rows = self.speech_projection(rows)
        return rows.unsqueeze(1)

    def content(self, images: torch.Tensor, speech: torch.Tensor) -> torch.Tensor:
        """Content map [N, C, h, w] of images [N, 3, size, size] (as `images` gives) under speech vectors [N, 1, D]."""
        return self.mask_learning(self.img_encoder.feature_map(images, "layer3"), speech)

    def _looked_at(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [N, P] and values [N, C, P] of images."""
        maps = self.img_encoder.feature_map(images, "layer3")
        return self.mask_learning.keys(maps), self.mask_learning.values(maps)

    def triples(
        self,
        source_image: torch.Tensor,
        target_image: torch.Tensor,
        source_speech: torch.Tensor,
        assist_image: torch.Tensor,
        assist_speech: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss and the two cosines of each triple, [N] each; the three passes run in the published order x, y, z."""
        x = self.content(source_image, source_speech)
        y = self.content(target_image, source_speech)
        z = self.content(assist_image, assist_speech)
        return clamped_contrast(x, y, z)

    def triple_loss(
        self,
        source_image: torch.Tensor,
        target_image: torch.Tensor,
        source_speech: torch.Tensor,
        assist_image: torch.Tensor,
        assist_speech: torch.Tensor,
    ) -> torch.Tensor:
        """The published stage-1 loss of presented images [N, 3, size, size] and speech vectors [N, 1, D]; a scalar in [0, 2]."""
        return self.triples(source_image, target_image, source_speech, assist_image, assist_speech)[0].mean()

    def stage2_loss(self, real: torch.Tensor, fake: torch.Tensor, speech: torch.Tensor) -> torch.Tensor:
        """`content_entropy` of presented images [N, 3, size, size], both under the same speech vectors [N, 1, D]."""
        return content_entropy(self.content(real, speech), self.content(fake, speech))

    def guidance(self, edit: EditedFrames) -> dict[str, torch.Tensor]:
        """`ccrl/content`: the published stage-2 loss between source and generated frames. See `Prior.guidance`."""
        source, generated = edit.source.flatten(0, 1), edit.generated.flatten(0, 1)
        vectors = self._speech_or_zeros(None if edit.speech is None else edit.speech.flatten(0, 1), len(source))
        with torch.no_grad():
            wanted = self.content(self.images(source), vectors)
        found = self.content(self.images(generated), vectors)
        return {"ccrl/content": edit.mean(content_entropy(wanted, found, reduction="none"))}

    def forward(self, batch: Batch) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Losses and monitors of a batch with at least two recordings and two frames of each.

        x is frame k of recording 0, y frame k of recording 1 (its time-warp match) with the speech of x, z frame k + 1
        (cyclically) of recording 1 with its own speech. Each sample's loss is the mean over its triples whose three frames
        are valid (0 where it has none); the loss is the mean over samples. Invalid frames still pass the batch norms.
        """
        b, r, k = batch.valid.shape
        if r < 2 or k < 2:
            raise ValueError(
                f"a CCRL batch has {r} recordings of {k} frames for each sample; triples need at least 2 of 2: "
                "read the shards with CCRL's draw and data.frames_per_recording >= 2"
            )
        following = torch.roll(torch.arange(k, device=batch.valid.device), -1)
        speech = self.speech_vectors(batch.speech[:, :2].flatten(0, 2)).view(b, 2, k, 1, -1)
        own = speech[:, 0].flatten(0, 1)
        x, y = (self.images(batch.frames[:, i].flatten(0, 1)) for i in (0, 1))
        mask, queries = self.mask_learning, self.mask_learning.query(own)
        first = mask.attended(queries, *self._looked_at(x))
        # z's frames are y's in another order, and all of them meet in every batch norm: the third pass of the trunk and of M would give
        # the second one's numbers again, and only move their statistics once more.
        with passing_twice(self):
            keys, values = self._looked_at(y)
        second = mask.attended(queries, keys, values)
        others = mask.query(speech[:, 1, following].flatten(0, 1))
        turned = (t.unflatten(0, (b, k))[:, following].flatten(0, 1) for t in (keys, values))
        loss, positive, negative = clamped_contrast(first, second, mask.attended(others, *turned))
        valid = batch.valid[:, 0] & batch.valid[:, 1] & batch.valid[:, 1, following]

        def mean(values: torch.Tensor) -> torch.Tensor:
            weights = valid.to(values.dtype)
            return ((values.view(b, k) * weights).sum(1) / weights.sum(1).clamp(min=1.0)).mean()

        monitors = {"ccrl/cosine_positive": mean(positive.detach()), "ccrl/cosine_negative": mean(negative.detach())}
        return {"ccrl/contrast": mean(loss)}, monitors

    def _speech_or_zeros(self, speech: torch.Tensor | None, count: int) -> torch.Tensor:
        if speech is None:
            return torch.zeros(
                count, 1, SPEECH_DIM, device=self.mask_learning.linear_q.weight.device, dtype=self._dtype
            )
        return self.speech_vectors(speech)

    def embed(self, frames: torch.Tensor, speech: torch.Tensor | None = None) -> torch.Tensor:
        """Unit-norm flattened content maps [N, C * h * w]. Call `eval()` first; gradients reach `frames` if they want any.

        frames: [N, 3, S, S] RGB, uint8 or [-1, 1]. speech: windows [N, W, F]; None gives zero speech vectors.
        """
        content = self.content(self.images(frames), self._speech_or_zeros(speech, len(frames)))
        return F.normalize(at_least_float32(content).flatten(1), dim=1)

    def embed_table(self, frames: torch.Tensor, speech: torch.Tensor) -> torch.Tensor:
        """Every face under every speech: frames [J, 3, S, S], speech [I, W, F] -> unit vectors [I, J, C * h * w]."""
        maps = self.img_encoder.feature_map(self.images(frames), "layer3")
        keys, values = self.mask_learning.keys(maps), self.mask_learning.values(maps)
        rows = []
        for query in self.mask_learning.query(self.speech_vectors(speech)):
            attention = self.mask_learning.attention(query.expand_as(keys), keys)
            rows.append(F.normalize(at_least_float32(values @ attention.transpose(1, 2)).flatten(1), dim=1))
        return torch.stack(rows)

    def attention(self, frames: torch.Tensor, speech: torch.Tensor | None = None) -> torch.Tensor:
        """How much each position is looked at, the mean over queries, [N, h, w]; each map sums to 1. For pictures."""
        maps = self.img_encoder.feature_map(self.images(frames), "layer3")
        query = self.mask_learning.query(self._speech_or_zeros(speech, len(frames)))
        attention = self.mask_learning.attention(query, self.mask_learning.keys(maps))
        return attention.float().mean(1).unflatten(1, (self.mask_learning.side,) * 2)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`attention`: the first sample's frames, one row for each recording, over where attention looks (bright: more)."""
        with evaluating(self):
            frames, speech = batch.frames[0, :2], batch.speech[0, :2]
            looks = self.attention(frames.flatten(0, 1), speech.flatten(0, 1))
        looks = looks / looks.amax((1, 2), keepdim=True)
        shade = F.interpolate(looks[:, None], frames.shape[-2:], mode="bilinear").view(
            *frames.shape[:2], 1, *frames.shape[-2:]
        )
        rows = torch.stack([frames.float(), frames.float() * (0.15 + 0.85 * shade)], 1).flatten(0, 1)
        picture = rows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
        return {"attention": picture.round().clamp(0, 255).byte().cpu().numpy()}

    def load_released(self, path: str) -> None:
        """Fills trunk and attention from a checkpoint of the authors' code; raises ValueError where it does not fit."""
        self.load_released_state(read_tensors(path), str(path))

    def load_released_state(self, tensors: dict[str, torch.Tensor], origin: str = "the state_dict") -> None:
        """The same from tensors by the authors' names (`img_encoder.*`, `mask_learning.*`: the names used here)."""
        for part in ("img_encoder", "mask_learning"):
            inside = {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
            load_exactly(self.get_submodule(part), inside, f"{origin}, part {part}")
        others = [n for n in tensors if not n.startswith(("img_encoder.", "mask_learning."))]
        if others:
            raise ValueError(
                f"{origin} holds {others[0]!r} and {len(others) - 1} more names that the published CCRL does not have; "
                "give a checkpoint of the published stage 1 (every name begins with img_encoder. or mask_learning.)"
            )

    def load_projection(self, path: str) -> None:
        """Fills the frozen speech projection from a file with `weight` [512, F] and `bias` [512]."""
        if self.speech_projection is None:
            raise ValueError(f"{path}: this CCRL takes {SPEECH_DIM}-d speech as it is and has no projection to fill")
        load_exactly(self.speech_projection, read_tensors(path), str(path))


def paper_trunk(pretrained: bool) -> IResNet:
    """iresnet50 with InsightFace's weights, or random; raises MissingWeights with what to do."""
    if not pretrained:
        return iresnet50()
    from spfem_dist.weights import locate

    return load_backbone(locate("arcface-iresnet50"))


def small_trunk(channels: int = 32) -> IResNet:
    """A random trunk of one block per layer, whose layer3 has `channels` channels."""
    widths = (channels // 4, channels // 2, channels, channels)
    return IResNet(widths, (1, 1, 1, 1), stem=channels // 4, embedding=channels, size=SMALL_SIZE)
