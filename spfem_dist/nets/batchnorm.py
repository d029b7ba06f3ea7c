"""Batch normalisation whose training statistics cover the global micro-batch, on any backend.

`torch.nn.SyncBatchNorm` needs a GPU. This one also works with gloo on the CPU, so that two laptop workers compute
what one worker with the double batch computes: the losses do not depend on the world size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Normalise(torch.autograd.Function):
    """Normalisation by the statistics of all ranks' inputs: one collective forward, one backward, torch's own kernels between them.

    Takes (input [N, C, ...], weight [C] or None, bias [C] or None, eps) in float32 or better; returns (normalised input, mean [C], biased
    variance [C], number of elements of a channel [1]), of which only the first is differentiable, once.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = input.shape[1]
        counted = input.numel() // channels
        mine = input.new_zeros(2 * channels + 1)
        if counted:
            # Three times as fast as torch.var_mean where the channels are not the last dimension.
            mean, variance = torch.ops.aten.batch_norm_update_stats(input, None, None, 0.0)
            mine = torch.cat([mean, variance * counted, mine.new_full((1,), float(counted))])
        # Every rank fills its own row, the sum gathers the rows. Rank means and spreads are joined as Chan et al. do, since a
        # difference of squares would lose the digits where the mean is far from zero.
        rows = mine.new_zeros(dist.get_world_size(), len(mine))
        rows[dist.get_rank()] = mine
        dist.all_reduce(rows)
        means, spreads, sizes = rows.split([channels, channels, 1], dim=1)
        count = sizes.sum(0)
        mean = (means * sizes).sum(0) / count
        variance = (spreads + sizes * (means - mean).square()).sum(0) / count
        ctx.save_for_backward(input, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        output = F.batch_norm(input, mean, variance, weight, bias, False, 0.0, eps) if counted else input.clone()
        return output, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, *_statistics: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        input, weight, mean, variance, count = ctx.saved_tensors
        by_scale, by_shift = mean.new_zeros(2, len(mean)).unbind()
        if len(input):
            # With given statistics, torch's backward sums gradient x normalised input, and gradient: all that is needed. On a GPU what
            # a forward pass saved has to be there, and may be empty.
            saved = mean.new_empty(0)
            _, by_scale, by_shift = torch.ops.aten.native_batch_norm_backward(
                gradient, input, weight, mean, variance, saved, saved, False, ctx.eps, [False, True, True]
            )
        totals = torch.cat([by_scale, by_shift])
        dist.all_reduce(totals)
        along, level = totals.div_(count).chunk(2)
        whiten = torch.rsqrt(variance + ctx.eps)
        scale = whiten if weight is None else whiten * weight
        # scale * (gradient - level - along * (input - mean) * whiten), as two products and a sum
        shape = [1, -1] + [1] * (input.dim() - 2)
        slope = -scale * along * whiten
        offset = -scale * level - slope * mean
        moved = torch.addcmul(offset.view(shape), input, slope.view(shape))
        back = torch.addcmul(moved, gradient, scale.view(shape))
        return back, None if weight is None else by_scale, None if weight is None else by_shift, None


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """Training statistics are summed over all ranks; everything else, parameter names included, is nn.BatchNorm's."""

    def forward(self, input: Tensor) -> Tensor:
        """input: [N, C, ...] -> the same shape. N may differ between ranks, and be 0 on some of them."""
        self._check_input_dim(input)
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input) if input.dtype.itemsize >= 4 else self._alone(input)
        output, mean, variance, count = _Normalise.apply(*self._all_wide(input), self.eps)
        if self.track_running_stats:
            self._update_running(mean, variance, count)
        return output.to(input.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Synchronised:
        super()._apply(fn, recurse)
        for name in ("running_mean", "running_var"):  # running means in half precision would stand still
            if (buffer := getattr(self, name)) is not None:
                setattr(self, name, self._wide(buffer))
        return self

    @staticmethod
    def _wide(tensor: Tensor) -> Tensor:
        """In float32 or better."""
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

    def _all_wide(self, input: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """`input`, weight and bias so."""
        weight, bias = (None if t is None else self._wide(t) for t in (self.weight, self.bias))
        return self._wide(input), weight, bias

    def _alone(self, input: Tensor) -> Tensor:
        """nn.BatchNorm's arithmetic in float32 for a half-precision `input`: the CPU's kernel takes no mixture of types."""
        whole, weight, bias = self._all_wide(input)
        if input.is_cuda:  # a GPU's kernel takes it beside statistics in float32, and computes in float32
            whole = input
        momentum = 0.0
        if self.training and self.track_running_stats:
            momentum = self._counted()
        own = self.training or self.running_mean is None
        keeps = self.track_running_stats or not own
        mean, variance = (self.running_mean, self.running_var) if keeps else (None, None)
        return F.batch_norm(whole, mean, variance, weight, bias, own, momentum, self.eps).to(input.dtype)

    def _counted(self) -> float:
        """Count one more batch; the weight of its statistics in the running ones."""
        self.num_batches_tracked.add_(1)
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        momentum = self._counted()
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


class BatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """nn.BatchNorm1d over all ranks' [N, C] or [N, C, L]."""


class BatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """nn.BatchNorm2d over all ranks' [N, C, H, W]."""


@contextmanager
def passing_twice(network: nn.Module) -> Iterator[None]:
    """Within, one pass of a batch in train mode moves the running statistics of batch norms as two passes of it would.

    A pass goes the share m of the way to the batch's statistics, so a second one goes 1 - m of the first one's way once more.
    """
    norms = [
        n
        for n in network.modules()
        if isinstance(n, nn.modules.batchnorm._BatchNorm) and n.track_running_stats and n.training
    ]
    before = [(norm.running_mean.clone(), norm.running_var.clone(), norm.num_batches_tracked.clone()) for norm in norms]
    yield
    for norm, (mean, variance, count) in zip(norms, before, strict=True):
        if norm.momentum is None:
            raise ValueError("a batch norm whose statistics are a mean over all batches cannot pass twice at once")
        # `.data`: backward holds these buffers, which it does not read after a pass in train mode.
        for now, old in ((norm.running_mean, mean), (norm.running_var, variance)):
            now.data.add_(now - old, alpha=1 - norm.momentum)
        norm.num_batches_tracked.data.add_(norm.num_batches_tracked - count)


def synchronise(module: nn.Module) -> nn.Module:
    """`module` with every nn.BatchNorm1d and nn.BatchNorm2d inside replaced by its synchronised form, in place.

    Parameters and buffers are the very same tensors, so optimisers and checkpoints stay valid. Returns the module
    (a new one where `module` itself is a batch norm).
    """
    for kind, synchronised in ((nn.BatchNorm1d, BatchNorm1d), (nn.BatchNorm2d, BatchNorm2d)):
        if type(module) is kind:
            return _converted(module, synchronised)
    for name, child in module.named_children():
        replaced = synchronise(child)
        if replaced is not child:
            setattr(module, name, replaced)
    return module


def _converted(norm: nn.modules.batchnorm._BatchNorm, kind: type[_Synchronised]) -> _Synchronised:
    new = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.weight, new.bias = norm.weight, norm.bias
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(new, name, getattr(norm, name))
    return new.train(norm.training)
