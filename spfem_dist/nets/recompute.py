"""Activation checkpointing: a block keeps its inputs alone, and computes the rest again when its gradients are wanted.

A network that can do so calls its blocks through `kept` and has an attribute `recompute`, off at first. Blocks must give the same
numbers when they are called twice: no dropout, and no batch norm that takes statistics.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputing(nn.Module):
    """A network with blocks that may be computed again."""

    recompute = False

    def kept(self, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`block(*inputs)`, of which only `inputs` are kept for backward where `recompute` is on."""
        if self.recompute and torch.is_grad_enabled():
            made: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
            return made
        return block(*inputs)


def recompute(network: nn.Module, on: bool) -> bool:
    """Turn it on or off for every part of `network` that can; returns whether there is any."""
    able = [module for module in network.modules() if isinstance(module, Recomputing)]
    for module in able:
        module.recompute = on
    return bool(able)
