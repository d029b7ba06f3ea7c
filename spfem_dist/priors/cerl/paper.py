"""CERL's published size: frozen CLIP, with what is learned on top of it.

`pretrained=False` leaves the trunk random, for tests, dry runs, and checkpoints that bring their own weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spfem_dist.emotions import SEVEN
from spfem_dist.nets.clip import (
    PromptedText,
    image_features,
    load_clip,
    load_tokeniser,
    random_clip,
    read_descriptors,
    word_tokeniser,
)
from spfem_dist.priors.cerl.settings import DESCRIPTORS

#: Side of the faces that the trunk sees, pixels.
SIDE = 224
#: CLIP's own normalisation of images in [0, 1] (OpenAI), by channel.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipEmotion(nn.Module):
    """CERL's published size: CLIP ViT-B/32, frozen, one image adapter for all emotions, and prompted text as priors.

    The text keeps its positional embedding; every class has 8 learned words before its description.
    """

    compilable = True

    def __init__(self, pretrained: bool = True):
        super().__init__()
        self.clip = load_clip() if pretrained else random_clip()
        self.clip.requires_grad_(False)
        tokeniser = load_tokeniser() if pretrained else word_tokeniser(self.clip.config.text_config.vocab_size)
        descriptions = read_descriptors(DESCRIPTORS)
        self.prompt_learner = PromptedText(self.clip, {e: descriptions[e] for e in SEVEN}, tokeniser, positional=True)
        width = self.clip.config.projection_dim
        self.adapter = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, width))
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> ClipEmotion:
        """CLIP stays in eval mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def forward(self, faces: Tensor) -> Tensor:
        """Faces [N, 3, 224, 224] in [-1, 1] -> [N, 512], not yet unit norm."""
        return self.adapted(self.features(faces))

    def features(self, faces: Tensor) -> Tensor:
        """What frozen CLIP makes of faces [N, 3, 224, 224] in [-1, 1], [N, 512], not unit norm."""
        # Stage 2 asks for gradients of the picture; stage 1 for none of the trunk.
        with torch.set_grad_enabled(torch.is_grad_enabled() and faces.requires_grad):
            return image_features(self.clip, ((faces + 1.0) / 2.0 - self.mean) / self.std)

    def adapted(self, features: Tensor) -> Tensor:
        """CLIP's features [..., 512] with what is learned added."""
        return features + self.adapter(features)

    def priors(self) -> Tensor:
        """Text vectors [7, 512] in the order of `emotions.SEVEN`, unit norm."""
        return self.prompt_learner(self.clip)
