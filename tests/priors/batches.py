"""Small batches for the priors: random faces and speech."""

import torch

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.records import Batch, Seeds


def make_batch(b: int, r: int, k: int, *, size: int = 64, window: int = 5, features: int = 160, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    emotions = [list(Emotion).index(SEVEN[i % 7]) for i in range(r)]
    return Batch(
        frames=torch.randint(0, 256, (b, r, k, 3, size, size), generator=generator, dtype=torch.uint8),
        speech=torch.randn(b, r, k, window, features, generator=generator),
        position=(6 * torch.arange(k)).expand(b, r, k).clone(),
        emotion=torch.tensor(emotions).expand(b, r).clone(),
        valid=torch.ones(b, r, k, dtype=torch.bool),
        sample=torch.arange(b),
        seed=Seeds(tuple(7919 * i + seed for i in range(b))),
        keys=[f"S{i:02d}_00" for i in range(b)],
    )


def part(batch: Batch, which: slice) -> Batch:
    tensors = {
        n: getattr(batch, n)[which] for n in ("frames", "speech", "position", "emotion", "valid", "sample", "seed")
    }
    return Batch(**tensors, keys=batch.keys[which])
