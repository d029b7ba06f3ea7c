"""CELCL as published: the emotion's residual from the tokens of source and reference, and the contrast with a cache of codes."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.emotions import SEVEN, Emotion

#: Heads and hidden numbers of the cross-attention; layers, heads, numbers of a head and hidden numbers of the transformer.
CROSS_HEADS, CROSS_HIDDEN = 4, 1024
DEPTH, HEADS, HEAD, HIDDEN = 2, 8, 64, 1
#: Of the contrast: temperature, weight, codes that the cache keeps of each actor and emotion, step that it begins with.
TEMPERATURE, WEIGHT, CACHE, FIRST_STEP = 0.1, 0.1, 8, 100


class CrossAttention(nn.Module):
    """A source's tokens over a reference's; post-norm. norm1 is part of the authors' files and is not used."""

    def __init__(self, width: int = 512):
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(width, CROSS_HEADS)
        self.linear1, self.linear2 = nn.Linear(width, CROSS_HIDDEN), nn.Linear(CROSS_HIDDEN, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, source: Tensor, reference: Tensor) -> Tensor:
        """Codes [N, L, D] of both -> [L, N, D], tokens first, as published."""
        query, key = source.transpose(0, 1), reference.transpose(0, 1)
        x = self.norm2(query + self.multihead_attn(query, key, key, need_weights=False)[0])
        return self.norm3(x + self.linear2(F.gelu(self.linear1(x))))


class _Attention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * HEADS * HEAD, bias=False)
        self.to_out = nn.Sequential(nn.Linear(HEADS * HEAD, width), nn.Dropout(0.0))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(2, (HEADS, HEAD)).transpose(1, 2) for part in self.to_qkv(self.norm(x)).chunk(3, -1)
        )
        return self.to_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        layers = [nn.LayerNorm(width), nn.Linear(width, HIDDEN), nn.GELU(), nn.Dropout(0.0), nn.Linear(HIDDEN, width)]
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Transformer(nn.Module):
    """Pre-norm layers, whose feed-forward part is one number wide, as published."""

    def __init__(self, width: int = 512):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(nn.ModuleList([_Attention(width), _FeedForward(width)]) for _ in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, D] -> the residual [N, L, D]."""
        for attention, feed_forward in self.layers:  # type: ignore[misc]
            x = x + attention(x)
            x = x + feed_forward(x)
        return self.norm(x)


class LatentPool:
    """The newest `size` codes [L, D] of each actor and emotion."""

    def __init__(self, size: int = CACHE):
        self.size = size
        self._codes: dict[tuple[str, Emotion], deque[Tensor]] = {}

    def add(self, actor: str, emotion: Emotion, code: Tensor) -> None:
        """Keep a code, without its graph; the oldest goes."""
        self.codes(actor, emotion).append(code.detach())

    def codes(self, actor: str, emotion: Emotion) -> deque[Tensor]:
        """What is kept of an actor's emotion."""
        return self._codes.setdefault((actor, emotion), deque(maxlen=self.size))

    def keys(self, actor: str, emotion: Emotion) -> Tensor | None:
        """One code [7, L, D] of each emotion of the actor, drawn, `emotion` first; None while any has none: the published loop then leaves
        the item out."""
        order = [emotion, *(other for other in SEVEN if other != emotion)]
        kept = [self.codes(actor, other) for other in order]
        return torch.stack([random.choice(codes) for codes in kept]) if all(kept) else None


def similarity(codes: Tensor, keys: Tensor) -> Tensor:
    """Cosine of each token, mean over tokens: [L, D] and [K, L, D] -> [K]."""
    return F.cosine_similarity(codes[None], keys, dim=-1).mean(-1)


def contrastive_loss(codes: Tensor, actors: Sequence[str], emotions: Sequence[Emotion], pool: LatentPool) -> Tensor:
    """The emotions' contrast of codes [N, L, D] with the pool, weighted; items without a full set of keys are left out."""
    losses = []
    for code, actor, emotion in zip(codes, actors, emotions, strict=True):
        keys = pool.keys(actor, emotion)
        if keys is not None:
            scores = similarity(code, keys)[None] / TEMPERATURE
            losses.append(F.cross_entropy(scores, torch.zeros(1, dtype=torch.long, device=scores.device)))
    return WEIGHT * torch.stack(losses).mean() if losses else codes.sum() * 0
