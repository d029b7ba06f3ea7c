"""The towers of PCMECL: faces to vectors, and prompts that a speaker's portrait shifts to vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spfem_dist.emotions import SEVEN
from spfem_dist.nets.batchnorm import BatchNorm1d
from spfem_dist.nets.clip import (
    PromptedText,
    image_features,
    load_clip,
    load_tokeniser,
    random_clip,
    word_tokeniser,
)
from spfem_dist.nets.presented import CLIP_DEVIATION, CLIP_MEAN
from spfem_dist.nets.small import CHANNELS, MAP_SIDE, SIDE, FaceEncoder

#: Width of the bottleneck through which a portrait reaches a prompt.
BOTTLENECK = 32


class SmallTowers(nn.Module):
    """A convolutional face encoder, and one learned prompt for each emotion with two layers behind it in the place of a text tower."""

    side = SIDE

    def __init__(self, embedding: int):
        super().__init__()
        self.width = self.shift_width = embedding
        self.face = FaceEncoder()
        inside = CHANNELS * MAP_SIDE * MAP_SIDE
        self.head = nn.Sequential(BatchNorm1d(inside), nn.Linear(inside, embedding, bias=False), BatchNorm1d(embedding))
        self.context = nn.Parameter(torch.randn(len(SEVEN), embedding))
        self.text = nn.Sequential(nn.Linear(embedding, 2 * embedding), nn.ReLU(), nn.Linear(2 * embedding, embedding))

    def see(self, faces: Tensor) -> Tensor:
        """Faces [N, 3, 48, 48] in [-1, 1] -> [N, D], not yet unit norm."""
        return self.head(self.face(faces).flatten(1))

    def say(self, shift: Tensor) -> Tensor:
        """What is added to every prompt, [N, D] -> prompts of `emotions.SEVEN` [N, 7, D], not yet unit norm."""
        return self.text(self.context + shift[:, None])


class ClipTowers(nn.Module):
    """The published size: CLIP ViT-B/32, frozen. Each emotion has 8 learned words before its text; a portrait shifts all of them.

    pretrained: False leaves CLIP random, for tests, dry runs and saved priors, which bring their own.
    """

    side = 224
    mean: Tensor
    std: Tensor

    def __init__(self, pretrained: bool = True):
        super().__init__()
        self.clip = load_clip() if pretrained else random_clip()
        self.clip.requires_grad_(False)
        tokeniser = load_tokeniser() if pretrained else word_tokeniser(self.clip.config.text_config.vocab_size)
        texts = {e: f"a talking face, its expression: {e.value}" for e in SEVEN}
        self.prompts = PromptedText(self.clip, texts, tokeniser)
        self.width, self.shift_width = self.clip.config.projection_dim, self.clip.config.text_config.hidden_size
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_DEVIATION).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> ClipTowers:
        """CLIP stays in eval mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def see(self, faces: Tensor) -> Tensor:
        """Faces [N, 3, 224, 224] in [-1, 1] -> [N, 512], not yet unit norm."""
        # Stage 2 asks for gradients of the picture; stage 1 for none of the trunk.
        with torch.set_grad_enabled(torch.is_grad_enabled() and faces.requires_grad):
            return image_features(self.clip, ((faces + 1.0) / 2.0 - self.mean) / self.std)

    def say(self, shift: Tensor) -> Tensor:
        """What is added to every learned word, [N, 512] -> prompts of `emotions.SEVEN` [N, 7, 512], unit norm."""
        return self.prompts(self.clip, shift)
