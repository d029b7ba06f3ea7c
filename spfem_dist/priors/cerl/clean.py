"""CERL, clean form: emotion priors and a face embedding that ignores what is being said (CDRL, "emotion", corrected).

Seven prior vectors stand for the emotions; one shared embedding of the face (the published code chooses a network by the
true label, which can answer without looking) is drawn to its emotion's prior by a symmetric cross-entropy. Mouth mixing
shows each face with the mouth of another moment, and asks for the same embedding, so that speech is no cue.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.config import Data
from spfem_dist.emotions import SEVEN, class_of
from spfem_dist.nets.augment import colour_jitter, face_crop, flip, mouth_window, random_shift, uniform
from spfem_dist.nets.batchnorm import BatchNorm1d
from spfem_dist.nets.clip import vision_of
from spfem_dist.nets.frozen import evaluating
from spfem_dist.nets.small import CHANNELS, MAP_SIDE, SIDE, FaceEncoder, resized, to_unit_range, unit
from spfem_dist.pictures import framed, grid, scatter, tile
from spfem_dist.priors.cerl.settings import Settings
from spfem_dist.priors.features import FEATURES
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch
from spfem_dist.streaming.views import EMOTION

#: Where the mouth is in the face crop: centre and radius as (row, column) shares of its side.
MOUTH_CENTRE, MOUTH_RADIUS = (0.71, 0.5), (0.22, 0.3)


class CleanCERL(nn.Module):
    """Emotion embedding E_e(face) and seven prior vectors T in one space of unit vectors."""

    view = EMOTION
    hears, frames, softened = False, 1, True
    augments = True
    compares_with: Literal["source", "reference"] = "reference"

    def __init__(self, settings: Settings, data: Data, *, pretrained: bool = True):
        super().__init__()
        self.settings = settings
        self.network: Any
        if settings.network == "paper":
            from spfem_dist.priors.cerl.paper import SIDE as PAPER_SIDE
            from spfem_dist.priors.cerl.paper import ClipEmotion

            self.side, self.network = PAPER_SIDE, ClipEmotion(pretrained)
        else:
            self.side, self.network = SIDE, SmallEmotion(settings.embedding)

    def priors(self) -> Tensor:
        """The emotion priors T [7, D], unit norm, in the order of `emotions.SEVEN`."""
        return unit(self.network.priors())

    def see(self, faces: Tensor) -> Tensor:
        """Emotion vectors [N, D], unit norm, of cropped faces [N, 3, side, side] in [-1, 1]."""
        return unit(self.network(faces.to(next(self.network.parameters()).dtype)))

    def frozen_trunk(self) -> nn.Module | None:
        """See `priors.features.OnFrozenTrunk`."""
        return vision_of(self.network.clip) if self.settings.network == "paper" else None

    def feature_shape(self) -> tuple[int, int]:
        """A face and its twin."""
        return 2, self.network.clip.config.projection_dim

    def feature_identity(self, augmented: bool) -> dict[str, Any]:
        """How faces are cut, and what is drawn."""
        s = self.settings
        drawn: dict[str, Any] = {"shift": s.shift, "colour_jitter": s.colour_jitter, "mouth_mixing": s.mouth_mixing}
        drawn["mouth_source"] = s.mouth_source
        return {"form": "clean", "side": self.side, "crop": s.crop, "crop_row": s.crop_row} | (
            drawn if augmented else {}
        )

    def frozen_features(self, batch: Batch) -> Tensor:
        """[B, R, K, 2, 512] of a batch's faces and their twins."""
        seen = self.network.features(torch.cat(self.augmented(batch)))
        return torch.stack(seen.chunk(2), 1).view(*batch.valid.shape, 2, -1)

    def adapted(self, features: Tensor) -> Tensor:
        """Emotion vectors, unit norm, of features that were kept, [..., 512]."""
        return unit(self.network.adapted(features.to(next(self.network.parameters()).dtype)))

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses and monitors of a batch with up to 7 recordings (one for each emotion) of K >= 2 moments."""
        s = self.settings
        each = batch.valid.shape[1:]
        classes = class_of(batch.emotion)[..., None].expand(-1, *each)
        counted = batch.valid & (classes >= 0)
        if (kept := batch.extras.get(FEATURES)) is not None:
            plain, twin = self.adapted(kept).unbind(3)
        else:
            both = self.see(torch.cat(self.augmented(batch)))
            plain, twin = (t.view(len(batch), *each, -1) for t in both.chunk(2))
        priors = self.priors()
        logits = torch.stack([plain, twin]) @ priors.T / s.temperature
        to_prior = torch.stack([image_to_prior(t, classes, counted) for t in logits]).mean()
        to_image = torch.stack([prior_to_image(t, classes, counted) for t in logits]).mean()
        losses = {"cerl/image_to_prior": 0.5 * to_prior, "cerl/prior_to_image": 0.5 * to_image}
        if s.consistency_weight:
            apart = (1.0 - (plain * twin).sum(-1)) * counted
            apart = apart.sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)
            losses["cerl/consistency"] = s.consistency_weight * apart.mean()
        right = ((logits[0].argmax(-1) == classes) & counted).sum() / counted.sum().clamp(min=1)
        return losses, {"cerl/accuracy": right.detach()}

    def augmented(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Faces and their mouth-mixed twins, both [B * R * K, 3, side, side] in [-1, 1].

        The twin has, in a share of cases, the mouth of another moment of the same sample: any recording of it, so that
        neither what is said nor the mouth's own expression is a safe cue. Outside training nothing changes by chance.
        """
        s = self.settings
        b, r, k = batch.valid.shape
        frames = batch.frames.flatten(0, 2)
        if not self.training:
            faces = self.cropped(frames)
            return faces, self.mixed(faces, self.roll_moments(batch), torch.ones_like(batch.valid).flatten())
        faces = self.cropped(frames, random_shift(frames, batch.seed, "cerl/shift", s.shift, (r, k)))
        chosen = (uniform(batch.seed, "cerl/mix", r, k) < s.mouth_mixing).flatten()
        twins = self.mixed(faces, self.partners(batch), chosen)
        colours = uniform(batch.seed, "cerl/colour", 2, r, k, 5)
        mirrored = uniform(batch.seed, "cerl/flip", 2, r, k) < 0.5
        return tuple(
            colour_jitter(flip(t, mirrored[:, i].flatten()), s.colour_jitter, colours[:, i].flatten(0, 2))
            for i, t in enumerate((faces, twins))
        )

    def partners(self, batch: Batch) -> Tensor:
        """For each frame the flat index of the frame of the same sample that lends its mouth, int64 [B * R * K].

        It is another moment (k differs) of a recording drawn by the sample's seed; padding never lends.
        """
        b, r, k = batch.valid.shape
        numbers = uniform(batch.seed, "cerl/partner", r, k, r)
        lends = batch.valid.any(2)[:, None, None, :].expand(b, r, k, r)
        recording = torch.where(lends, numbers, -1.0).argmax(-1)
        if self.settings.mouth_source == "recording":
            recording = torch.arange(r, device=numbers.device)[None, :, None].expand(b, r, k)
        moment = (torch.arange(k, device=numbers.device) + 1) % k
        sample = torch.arange(b, device=numbers.device)[:, None, None]
        return (sample * (r * k) + recording * k + moment).flatten()

    def roll_moments(self, batch: Batch) -> Tensor:
        b, r, k = batch.valid.shape
        index = torch.arange(b * r * k, device=batch.valid.device).view(b, r, k)
        return index.roll(-1, 2).flatten()

    def mixed(self, faces: Tensor, partners: Tensor, chosen: Tensor) -> Tensor:
        mask = mouth_window(faces.shape[-1], faces.device, MOUTH_CENTRE, MOUTH_RADIUS) * chosen[:, None, None, None]
        return faces + mask * (faces[partners] - faces)

    def cropped(self, frames: Tensor, offset: Tensor | None = None) -> Tensor:
        """The face of frames [N, 3, S, S] as the network sees it, float [N, 3, side, side] in [-1, 1]."""
        return resized(to_unit_range(face_crop(frames, self.settings.crop, self.settings.crop_row, offset)), self.side)

    def embed(self, frames: Tensor, speech: Tensor | None = None) -> Tensor:
        """Emotion vectors [N, D], unit norm, of frames uint8 [N, 3, S, S]. Speech is not listened to."""
        return self.see(self.cropped(frames))

    def guidance(self, edit: EditedFrames) -> dict[str, Tensor]:
        """`cerl/emotion`: cross-entropy of the generated face over the seven priors, as in training, above the reference face's. See
        `Prior.guidance`.

        A real face of the emotion is sure enough: what is asked for beyond that is a face that nobody makes, with a mouth that says
        nothing.
        The published distance to the reference face (`released.py`) is nearly blind to what tells two emotions apart: both faces are
        weighed by one prior. An emotion that is none of the seven has no prior: its cross-entropy fails on its device.
        """
        classes = class_of(edit.emotion.repeat_interleave(edit.generated.shape[1]))
        torch._assert_async(
            (classes >= 0).all(), f"CERL has no prior for an emotion that is none of {', '.join(SEVEN)}"
        )

        def cross_entropy(faces: Tensor) -> Tensor:
            logits = self.embed(faces.flatten(0, 1)) @ self.priors().T / self.settings.temperature
            return F.cross_entropy(logits, classes, reduction="none")

        with torch.no_grad():
            enough = cross_entropy(edit.reference)
        return {"cerl/emotion": edit.mean(F.relu(cross_entropy(edit.generated) - enough))}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`nearest`: for each emotion (a row) the batch's faces nearest to its prior, best first (green where it is theirs).
        `space`: all its faces in the embedding's first two principal components, coloured by emotion.
        """
        with evaluating(self):
            shown = batch.valid.flatten()
            frames = batch.frames.flatten(0, 2)[shown]
            classes = class_of(batch.emotion)[..., None].expand_as(batch.valid).flatten()[shown]
            vectors = self.embed(frames)
            scores = self.priors() @ vectors.T
        best = scores.topk(min(6, len(frames)), dim=1).indices
        rows = [[framed(tile(frames[i]), int(classes[i]) == row) for i in ids] for row, ids in enumerate(best.tolist())]
        names = [SEVEN[c].value if c >= 0 else "other" for c in classes.tolist()]
        return {"nearest": grid(rows), "space": scatter(vectors, names)}


class SmallEmotion(nn.Module):
    """The small network: a convolutional face encoder, and free vectors as emotion priors."""

    def __init__(self, embedding: int):
        super().__init__()
        self.face = FaceEncoder()
        width = CHANNELS * MAP_SIDE * MAP_SIDE
        self.head = nn.Sequential(BatchNorm1d(width), nn.Linear(width, embedding, bias=False), BatchNorm1d(embedding))
        self.prior_vectors = nn.Parameter(torch.randn(len(SEVEN), embedding))

    def forward(self, faces: Tensor) -> Tensor:
        """Faces [N, 3, 48, 48] in [-1, 1] -> [N, embedding], not yet unit norm."""
        return self.head(self.face(faces).flatten(1))

    def priors(self) -> Tensor:
        """One vector for each of `emotions.SEVEN`, [7, embedding]."""
        return self.prior_vectors


def image_to_prior(logits: Tensor, classes: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy of each image over the priors. logits: [B, R, K, 7]; classes, counted: [B, R, K]."""
    loss = F.cross_entropy(logits.flatten(0, 2), classes.clamp(min=0).flatten(), reduction="none").view(classes.shape)
    loss = (loss * counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)
    return loss.mean()


def prior_to_image(logits: Tensor, classes: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy of each prior over the images of its own sample: the images of its emotion against the others.

    Several images of one emotion share the target. Priors whose emotion the sample does not show are left out.
    """
    b = len(logits)
    scores = logits.flatten(1, 2).transpose(1, 2).masked_fill(~counted.reshape(b, 1, -1), -torch.inf)  # [B, 7, images]
    shown = (classes.reshape(b, 1, -1) == torch.arange(7, device=logits.device)[:, None]) & counted.reshape(b, 1, -1)
    usable = counted.reshape(b, -1).any(1)[:, None, None]
    log_share = torch.where(usable, scores, torch.zeros_like(scores)).log_softmax(-1)
    found = torch.where(shown, log_share, torch.zeros_like(log_share)).sum(-1) / shown.sum(-1).clamp(min=1)
    present = shown.any(-1)
    return (-(found * present).sum(1) / present.sum(1).clamp(min=1)).mean()
