"""Batch normalisation whose training statistics cover the global micro-batch, on any backend.

`torch.nn.SyncBatchNorm` needs a GPU. This one also works with gloo on the CPU, so that two laptop workers compute
what one worker with the double batch computes: the losses do not depend on the world size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _AllSum(torch.autograd.Function):
    """Sum over all ranks whose gradient is summed over all ranks too (torch's own is deprecated or private)."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """Training statistics are summed over all ranks; everything else, parameter names included, is nn.BatchNorm's."""

    def forward(self, input: Tensor) -> Tensor:
        """input: [N, C, ...] -> the same shape. N may differ between ranks, and be 0 on some of them."""
        self._check_input_dim(input)
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input) if input.dtype == self._wide(input).dtype else self._alone(input)
        mean, variance, count = self._global_statistics(input)
        if self.track_running_stats:
            self._update_running(mean.detach(), variance.detach(), count)
        shape = [1, -1] + [1] * (input.dim() - 2)
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight.to(scale.dtype)
        shift = -mean * scale
        if self.affine:
            shift = shift + self.bias.to(shift.dtype)
        return (input.to(scale.dtype) * scale.view(shape) + shift.view(shape)).to(input.dtype)

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

    def _alone(self, input: Tensor) -> Tensor:
        """nn.BatchNorm's arithmetic in float32 for a half-precision `input`: the CPU's kernel takes no mixture of types."""
        whole, weight, bias = (None if t is None else self._wide(t) for t in (input, self.weight, self.bias))
        assert whole is not None
        momentum = 0.0
        if self.training and self.track_running_stats:
            momentum = self._counted()
        own = self.training or self.running_mean is None
        keeps = self.track_running_stats or not own
        mean, variance = (self.running_mean, self.running_var) if keeps else (None, None)
        return F.batch_norm(whole, mean, variance, weight, bias, own, momentum, self.eps).to(input.dtype)

    def _global_statistics(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [C], biased variance [C] and element count of all ranks' inputs, differentiable, in float32 or better."""
        channels = input.transpose(0, 1).reshape(self.num_features, -1)
        channels = self._wide(channels)
        size = channels.new_full((1,), float(channels.shape[1]))
        mean = channels.sum(1) / size.clamp(min=1)
        spread = (channels - mean[:, None]).square().sum(1)
        # One collective: every rank fills its own row, the sum gathers the rows. Rank means and spreads are joined as
        # Chan et al. do, since a difference of squares would lose the digits where the mean is far from zero.
        rows = channels.new_zeros(dist.get_world_size(), 2 * self.num_features + 1)
        rows = rows.index_put(
            (torch.tensor([dist.get_rank()], device=input.device),), torch.cat([mean, spread, size])[None]
        )
        means, spreads, sizes = _AllSum.apply(rows).split([self.num_features, self.num_features, 1], dim=1)
        sizes = sizes.detach()
        count = sizes.sum(0)
        mean = (means * sizes).sum(0) / count
        variance = (spreads + sizes * (means - mean).square()).sum(0) / count
        return mean, variance, count

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
