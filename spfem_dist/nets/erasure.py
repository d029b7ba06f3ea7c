"""Linear concept erasure: take out of an embedding whatever a linear classifier could know of a label, and as little else as possible.

LEACE (Belrose et al., "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023, theorem 4.3). No linear
classifier does better than chance exactly when all classes have the same mean; of the affine maps that make the means
equal, this is the one that moves the vectors least.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

#: Share of the mean variance that is added to the covariance's diagonal: directions that hardly vary are left alone.
RIDGE = 1e-4


class LinearErasure(nn.Module):
    """Watches labelled vectors in training, and erases the label afterwards.

    width: of the vectors. classes: number of labels. memory: share of what was seen that is still remembered one
    observation later (0.99: about the last hundred). Statistics cover all ranks; they are buffers, so checkpoints hold them.
    """

    count: Tensor
    total: Tensor
    square: Tensor

    def __init__(self, width: int, classes: int, memory: float = 0.99):
        super().__init__()
        self.memory = memory
        self.register_buffer("count", torch.zeros(classes))
        self.register_buffer("total", torch.zeros(classes, width))
        self.register_buffer("square", torch.zeros(width, width))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LinearErasure:
        super()._apply(fn, recurse)
        for name, buffer in list(
            self.named_buffers(recurse=False)
        ):  # sums in half precision would forget what they add
            setattr(self, name, buffer.to(torch.promote_types(buffer.dtype, torch.float32)))
        return self

    @torch.no_grad()
    def observe(self, vectors: Tensor, labels: Tensor, counted: Tensor) -> None:
        """Remember vectors [N, D] with labels int64 [N] where `counted` bool [N]. A collective."""
        vectors = vectors.detach().to(self.total.dtype) * counted[:, None]
        classes = torch.arange(len(self.count), device=labels.device)
        member = (labels[:, None] == classes).to(vectors.dtype) * counted[:, None]
        seen = torch.cat([(vectors.T @ vectors).flatten(), (member.T @ vectors).flatten(), member.sum(0)])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(seen)
        square, total, count = seen.split([self.square.numel(), self.total.numel(), self.count.numel()])
        for held, new in ((self.square, square), (self.total, total), (self.count, count)):
            held.mul_(self.memory).add_(new.view_as(held))

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors [N, D] without the label, in their own dtype; unchanged while fewer than two classes were observed.

        Asks the host for nothing: a class that was not observed has a share of 0, and with one class nothing lies apart.
        """
        device = vectors.device.type
        if not torch.amp.is_autocast_available(device):
            return self._erased(vectors)
        with torch.autocast(device, enabled=False):  # a pseudo-inverse wants single precision
            return self._erased(vectors)

    def _erased(self, vectors: Tensor) -> Tensor:
        seen, whole = self.count > 0, self.count.sum().clamp(min=1e-30)
        mean = self.total.sum(0) / whole
        share = (self.count / whole).sqrt()
        means = self.total / self.count.clamp(min=1e-30)[:, None]
        apart = torch.where(seen[:, None], means - mean, 0).T * share  # [D, C]
        apart = torch.where(seen.sum() < 2, torch.zeros_like(apart), apart)
        spread = self.square / whole - torch.outer(mean, mean)
        spread = torch.where(seen.sum() < 1, torch.eye(len(mean)).to(spread), spread)
        spread = spread + RIDGE * spread.diagonal().mean() * torch.eye(len(mean), device=mean.device, dtype=mean.dtype)
        asked = torch.linalg.solve(spread, apart)
        taken = apart @ torch.linalg.pinv(apart.T @ asked, rtol=1e-6, hermitian=True)
        found = vectors.to(mean.dtype)
        return (found - (found - mean) @ asked @ taken.T).to(vectors.dtype)

    def extra_repr(self) -> str:
        """Sizes, for `print`."""
        return f"width={self.total.shape[1]}, classes={len(self.count)}, memory={self.memory}"
