"""What `zero.precision` and `speed` do to networks and to a step: time, memory and rounding change, what is learnt does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from spfem_dist.config import Speed
from spfem_dist.nets.recompute import recompute


def computing(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Within, networks compute as this `zero.precision` says. Around forward passes only: a backward pass does as its forward did."""
    if precision == "bf16-mixed":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def prepare(networks: Mapping[str, nn.Module], speed: Speed) -> None:
    """What `speed` asks of this process and of the networks that it trains, before they become engines."""
    # A GPU computes fp32 products in TF32, or is kept from it.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = speed.tf32
    for network in networks.values():
        recompute(network, speed.recompute)


def compile_all(networks: Mapping[str, nn.Module], speed: Speed, say: Callable[[str], None]) -> None:
    """Compile the networks where `speed` wants it. Parameters and their names stay as they are.

    Not before arithmetic was counted: what torch.compile meets within a dispatch mode it leaves uncompiled for good, and says nothing.
    Compiled are the parts of a network whose class says `compilable = True`, else the network as a whole. One that says False stays as it
    is: a compiled network has no second derivatives, which a gradient penalty asks for.
    say: is told of a part that cannot be compiled, when it is first called; it then runs as it is.
    """
    if speed.compile:
        for name, network in networks.items():
            able = {key: part for key, part in network.named_modules() if getattr(part, "compilable", None)}
            if not able and getattr(network, "compilable", True):
                able = {"": network}
            for key, part in able.items():
                _compile(f"{name}.{key}".rstrip("."), part, speed.cuda_graphs, say)


def begin_step(speed: Speed) -> None:
    """Before each optimiser step: results of networks in the step before may be written over. Gradients of its micro-batches may not."""
    if speed.cuda_graphs:
        torch.compiler.cudagraph_mark_step_begin()


def _compile(name: str, network: nn.Module, graphs: bool, say: Callable[[str], None]) -> None:
    from torch._dynamo.exc import TorchDynamoException  # these imports take a second
    from torch._inductor.exc import InductorError

    network.compile(mode="reduce-overhead" if graphs else None)
    module: Any = network
    fast = module._compiled_call_impl

    def called(*arguments: Any, **named: Any) -> Any:
        try:
            return fast(*arguments, **named)
        except (TorchDynamoException, InductorError) as error:
            reason = str(error).strip().splitlines()[0]
            say(f"{name} cannot be compiled and runs as it is: {reason}")
            module._compiled_call_impl = None
            return network(*arguments, **named)

    module._compiled_call_impl = called
