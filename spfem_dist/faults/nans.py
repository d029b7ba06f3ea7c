"""NaNs on request, planted in a network while it trains: what a broken kernel, a bad batch or a flipped bit would leave there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

NAN = float("nan")


def activations(engine: Any, held: ExitStack) -> None:
    """In what the first layer gives, until `held` is left."""

    def spoilt(_layer: nn.Module, _inputs: Any, given: Any) -> Any:
        return given * NAN if isinstance(given, Tensor) else type(given)(part * NAN for part in given)

    held.callback(_first_layer(engine).register_forward_hook(spoilt).remove)


def gradients(engine: Any, held: ExitStack) -> None:
    """In the gradients of the first layer's parameters, until `held` is left; losses stay what they are."""

    def spoilt(_layer: nn.Module, gradients: Any) -> Any:
        return tuple(None if gradient is None else gradient * NAN for gradient in gradients)

    held.callback(_first_layer(engine).register_full_backward_pre_hook(spoilt).remove)


def optimizer(engine: Any, held: ExitStack) -> None:
    """In one number of the optimiser's states; without any, as at the first step, nowhere."""
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    values = [value for state in inner.state.values() for value in state.values() if torch.is_tensor(value)]
    _spoil(values)


def weights(engine: Any) -> None:
    """In one weight of this worker's part: the network's, and the optimiser's copy of it where that has one."""
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    _spoil([parameter for parameter in inner.state if torch.is_tensor(parameter)])
    _spoil([getattr(p, "ds_tensor", p) for p in engine.module.parameters() if p.requires_grad])


def _first_layer(engine: Any) -> nn.Module:
    return next(m for m in engine.module.modules() if any(p.requires_grad for p in m.parameters(recurse=False)))


def _spoil(tensors: list[Tensor]) -> None:
    """NaN in the first number of the first of the tensors that has any dimension."""
    with torch.no_grad():
        for tensor in tensors:
            if tensor.dim() and tensor.numel():
                tensor.data.view(-1)[0] = NAN
                return


PLANTS: dict[str, Callable[..., None]] = {
    "activations": activations,
    "gradients": gradients,
    "optimizer": optimizer,
    "weights": weights,
}
