"""Ranger, the published optimiser: RAdam, gradients centralised, weights that look ahead (Wright, "Ranger", version of 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class Ranger(torch.optim.RAdam):
    """torch's RAdam under Ranger's two additions.

    lookahead: steps after which weights go the share `alpha` of the way from their slow copies, which go along. Gradients of tensors with
    two or more axes lose their mean over all axes but the first: DeepSpeed's ZeRO, which hands flat parts of tensors to an optimiser, has
    no such axes left.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        alpha: float = 0.5,
        lookahead: int = 6,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
    ):
        super().__init__(parameters, lr=lr, betas=betas, eps=eps)
        self.alpha, self.lookahead = alpha, lookahead

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update."""
        for parameter in self._wanting():
            if parameter.dim() > 1:
                parameter.grad -= parameter.grad.mean(tuple(range(1, parameter.dim())), keepdim=True)
            if "slow" not in self.state[parameter]:
                self._begin(parameter)
        found = super().step(closure)
        for parameter in self._wanting():
            state = self.state[parameter]
            if int(state["step"]) % self.lookahead == 0:
                parameter.copy_(state["slow"].lerp_(parameter, self.alpha))
        return found

    def _wanting(self) -> list[nn.Parameter]:
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]

    def _begin(self, parameter: nn.Parameter) -> None:
        """RAdam's own state, which it makes only where a parameter has none at all, and the slow copy."""
        self.state[parameter] |= {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
            "slow": parameter.detach().clone(),
        }
