"""How every benchmark ends: one line of JSON, with the day and the machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch


def hardware() -> str:
    """Processor, number of cores, and the GPU."""
    listed = Path("/proc/cpuinfo")
    names = [line for line in listed.read_text().splitlines() if "model name" in line] if listed.exists() else []
    processor = names[0].split(":", 1)[1].strip() if names else platform.machine()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{processor}, {os.cpu_count()} cores, {device}"


def today() -> str:
    """The day, as 2026-11-21."""
    return datetime.date.today().isoformat()


def print_line(benchmark: str, **facts: Any) -> dict[str, Any]:
    """Print and return the facts of `benchmark`: seconds (`_s`), bytes and ratios as they are."""
    line = {"benchmark": benchmark} | facts | {"date": today(), "hardware": hardware(), "torch": torch.__version__}
    print(json.dumps(line))
    return line
