"""CCRL, clean form: what is said, seen and heard, whatever the emotion (CDRL, "content", corrected).

The published objective and also plain InfoNCE with each frame's own speech are solved by the speech alone: stage 2, which
gives both sides the same speech, then gets no gradient about the mouth. Here the image has to know what is said:
an image-only contrast, an audio-visual synchrony contrast, and negatives that share the query's speech.
See docs/priors.md for what each term is worth.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.config import Data
from spfem_dist.emotions import Emotion
from spfem_dist.nets.augment import colour_jitter, face_crop, flip, random_shift, uniform
from spfem_dist.nets.batchnorm import BatchNorm1d
from spfem_dist.nets.erasure import LinearErasure
from spfem_dist.nets.frozen import evaluating
from spfem_dist.nets.small import SIDE, FaceEncoder, SpeechEncoder, resized, to_unit_range, unit
from spfem_dist.pictures import framed, grid, overlay, tile
from spfem_dist.priors.ccrl.settings import Settings
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch
from spfem_dist.streaming.views import CONTENT

#: Width of the speech code, and of one head's keys and values.
SPEECH_WIDTH, KEY_WIDTH, VALUE_WIDTH = 128, 16, 32


class CleanCCRL(nn.Module):
    """Content embedding E_c(face, speech): speech is the query, the face gives keys and values.

    Speech gives one query for each head, the face gives keys and values at each position of its map; the attended values
    become one unit vector. Without speech a learned null query takes its place.
    """

    view = CONTENT
    hears, frames, softened = True, 1, False
    compares_with: Literal["source", "reference"] = "source"

    def __init__(self, settings: Settings, data: Data, feature_dim: int, *, pretrained: bool = True):
        super().__init__()
        self.settings, self.minimum_gap = settings, data.minimum_gap
        heads = settings.heads
        self.heads = heads
        self.face: nn.Module
        self.speech: nn.Module
        if settings.network == "paper":
            from spfem_dist.nets.arcface import SIDE as PAPER_SIDE
            from spfem_dist.nets.arcface import ArcFaceMap
            from spfem_dist.priors.ccrl.paper import Wav2VecWindow

            self.side, self.face = PAPER_SIDE, ArcFaceMap(pretrained)
            self.speech = Wav2VecWindow(feature_dim, data.speech_window, SPEECH_WIDTH)
        else:
            self.side, self.face = SIDE, FaceEncoder()
            self.speech = SpeechEncoder(feature_dim, data.speech_window, SPEECH_WIDTH)
        channels, positions = self.face.channels, self.face.map_side**2
        self.query = nn.Linear(SPEECH_WIDTH, heads * KEY_WIDTH)
        self.speech_value = nn.Linear(SPEECH_WIDTH, heads * VALUE_WIDTH)
        self.null_query = nn.Parameter(0.02 * torch.randn(heads, KEY_WIDTH))
        self.key = nn.Conv2d(channels, heads * KEY_WIDTH, 1)
        self.value = nn.Conv2d(channels, heads * VALUE_WIDTH, 1)
        self.spatial_bias = nn.Parameter(settings.spatial_bias * torch.randn(heads, positions))
        self.position_embedding = nn.Parameter(0.3 * torch.randn(heads, positions, VALUE_WIDTH))
        self.head = ContentHead(heads * VALUE_WIDTH, settings.embedding)
        # Embeddings with and without speech have means of their own, as in the head.
        self.eraser = nn.ModuleDict(
            {name: LinearErasure(settings.embedding, len(Emotion)) for name in ("with_speech", "without_speech")}
            if settings.erase_emotion
            else {}
        )
        self.audio_projection = nn.Sequential(
            nn.Linear(SPEECH_WIDTH, settings.embedding, bias=False), BatchNorm1d(settings.embedding)
        )

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses and monitors of a batch with R = 2 recordings whose frames k match in time."""
        b, r, k = batch.valid.shape
        if r != 2:
            raise ValueError(
                f"CCRL needs 2 recordings for each sample, found {r}: draw content views, not emotion views"
            )
        keys, values = self.look(self.augmented(batch))
        code = self.speech(batch.speech.flatten(0, 2).to(self.spatial_bias.dtype))
        query = self.query(code).view(b, 2, k, self.heads, KEY_WIDTH)
        value = self.speech_value(code).view(b, 2, k, -1)
        keys, values = (t.view(b, 2, k, self.heads, *t.shape[2:]) for t in (keys, values))
        if self.training:
            hidden = uniform(batch.seed, "ccrl/speech", 2, k) < self.settings.speech_dropout
            kept_query = torch.where(hidden[..., None, None], self.null_query, query)
            kept_value = value.masked_fill(hidden[..., None], 0.0)
        else:
            kept_query, kept_value = query, value
        # tables[r][i, j]: the face of frame j of recording r under the speech of frame i of the same recording, and
        # under the speech of frame i of the other recording, which is what stage 2 does.
        own = torch.stack(
            [self.attend_table(kept_query[:, s], keys[:, s], values[:, s]) + kept_value[:, s, :, None] for s in (0, 1)],
            1,
        )
        given = torch.stack(
            [self.attend_table(query[:, 1 - s], keys[:, s], values[:, s]) + value[:, 1 - s, :, None] for s in (0, 1)], 1
        )
        content = self.vectors(torch.stack([own, given]).flatten(0, 4), with_speech=True).view(2, b, 2, k, k, -1)
        own, given = content[0], content[1]
        attended = self.attend(self.null_query.expand(b * 2 * k, -1, -1), keys.flatten(0, 2), values.flatten(0, 2))
        image = self.vectors(attended, with_speech=False).view(b, 2, k, -1)
        if self.training and self.eraser:
            emotion = batch.emotion[..., None].expand(b, 2, k)
            for name, shown, counted in (
                ("with_speech", own.diagonal(dim1=2, dim2=3).transpose(2, 3), batch.valid & ~hidden),
                ("without_speech", image, batch.valid),
            ):
                self.eraser[name].observe(shown.flatten(0, 2), emotion.flatten(), counted.flatten())
        audio = unit(self.audio_projection(code)).view(b, 2, k, -1)
        return self.losses(own, given, image, audio, batch.position, batch.valid)

    def losses(
        self, own: Tensor, given: Tensor, image: Tensor, audio: Tensor, position: Tensor, valid: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        s = self.settings
        k = own.shape[2]
        same = torch.eye(k, dtype=torch.bool, device=own.device)
        far = (position[..., :, None] - position[..., None, :]).abs() >= self.minimum_gap  # [B, 2, K, K]
        both = (valid[:, 0] & valid[:, 1]).float()
        usable = (far & valid[:, :, None, :]) | same
        diagonal = own.diagonal(dim1=2, dim2=3).transpose(2, 3)  # [B, 2, K, D], each frame with its own speech
        contrast, same_speech, image_only, sync = [], [], [], []
        hits = []
        for a, p in ((0, 1), (1, 0)):
            anchor = diagonal[:, a]
            logits = torch.einsum("bid,bjd->bij", anchor, diagonal[:, p])
            wrong_image = torch.einsum("bid,bijd->bij", anchor, own[:, p])
            parts = [
                logits.masked_fill(~usable[:, p], -torch.inf),
                wrong_image.masked_fill(~usable[:, p] | same, -torch.inf),
            ]
            if s.wrong_speech:
                wrong_speech = torch.einsum("bid,bjid->bij", anchor, own[:, p])
                parts.append(wrong_speech.masked_fill(~usable[:, p] | same, -torch.inf))
            contrast.append(diagonal_cross_entropy(torch.cat(parts, 2) / s.temperature, both))
            stage_two = torch.einsum("bid,bijd->bij", anchor, given[:, p]).masked_fill(~usable[:, p], -torch.inf)
            same_speech.append(diagonal_cross_entropy(stage_two / s.image_temperature, both))
            hits.append(hit_rate(stage_two, both))
            faces = torch.einsum("bid,bjd->bij", image[:, a], image[:, p]).masked_fill(~usable[:, p], -torch.inf)
            image_only.append(diagonal_cross_entropy(faces / s.image_temperature, both))
            to_audio = torch.einsum("bid,bjd->bij", image[:, a], audio[:, a]).masked_fill(~usable[:, a], -torch.inf)
            to_image = torch.einsum("bid,bjd->bij", audio[:, a], image[:, a]).masked_fill(~usable[:, a], -torch.inf)
            sync += [diagonal_cross_entropy(t / s.image_temperature, both) for t in (to_audio, to_image)]
        losses = {"ccrl/contrast": torch.stack(contrast).mean()}
        for name, weight, terms in (
            ("ccrl/same_speech", s.same_speech_weight, same_speech),
            ("ccrl/image", s.image_weight, image_only),
            ("ccrl/sync", s.sync_weight, sync),
        ):
            if weight:
                losses[name] = weight * torch.stack(terms).mean()
        return losses, {"ccrl/same_speech_hit": torch.stack(hits).mean()}

    def look(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [N, H, P, key] and values [N, H, P, value] of faces [N, 3, side, side]."""
        picture = self.face(faces.to(self.spatial_bias.dtype))
        keys = self.key(picture).flatten(2).unflatten(1, (self.heads, KEY_WIDTH)).transpose(2, 3)
        values = self.value(picture).flatten(2).unflatten(1, (self.heads, VALUE_WIDTH)).transpose(2, 3)
        return keys, values + self.position_embedding

    def weights(self, query: Tensor, keys: Tensor) -> Tensor:
        """Where each head looks, [N, H, P]; rows sum to 1."""
        logits = torch.einsum("nhd,nhpd->nhp", query, keys) / KEY_WIDTH**0.5
        return (logits + self.spatial_bias).softmax(-1)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """query [N, H, key], keys and values [N, H, P, .] -> attended values [N, H * value]."""
        return torch.einsum("nhp,nhpd->nhd", self.weights(query, keys), values).flatten(1)

    def attend_table(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Every speech with every face: query [B, I, H, key], keys [B, J, H, P, .] -> [B, I, J, H * value]."""
        logits = torch.einsum("bihd,bjhpd->bijhp", query, keys) / KEY_WIDTH**0.5
        weights = (logits + self.spatial_bias).softmax(-1)
        return torch.einsum("bijhp,bjhpd->bijhd", weights, values).flatten(3)

    def augmented(self, batch: Batch) -> Tensor:
        """The batch's faces [B * R * K, 3, side, side] in [-1, 1]; shifted, mirrored and recoloured in training only."""
        frames = batch.frames.flatten(0, 2)
        if not self.training:
            return self.cropped(frames)
        each = tuple(batch.valid.shape[1:])
        moves = random_shift(frames, batch.seed, "ccrl/shift", self.settings.shift, each)
        faces = self.cropped(frames, moves)
        mirrored = (uniform(batch.seed, "ccrl/flip") < 0.5)[:, None, None].expand(-1, *each)
        faces = flip(faces, mirrored.flatten())
        return colour_jitter(
            faces, self.settings.colour_jitter, uniform(batch.seed, "ccrl/colour", *each, 5).flatten(0, 2)
        )

    def cropped(self, frames: Tensor, offset: Tensor | None = None) -> Tensor:
        """The face of frames [N, 3, S, S] as the network sees it, float [N, 3, side, side] in [-1, 1]."""
        return resized(to_unit_range(face_crop(frames, self.settings.crop, self.settings.crop_row, offset)), self.side)

    def queries(self, speech: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
        """Queries [N, H, key] and the speech's own values [N, H * value]; the null query and zeros without speech."""
        if speech is None:
            nothing = self.spatial_bias.new_zeros(count, self.heads * VALUE_WIDTH)
            return self.null_query.expand(count, -1, -1), nothing
        code = self.speech(speech.to(self.spatial_bias.dtype))
        return self.query(code).view(-1, self.heads, KEY_WIDTH), self.speech_value(code)

    def embed(self, frames: Tensor, speech: Tensor | None) -> Tensor:
        """Content vectors [N, D], unit norm, of frames uint8 [N, 3, S, S] and speech [N, W, F] (None: without speech)."""
        keys, values = self.look(self.cropped(frames))
        query, value = self.queries(speech, len(frames))
        attended = self.attend(query, keys, values) + value
        return self.vectors(attended, with_speech=speech is not None)

    def guidance(self, edit: EditedFrames) -> dict[str, Tensor]:
        """`ccrl/content`: 1 - cos of source and generated face, both under the source's speech. See `Prior.guidance`."""
        speech = None if edit.speech is None else edit.speech.flatten(0, 1)
        with torch.no_grad():
            wanted = self.embed(edit.source.flatten(0, 1), speech)
        embedding = self.embed(edit.generated.flatten(0, 1), speech)
        return {"ccrl/content": edit.mean(1.0 - (wanted * embedding).sum(-1))}

    def embed_table(self, frames: Tensor, speech: Tensor) -> Tensor:
        """Every face under every speech: frames [J, 3, S, S], speech [I, W, F] -> unit vectors [I, J, D]."""
        keys, values = self.look(self.cropped(frames))
        query, value = self.queries(speech, len(speech))
        table = self.attend_table(query[None], keys[None], values[None])[0] + value[:, None]
        return self.vectors(table.flatten(0, 1), with_speech=True).view(len(speech), len(frames), -1)

    def vectors(self, attended: Tensor, with_speech: bool) -> Tensor:
        """Attended values [N, H * value] -> unit vectors [N, D]. Out of training they tell no linear classifier the emotion."""
        embedding = unit(self.head(attended, with_speech))
        if self.training or not self.eraser:
            return embedding
        return unit(self.eraser["with_speech" if with_speech else "without_speech"](embedding))

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`attention`: where the first samples' faces are looked at, with and without their speech (one row each).
        `retrieval`: faces, and below each the face of the other recording that is nearest under the same speech (green
        where it is the matching one).
        """
        with evaluating(self):
            frames, speech = batch.frames[: min(3, len(batch))], batch.speech[: min(3, len(batch))]
            looks, retrieved = [], []
            for sample, windows in zip(frames, speech, strict=True):
                keys, _ = self.look(self.cropped(sample[0]))
                shape = (-1, self.face.map_side, self.face.map_side)
                for query in (self.queries(windows[0], len(keys))[0], self.queries(None, len(keys))[0]):
                    where = self.weights(query, keys).float().mean(1).view(shape)
                    looks.append([overlay(f, w) for f, w in zip(self.cropped(sample[0]), where, strict=True)])
                similarity = torch.einsum(
                    "id,ijd->ij", self.embed(sample[0], windows[0]), self.embed_table(sample[1], windows[0])
                )
                nearest = similarity.argmax(1).tolist()
                retrieved.append([tile(f) for f in sample[0]])
                retrieved.append([framed(tile(sample[1, j]), i == j) for i, j in enumerate(nearest)])
        return {"attention": grid(looks), "retrieval": grid(retrieved)}


class ContentHead(nn.Module):
    """Batch norm, projection, batch norm: removes what all embeddings have in common.

    Embeddings with and without speech share the projection; each keeps its own statistics, since their means differ.
    """

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.project = nn.Linear(width, embedding, bias=False)
        self.with_speech_before, self.with_speech_after = BatchNorm1d(width), BatchNorm1d(embedding, affine=False)
        self.without_speech_before, self.without_speech_after = BatchNorm1d(width), BatchNorm1d(embedding, affine=False)

    def forward(self, attended: Tensor, with_speech: bool) -> Tensor:
        """attended: [N, width] -> [N, embedding], not yet unit norm."""
        if with_speech:
            return self.with_speech_after(self.project(self.with_speech_before(attended)))
        return self.without_speech_after(self.project(self.without_speech_before(attended)))


def diagonal_cross_entropy(logits: Tensor, counted: Tensor) -> Tensor:
    """InfoNCE whose positive of row i is column i. logits: [B, K, M >= K]; counted: [B, K], 0 leaves a row out.

    A mean over each sample's rows and then over samples, so that the loss does not depend on how samples are batched.
    """
    k = logits.shape[1]
    target = torch.arange(k, device=logits.device).expand(len(logits), k)
    loss = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    loss = torch.where(counted > 0, loss, torch.zeros_like(loss))
    return (loss.sum(1) / counted.sum(1).clamp(min=1)).mean()


def hit_rate(logits: Tensor, counted: Tensor) -> Tensor:
    """Share of counted rows whose largest logit is the diagonal one."""
    k = logits.shape[1]
    right = (logits[:, :, :k].argmax(2) == torch.arange(k, device=logits.device)).float() * counted
    return (right.sum() / counted.sum().clamp(min=1)).detach()
