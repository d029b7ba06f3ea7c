"""DeepSpeed engines: one for each trainable network, with sharding, precision and clipping set explicitly."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from spfem_dist.config import Optimizer, Zero
from spfem_dist.shares import Share

#: Lets torch's flight recorder remember the last collectives, which the watchdog reads; set before the process group is made.
RECORDER = {"TORCH_FR_BUFFER_SIZE": "500"}
#: Most gradients that are exchanged at once, numbers; DeepSpeed's default is ten times that.
BUCKET = 50_000_000


def connect(device: torch.device) -> None:
    """Join (or make) the process group and tell DeepSpeed about it."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if device.type == "cuda" else "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    for name, value in RECORDER.items():
        os.environ.setdefault(name, value)
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        if "RANK" in os.environ and "MASTER_ADDR" in os.environ:
            dist.init_process_group(backend)
        else:  # started alone: a group of one needs no rendezvous
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    deepspeed = _deepspeed()
    deepspeed.init_distributed(dist_backend=dist.get_backend(), auto_mpi_discovery=False, verbose=False)


def _deepspeed() -> Any:
    import logging

    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # The shared-memory collective serves inference only, but building it costs the first start a minute and a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def optimizer_for(parameters: list[nn.Parameter], settings: Optimizer, offload: str) -> torch.optim.Optimizer:
    """The optimiser that `settings` names, over `parameters`."""
    if offload == "cpu":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(
            parameters,
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            adamw_mode=settings.name == "adamw",
        )
    # On a GPU all parameters are updated by a few kernels of torch's own; DeepSpeed's would have to be compiled first.
    fused = all(p.is_cuda for p in parameters)
    if settings.name == "sgd":
        return torch.optim.SGD(
            parameters,
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=fused or None,
        )
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=fused or None,
    )


def deepspeed_config(
    zero: Zero, clip: float, micro_batch: int, accumulation: int, trainable: int, universal: bool = False
) -> dict[str, Any]:
    """DeepSpeed's own configuration for a network of so many `trainable` parameters. Defaults that moved between releases are stated."""
    bucket = min(BUCKET, trainable)  # of gradients: held from the first step to the last
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clip,
        "zero_allow_untested_optimizer": True,
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 10**9,
        "zero_optimization": {
            "stage": zero.stage,
            "overlap_comm": False,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": BUCKET,
        },
    }
    if zero.stage == 3:
        # Small tensors stay whole: gathering a bias costs more than keeping it.
        config["zero_optimization"] |= {"stage3_param_persistence_threshold": 10_000}
    if zero.offload == "cpu":
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if zero.precision == "bf16":
        config["bf16"] = {"enabled": True}
    if zero.precision == "fp16":
        # DeepSpeed's own first scale of 2^16 and patience of two overflows cost a run its first ten updates.
        config["fp16"] = {"enabled": True, "initial_scale_power": 10, "hysteresis": 1}
    return config


def make_engine(
    network: nn.Module,
    optimizer: Optimizer,
    zero: Zero,
    share: Share,
    device: torch.device,
    universal: bool = False,
) -> Any:
    """Wrap `network` in a DeepSpeed engine over its trainable parameters.

    share: the worker's share of each global batch. universal: the checkpoint that it will load is a universal one.
    """
    deepspeed = _deepspeed()
    _refuse_half(zero, device)
    if zero.precision == "fp64":
        network.double()
        _sum_doubles()
    trainable = [p for p in network.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(f"{type(network).__name__} has no trainable parameter; a frozen network needs no engine")
    _scalars_as_buffers(network)
    numel = sum(p.numel() for p in trainable)
    network, clip = network.to(device), optimizer.clip
    update = optimizer_for(trainable, optimizer, zero.offload)
    if zero.stage == 0 and zero.precision not in ("bf16", "fp16"):  # DeepSpeed takes it as it is
        update, clip = guarded(update, clip), 0.0
    engine, *_ = deepspeed.initialize(
        model=network,
        model_parameters=trainable,
        optimizer=update,
        config=deepspeed_config(zero, clip, share.micro_batch, share.steps, numel, universal),
    )
    if zero.stage == 3:
        _clear_padding(engine)
    if zero.stage == 0 and zero.width == 2:
        # DeepSpeed has tried the optimiser with empty gradients: without this Adam takes the first update for its second, and
        # makes it a quarter too small.
        engine.optimizer.optimizer.state.clear()
    return engine


@torch.no_grad()
def _clear_padding(engine: Any) -> None:
    """Set to nought what fills up the last part of a parameter under ZeRO-3: DeepSpeed leaves there what the memory held, maybe no numbers."""
    rank, optimizer = dist.get_rank(), engine.optimizer

    def own(parameter: Any) -> int:
        return max(0, min(parameter.partition_numel(), parameter.ds_numel - rank * parameter.partition_numel()))

    for parameter in engine.module.parameters():
        parameter.ds_tensor[own(parameter) :].zero_()
    for masters, parameters in zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True):
        for master, parameter in zip(masters.split([p.partition_numel() for p in parameters]), parameters, strict=True):
            master[own(parameter) :].zero_()


def _refuse_half(zero: Zero, device: torch.device) -> None:
    from deepspeed.accelerator import get_accelerator

    if zero.precision == "fp16" and not get_accelerator().is_fp16_supported():
        raise ValueError(
            f"zero.precision fp16: DeepSpeed does not compute in half precision on this {device.type}: use bf16-mixed, bf16 or fp32"
        )


def guarded(optimizer: torch.optim.Optimizer, clip: float) -> torch.optim.Optimizer:
    """A plain optimiser that does what DeepSpeed's own do: it clips gradients to the norm `clip` (0: not), keeps their norm, and leaves
    an update out, and says so, whose gradients are not finite.

    Where torch's fused kernels update, as on a GPU, nothing waits for the host: they take the verdict from the device, and `left_out`
    counts there.
    """
    told: Any = optimizer  # DeepSpeed's engine looks for these names on it
    fused = bool(optimizer.defaults.get("fused"))
    if fused:
        told.left_out = torch.zeros((), device=optimizer.param_groups[0]["params"][0].device)

    def before(_optimizer: torch.optim.Optimizer, _arguments: Any, _named: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        told._global_grad_norm, bad = norm, ~norm.isfinite()
        if clip:
            nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        if fused:
            told.found_inf = bad.float()
            told.left_out += told.found_inf
            return
        told.overflow = bool(bad)
        if told.overflow:
            for parameter in parameters:
                parameter.grad = None

    optimizer.register_step_pre_hook(before)
    return optimizer


def _scalars_as_buffers(network: nn.Module) -> None:
    """Make frozen parameters without a dimension (CLIP's logit scale) buffers of the same names: DeepSpeed cannot send them to other ranks."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() == 0 and not parameter.requires_grad:
                delattr(module, name)
                module.register_buffer(name, parameter.data)


def _sum_doubles() -> None:
    """Let ZeRO-0 sum double gradients over workers: DeepSpeed's CPU does not list them, and gloo sums them all the same."""
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    listed = accelerator.supported_dtypes()
    if torch.float64 not in listed:
        accelerator.supported_dtypes = lambda: [*listed, torch.float64]


def learning_rate(settings: Optimizer, step: int, steps: int) -> float:
    """The learning rate of optimiser step `step` (from 0) of `steps`: a pure function, so a resumed run needs no state."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "cosine":
        progress = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
        return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    if settings.schedule == "multistep":
        return settings.lr * 0.1 ** sum(step >= m for m in settings.milestones)
    return settings.lr


def set_learning_rate(engine: Any, value: float) -> None:
    """Give every parameter group of the engine's optimiser this learning rate."""
    for group in engine.optimizer.param_groups:
        group["lr"] = value


def begin_micro_batch(engine: Any) -> None:
    """What an engine's forward tells ZeRO-3 before a micro-batch, to be called where the network is called as a module.

    Without it ZeRO-3 takes each micro-batch for the first: its gradients take the place of those before, instead of being added.
    """
    if engine.zero_optimization_stage() == 3:
        engine.optimizer.clear_backward_seen_flag()


def publish(engine: Any) -> None:
    """Give the engine's network, on every rank, what the optimiser's master weights are. A collective."""
    optimizer = engine.optimizer
    if hasattr(optimizer, "update_lp_params"):  # ZeRO-1 and -2
        optimizer.update_lp_params()
    elif engine.zero_optimization_stage() == 3:
        optimizer.checkpoint_event_prologue()  # gives back the small tensors that stay whole
        for part in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(part)
        optimizer.checkpoint_event_epilogue()
    elif hasattr(optimizer, "fp32_groups"):  # ZeRO-0 in half precision; otherwise the parameters are the masters
        for halves, masters in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
            torch._foreach_copy_([half.detach() for half in halves], [master.detach() for master in masters])


@contextmanager
def whole_parameters(engine: Any) -> Iterator[nn.Module]:
    """The engine's network with all parameters in place on every rank; under ZeRO-3 they are gathered. A collective."""
    import deepspeed

    if engine.zero_optimization_stage() < 3:
        yield engine.module
        return
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters()), modifier_rank=None):
        yield engine.module


@contextmanager
def only(networks: Mapping[str, nn.Module], name: str) -> Iterator[None]:
    """Within, of these networks' parameters only those of `name` want gradients.

    So that a generator's losses leave nothing in the discriminator that judges it, and nothing is reduced for it.
    """
    others = [p for key, n in networks.items() if key != name for p in n.parameters() if p.requires_grad]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
