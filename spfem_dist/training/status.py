"""What a person watches while a run trains: speed, waiting, memory, utilisation, time left."""

from __future__ import annotations

import resource
import statistics
import time
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from spfem_dist.training.screen import Status

#: Dense peaks of known GPUs, FLOP/s, by a part of the device's name: bf16 (fp16 where there is none), TF32, and fp32 without it (vendor
#: data sheets).
PEAK_FLOPS: dict[str, dict[str, float]] = {
    "H200": {"bf16": 989e12, "tf32": 494.7e12, "fp32": 66.9e12},
    "H100": {"bf16": 989e12, "tf32": 494.7e12, "fp32": 66.9e12},
    "A100": {"bf16": 312e12, "tf32": 156e12, "fp32": 19.5e12},
    "L40S": {"bf16": 362e12, "tf32": 183e12, "fp32": 91.6e12},
    "L4": {"bf16": 121e12, "tf32": 60e12, "fp32": 30.3e12},
    "V100": {"bf16": 125e12, "fp32": 15.7e12},
    "T4": {"bf16": 65e12, "fp32": 8.1e12},
}


def peak_flops(device: torch.device, precision: str = "bf16") -> float | None:
    """The device's dense peak in FLOP/s, or None where it is not known (utilisation is then not shown).

    precision: `bf16`, `tf32` or `fp32`; also of convolutions in fp32, which PyTorch computes in TF32 unless told otherwise.
    """
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    peaks = next((peaks for part, peaks in PEAK_FLOPS.items() if part in name), {})
    return peaks.get(precision) or (peaks.get("fp32") if precision == "tf32" else None)


def arithmetic(precision: str) -> str:
    """What the matrix units of a GPU compute in for networks of this zero.precision, as `peak_flops` calls it."""
    if precision == "fp32" and torch.backends.cudnn.allow_tf32:
        return "tf32"
    return "bf16" if precision in ("bf16-mixed", "fp16") else precision


class _NoModules:
    """Stands in for the flop counter's record of the module that is running: everything belongs to the whole."""

    parents: ClassVar[set[str]] = {"Global"}

    def __enter__(self) -> None: ...
    def __exit__(self, *_error: object) -> None: ...


def flop_counter() -> FlopCounterMode:
    """Counts floating-point operations within; `get_total_flops()` afterwards.

    torch's own also asks which module works, by hooks that `torch.autograd.grad` refuses: a gradient penalty would fail.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    return counter


def memory_gb(device: torch.device) -> float:
    """Peak memory of this process so far, GB: the GPU's allocator, or resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


@dataclass
class Meter:
    """Step times of the recent past and waiting since the last reading. The first steps (warm-up) are left out."""

    workers: int
    global_batch: int
    flops_per_sample: float | None = None
    peak: float | None = None
    warmup: int = 3
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=200))
    _waits: deque[float] = field(default_factory=lambda: deque(maxlen=200))
    #: Seconds of the step that ended last.
    last: float = 0.0
    _seen: int = 0
    _since: float = field(default_factory=time.perf_counter)

    def step(self, waited: float) -> None:
        """Count one optimiser step that just ended and waited `waited` seconds for data."""
        now = time.perf_counter()
        self._seen += 1
        self.last = now - self._since
        if self._seen > self.warmup:
            self._times.append(now - self._since)
            self._waits.append(waited)
        self._since = now

    def pause(self) -> None:
        """Leave out what happened since the last step (validation, a checkpoint)."""
        self._since = time.perf_counter()

    def reading(self, device: torch.device) -> dict[str, float]:
        """Figures over the recent steps; names as they appear in tracking (without the `perf/` prefix)."""
        if not self._times:
            return {}
        mean = statistics.fmean(self._times)
        figures = {
            "samples_per_s": self.global_batch / mean,
            "samples_per_s_per_worker": self.global_batch / mean / self.workers,
            "data_wait_share": sum(self._waits) / sum(self._times),
            "step_time_p50": statistics.median(self._times),
            "step_time_max": max(self._times),
            "memory_gb": memory_gb(device),
        }
        if self.flops_per_sample:
            figures["gflop_per_sample"] = self.flops_per_sample / 1e9
        if self.flops_per_sample and self.peak:
            figures["mfu"] = figures["samples_per_s_per_worker"] * self.flops_per_sample / self.peak
        return figures

    def status(self, job: str, step: int, steps: int, losses: dict[str, float], device: torch.device) -> Status:
        """Where the job stands after `step` of `steps`, with the means of its losses."""
        now = self.reading(device)
        if not now:
            return Status(job, step, steps, losses)
        return Status(
            job,
            step,
            steps,
            losses,
            samples_per_s=now["samples_per_s"],
            data_wait_share=now["data_wait_share"],
            step_ms=now["step_time_p50"] * 1e3,
            memory_gb=now["memory_gb"],
            mfu=now.get("mfu"),
            seconds_left=(steps - step) * self.global_batch / now["samples_per_s"],
        )
