"""How fast gradients can travel: all-reduce between processes, timed. Used by the doctor and by the plan.

The bus bandwidth is NCCL's measure, 2 (N - 1) / N x bytes / seconds: for a ring it is what each link carries, whatever N is.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

#: Sizes from which latency and bandwidth are read, bytes.
SMALL = 8


@dataclass(frozen=True)
class AllReduce:
    """Between `processes`: seconds of a tiny all-reduce, and bus bandwidth of a large one in bytes/s."""

    processes: int
    backend: str
    latency_s: float
    bandwidth: float


def time_allreduce(size: int, device: torch.device, repeats: int = 5) -> AllReduce:
    """Time all-reduces of a few and of `size` bytes over the default process group. A collective; medians."""
    n = dist.get_world_size()
    latency = _median(torch.zeros(SMALL // 4, device=device), 4 * repeats)
    whole = _median(torch.zeros(size // 4, device=device), repeats)
    carried = 2 * (n - 1) / n * size if n > 1 else size
    return AllReduce(n, dist.get_backend(), latency, carried / max(whole - latency, 1e-9))


def _median(tensor: torch.Tensor, repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(tensor)
        if tensor.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])  # the first ones make connections


class Reducer:
    """One process of the probe, as a Ray actor."""

    def address(self) -> str:
        """host:port at which the others can meet this process, on its node's address in the cluster."""
        import ray.util

        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def measure(
        self, address: str, rank: int, processes: int, backend: str, size: int, patience: float
    ) -> dict[str, Any]:
        """Meet the others and time; a dictionary for `AllReduce`. Raises where they cannot be reached within `patience` s."""
        torch.set_num_threads(1)
        os.environ.setdefault("NCCL_DEBUG", "WARN")
        device = torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu")
        dist.init_process_group(
            backend,
            init_method=f"tcp://{address}",
            rank=rank,
            world_size=processes,
            timeout=timedelta(seconds=patience),
        )
        try:
            return vars(time_allreduce(size, device))
        finally:
            dist.destroy_process_group()
