"""Networks that stand still: for good once they are trained, or for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def freeze(network: nn.Module) -> nn.Module:
    """Make a trained network a fixed measure: eval mode for good, no parameter gradients, batch-norm buffers untouched.

    Gradients still flow through it to its inputs. `train()` on it or on a parent has no effect any more.
    """
    network.eval().requires_grad_(False)
    for module in network.modules():
        module.train = lambda mode=True, self=module: self  # type: ignore[method-assign]
    return network


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """`network` in eval mode; afterwards in the mode that it was in."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
