"""CERL as published: what the authors' code computes, its defects included.

CDRL (Chen et al., IJCV 2025), contrastive emotion representation learning; facts about the code, in our own words:

* CLIP ViT-B/32 is frozen. Seven prompts, each with 8 learned words before a fixed description, give text vectors t_k.
* The prompts run **without positional embedding** (it is added, then overwritten).
* An item is seven images, one for each emotion. Each image feature goes through one of seven small networks, chosen by its
  **true label**, so a network may answer with a constant t_k and never look; stage 2 drops the seven networks.
* Loss: each text against the seven images of the item (text to image only), temperature 0.07.
* Images are blue-green-red and scaled by (x - 0.5) / 0.5, which CLIP does not expect.
* Rows of every tensor are in alphabetical order of the emotions (`emotions.ALPHABETICAL`); `priors()` answers in SEVEN's.
* Stage 2 compares unnormalised image features times a prior: mean of 1 - cos(f_r * T_y, f_g * T_y), times 50.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPModel

from spfem_dist.config import Data
from spfem_dist.emotions import ALPHABETICAL, SEVEN, Emotion
from spfem_dist.nets.clip import (
    PromptedText,
    Tokeniser,
    image_features,
    load_clip,
    load_tokeniser,
    random_clip,
    read_descriptors,
    sizes,
    tiny_clip,
    vision_of,
    word_tokeniser,
)
from spfem_dist.nets.iresnet import load_exactly, read_tensors
from spfem_dist.nets.presented import Convention, present
from spfem_dist.priors.cerl.settings import DESCRIPTORS, Settings
from spfem_dist.priors.features import FEATURES
from spfem_dist.priors.prior import EditedFrames
from spfem_dist.records import Batch
from spfem_dist.streaming.views import EMOTION

#: Trainable parameters at the published sizes: context 7 x 8 x 512 and seven networks 512-256-256-512.
PAPER_TRAINABLE = 2_329_600
#: Side of the small form's images, pixels.
SMALL_SIZE = 64
#: Index in `list(Emotion)` -> row of the authors' tensors, -1 for emotions outside the seven.
SLOT_OF_EMOTION = torch.tensor([ALPHABETICAL.index(e) if e in ALPHABETICAL else -1 for e in Emotion])
#: Rows of the authors' tensors in the order of SEVEN.
SEVEN_FROM_CERL = torch.tensor([ALPHABETICAL.index(e) for e in SEVEN])
#: Names in the authors' checkpoints that belong to frozen public CLIP, or are rebuilt from it.
_FROZEN_NAMES = ("image_encoder.", "text_encoder.", "clip.", "clip_model.", "prompt_learner.token_", "logit_scale")


class EmotionMLP(nn.Module):
    """D -> D/2 -> D/2 -> D with ReLU between; the name `mlp` is the authors'."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.Linear(width // 2, width // 2),
            nn.ReLU(),
            nn.Linear(width // 2, width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(x)


def adapted(mlps: nn.ModuleList, features: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Each feature through the network of its slot: features [..., D], slots int64 [...] in 0..6 -> [..., D].

    Every network runs on every feature, so that all parameters take part in each step whatever emotions it holds.
    """
    answers = torch.stack([mlp(features) for mlp in mlps], dim=-2)
    chosen = slots[..., None, None].expand(*slots.shape, 1, features.shape[-1])
    return answers.gather(-2, chosen).squeeze(-2)


def text_to_image(
    text: torch.Tensor, images: torch.Tensor, slots: torch.Tensor, counted: torch.Tensor, temperature: float = 0.07
) -> tuple[torch.Tensor, torch.Tensor]:
    """The published contrast within each set of images: -log softmax over the set of t_k . v / temperature, at k's image.

    text: [7, D]; images: [..., R, D], any norm (both are normalised here); slots: int64 [..., R], the row of `text` of each
    image; counted: bool [..., R]. Images of the text's own emotion other than the one asked for are no negatives.
    Returns the loss and whether the right image scored highest, each [..., R]; rows that are not counted mean nothing.
    """
    queries = F.normalize(text, dim=-1)[slots]
    logits = queries @ F.normalize(images, dim=-1).transpose(-1, -2) / temperature
    own = torch.eye(slots.shape[-1], dtype=torch.bool, device=slots.device)
    rivals = counted[..., None, :] & (slots[..., :, None] != slots[..., None, :])
    logits = logits.masked_fill(~(rivals | own), -torch.inf)
    loss = -logits.log_softmax(-1).diagonal(dim1=-2, dim2=-1)
    return loss, logits.argmax(-1) == torch.arange(slots.shape[-1], device=slots.device)


def released_monitors(text: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The "positive" and "negative" cosines the published code logs: taken over the **emotion** axis, so they mean nothing.

    text: [7, D]; images: [B, 7, D] after the seven networks. Kept for comparison with the authors' curves.
    """
    queries = F.normalize(text, dim=-1).expand_as(images)
    keys = F.normalize(images, dim=-1)
    return F.cosine_similarity(queries, keys, dim=1).mean(), F.cosine_similarity(queries, keys.flip(1), dim=1).mean()


def emotion_distance(reference: torch.Tensor, generated: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """The published stage-2 emotion loss before its weight of 50: mean of 1 - cos(f_r * T_y, f_g * T_y), a scalar in [0, 2].

    reference, generated: unnormalised image features [..., D]; prior: T_y, broadcastable to them.
    """
    return emotion_distances(reference, generated, prior).mean()


def emotion_distances(reference: torch.Tensor, generated: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """The same for each pair, [...]."""
    return 1.0 - F.cosine_similarity(reference * prior, generated * prior, dim=-1)


class ReleasedCERL(nn.Module):
    """The published CERL, trainable on batches of utterance groups. See the module's docstring for what it computes.

    settings.network: "paper" has CLIP ViT-B/32 (224 px, 512 numbers; 2,329,600 trainable parameters); "small" is the same
    computation on a tiny **random** frozen CLIP (64 px, `settings.embedding` numbers), whose images carry little meaning:
    its figures say what the objective does, nothing about CLIP. settings.descriptors: texts of the prompts.
    pretrained: load CLIP and its vocabulary; False where a checkpoint will fill the weights, and in dry runs.
    convention: how images are presented. positional: keep the prompts' positional embedding (the published code drops it).
    """

    view = EMOTION
    hears, frames, softened = False, 1, True
    augments = False
    compares_with: Literal["source", "reference"] = "reference"
    slot_of_emotion: torch.Tensor
    seven_from_cerl: torch.Tensor

    def __init__(
        self,
        settings: Settings,
        data: Data,
        *,
        pretrained: bool = True,
        convention: Convention = "released",
        positional: bool = False,
    ):
        super().__init__()
        self.temperature = settings.temperature
        self.convention: Convention = convention
        self.clip, tokeniser = towers(settings, pretrained)
        self.size, width, _ = sizes(self.clip)
        self.prompt_learner = PromptedText(self.clip, descriptions(settings), tokeniser, positional=positional)
        self.mlps = nn.ModuleList(EmotionMLP(width) for _ in ALPHABETICAL)
        self.register_buffer("slot_of_emotion", SLOT_OF_EMOTION.clone(), persistent=False)
        self.register_buffer("seven_from_cerl", SEVEN_FROM_CERL.clone(), persistent=False)

    def text(self) -> torch.Tensor:
        """Text vectors [7, D], unit norm, in the authors' order: the rows of their `emotion_embedding_features.pt`."""
        return self.prompt_learner(self.clip)

    def priors(self) -> torch.Tensor:
        """The emotion priors T [7, D], unit norm, in the order of `emotions.SEVEN`."""
        return self.text()[self.seven_from_cerl]

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """CLIP's image features [N, D], not normalised, of frames [N, 3, S, S] RGB, uint8 or [-1, 1]."""
        pixels = present(frames, self.size, self.convention, self._dtype)
        return image_features(self.clip, pixels)

    @property
    def _dtype(self) -> torch.dtype:
        return self.clip.visual_projection.weight.dtype

    def frozen_trunk(self) -> nn.Module:
        """See `priors.features.OnFrozenTrunk`."""
        return vision_of(self.clip)

    def feature_shape(self) -> tuple[int, int]:
        """One picture of a frame."""
        return 1, sizes(self.clip)[1]

    def feature_identity(self, augmented: bool) -> dict[str, Any]:
        """How the frame is presented; nothing is drawn."""
        return {"form": "released", "side": self.size, "convention": self.convention}

    def frozen_features(self, batch: Batch) -> torch.Tensor:
        """CLIP's features of a batch's frames, [B, R, K, 1, D]."""
        return self.features(batch.frames.flatten(0, 2)).view(*batch.valid.shape, 1, -1)

    def forward(self, batch: Batch) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Losses and monitors of a batch whose samples hold up to one recording of each emotion.

        The recordings of one moment k are one item. Each sample's loss is the mean over its valid frames of the seven
        emotions (0 where it has none); the loss is the mean over samples. Monitors: `cerl/set_accuracy`, how often a text
        finds its image through the networks chosen by label; `cerl/accuracy`, how often an image finds its prior without
        them, as stage 2 uses it.
        """
        b, r, k = batch.valid.shape
        slots = self.slot_of_emotion[batch.emotion.clamp(0, len(self.slot_of_emotion) - 1)][:, None, :].expand(b, k, r)
        counted = batch.valid.transpose(1, 2) & (slots >= 0) & (batch.emotion >= 0)[:, None, :]
        slots = slots.clamp(min=0)
        kept = batch.extras.get(FEATURES)
        features = (self.frozen_features(batch) if kept is None else kept.to(self._dtype)).squeeze(3).transpose(1, 2)
        text = self.text()
        images = adapted(self.mlps, features, slots)
        loss, found = text_to_image(text, images.float(), slots, counted, self.temperature)
        guessed = (F.normalize(features.float(), dim=-1) @ text.T).argmax(-1)

        def mean(values: torch.Tensor) -> torch.Tensor:
            weights = counted.to(loss.dtype)
            kept = torch.where(counted, values, torch.zeros_like(values)).to(loss.dtype)
            return (kept.sum((1, 2)) / weights.sum((1, 2)).clamp(min=1.0)).mean()

        monitors = {"cerl/set_accuracy": mean(found), "cerl/accuracy": mean(guessed == slots)}
        return {"cerl/contrast": mean(loss)}, monitors

    def embed(self, frames: torch.Tensor, speech: torch.Tensor | None = None) -> torch.Tensor:
        """Image vectors [N, D], unit norm, of frames [N, 3, S, S], to compare with `priors()`. Speech is not listened to."""
        return F.normalize(self.features(frames).float(), dim=-1)

    def embed_under(self, frames: torch.Tensor, emotion: torch.Tensor) -> torch.Tensor:
        """E_e of stage 2: image features times the prior of an emotion, made unit norm, [N, D].

        emotion: int64 [N], index into `list(Emotion)`; raises ValueError for an emotion outside the seven.
        """
        return F.normalize(self.features(frames).float() * self.prior_of(emotion), dim=-1)

    def prior_of(self, emotion: torch.Tensor) -> torch.Tensor:
        """The priors [N, D] of emotions int64 [N], index into `list(Emotion)`; ValueError outside the seven."""
        slots = self.slot_of_emotion[emotion]
        if bool((slots < 0).any()):
            strange = list(Emotion)[int(emotion[slots < 0][0])]
            known = ", ".join(SEVEN)
            raise ValueError(f"CERL has no prior for {strange.value!r}; leave such recordings out (it knows {known})")
        return self.text()[slots]

    def classify(self, frames: torch.Tensor) -> torch.Tensor:
        """Zero-shot logits [N, 7] in the order of SEVEN: image vectors times priors over the temperature, no networks between."""
        return self.embed(frames) @ self.priors().T / self.temperature

    def stage2_loss(self, reference: torch.Tensor, generated: torch.Tensor, emotion: torch.Tensor) -> torch.Tensor:
        """`emotion_distance` of frames [N, 3, S, S] under the target emotions int64 [N]; gradients reach `generated`."""
        return emotion_distance(self.features(reference), self.features(generated), self.prior_of(emotion))

    def guidance(self, edit: EditedFrames) -> dict[str, torch.Tensor]:
        """`cerl/emotion`: the published stage-2 loss between reference and generated frames. See `Prior.guidance`."""
        reference, generated = edit.reference.detach().flatten(0, 1), edit.generated.flatten(0, 1)
        prior = self.prior_of(edit.emotion.repeat_interleave(edit.generated.shape[1]))
        apart = emotion_distances(self.features(reference), self.features(generated), prior)
        return {"cerl/emotion": edit.mean(apart)}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`likeness`: the first sample's frames, and under each how it likes the seven priors (bars, SEVEN's order)."""
        frames = batch.frames[0].flatten(0, 1)
        share = self.classify(frames).softmax(-1)
        n, _, height, width = frames.shape
        bars = torch.zeros(n, 3, height // 2, width, device=frames.device)
        levels = torch.arange(height // 2, 0, -1, device=frames.device) / (height // 2)
        for slot, (left, right) in enumerate(zip(_edges(width)[:-1], _edges(width)[1:], strict=True)):
            full = (share[:, slot, None] >= levels).float() * 255.0
            bars[..., left : right - 1] = full[:, None, :, None]
        pictures = torch.cat([frames.float(), bars], 2).permute(2, 0, 3, 1).flatten(1, 2)
        return {"likeness": pictures.round().byte().cpu().numpy()}

    def load_released(self, path: str | Path) -> list[str]:
        """Fills context and networks from a checkpoint of the authors' code; returns the names it left out.

        Left out are tensors of frozen CLIP, which `load_clip` gives. Raises ValueError where names or shapes do not fit.
        """
        return self.load_released_state(read_tensors(path), str(path))

    def load_released_state(self, tensors: dict[str, torch.Tensor], origin: str = "the state_dict") -> list[str]:
        """The same from tensors by the authors' names (`prompt_learner.ctx`, `mlps.K.mlp.L.*`, the names used here)."""
        context = tensors.get("prompt_learner.ctx")
        if context is None or context.shape != self.prompt_learner.ctx.shape:
            found = "none" if context is None else tuple(context.shape)
            raise ValueError(
                f"{origin}: prompt_learner.ctx is {found}, expected {tuple(self.prompt_learner.ctx.shape)} "
                "(emotions, learned words, width): give a checkpoint of the published CERL of this size"
            )
        networks = {n.removeprefix("mlps."): t for n, t in tensors.items() if n.startswith("mlps.")}
        others = [n for n in tensors if n != "prompt_learner.ctx" and not n.startswith("mlps.")]
        strange = [n for n in others if not n.startswith(_FROZEN_NAMES)]
        if strange:
            raise ValueError(
                f"{origin} holds {strange[0]!r} ({len(strange)} such names), which the published CERL does not have; "
                "give a checkpoint of the published CERL, or remove what does not belong to it"
            )
        load_exactly(self.mlps, networks, f"{origin}, part mlps")
        with torch.no_grad():
            self.prompt_learner.ctx.copy_(context)
        return others


def _edges(width: int) -> list[int]:
    return [round(i * width / len(SEVEN)) for i in range(len(SEVEN) + 1)]


def towers(settings: Settings, pretrained: bool) -> tuple[CLIPModel, Tokeniser]:
    """Frozen CLIP of the settings' size and its tokeniser; raises MissingWeights with what to do."""
    if settings.network == "small":
        clip = tiny_clip(SMALL_SIZE, settings.embedding)
        return clip, word_tokeniser(sizes(clip)[2])
    if pretrained:
        return load_clip(), load_tokeniser()
    clip = random_clip()
    return clip, word_tokeniser(sizes(clip)[2])


def descriptions(settings: Settings) -> dict[Emotion, str]:
    """The texts of the prompts by emotion, in the authors' order; raises ValueError where one of the seven is missing."""
    path: str | Path = settings.descriptors or DESCRIPTORS
    if path == "authors":
        from spfem_dist.weights import locate

        path = locate("cdrl-descriptors")
    texts = read_descriptors(path)
    absent = [e.value for e in ALPHABETICAL if e not in texts]
    if absent:
        raise ValueError(
            f"cerl.descriptors {path} has no text for {', '.join(absent)}; CERL needs one for each of the seven"
        )
    return {e: texts[e] for e in ALPHABETICAL}
