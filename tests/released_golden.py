"""Reads the golden fixtures: numbers the authors' released classes gave for weights and inputs made by rule.

The fill rules are those of the fixtures' README; nothing here knows our own modules.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"

needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="the golden fixtures (../shared/golden beside the repository) are not on this machine"
)


def fixture(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """The description and the arrays of one fixture."""
    description = json.loads((GOLDEN / f"{name}.json").read_text())
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return description, dict(arrays)


def filled(description: dict, rule: str) -> dict[str, torch.Tensor]:
    """The authors' state_dict under a fill rule, by their names and in their order."""
    state = {}
    for k, (name, shape, _, kind) in enumerate(description["state_dict_sorted"]):
        if kind == "int":
            state[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        if kind == "buffer_as_built":  # counted, and left alone
            continue
        n = int(np.prod(shape))
        if rule == "A":
            z = 0.05 * np.sin(0.37 * np.arange(n) + 1.3 * k)
            made = {"running_var": 1 + np.abs(z), "norm_weight": 1 + z, "prelu_weight": 0.25 + z}.get(kind, z)
        else:
            z = np.random.RandomState(k).standard_normal(n)
            plain = z * np.sqrt(shape[0] / n) if len(shape) >= 2 else 0.1 * z
            made = {
                "running_var": 1 + 0.1 * np.abs(z),
                "running_mean": 0.1 * z,
                "norm_weight": 1 + 0.1 * z,
                "prelu_weight": 0.25 + 0.05 * z,
                "equalised": z,
                "equalised_x100": 100 * z,
                "modulation_bias": 1 + 0.1 * z,
            }.get(kind, plain)
        state[name] = torch.from_numpy(made.reshape(shape).astype(np.float32))
    floats = [t for t in state.values() if t.dtype == torch.float32]
    total = sum(float(t.double().sum()) for t in floats)
    assert total == pytest.approx(description["fill_check"][rule]["sum_of_all_float_entries"], rel=1e-6)
    return state


def fill(network: torch.nn.Module, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Give a network a filled state: every name, but buffers that stay as they are built."""
    absent = set(network.state_dict()) - set(state)
    assert all(name.endswith(("kernel", "blur_weight")) for name in absent), absent
    network.load_state_dict(network.state_dict() | state)
    return network


def input_of(spec: dict, rule: str) -> torch.Tensor:
    """An input tensor of a fixture: `spec` gives its shape and constant c, and whether it is squashed, and made of blocks."""
    n, c = int(np.prod(spec["shape"])), spec["c"]
    if rule == "A":
        made = np.sin(0.011 * np.arange(n) + c)
    else:
        made = np.random.RandomState(round(1000 * c)).standard_normal(n)
    made = torch.from_numpy(made.reshape(spec["shape"]).astype(np.float32))
    if squashed := spec.get("squashed", ""):
        made = torch.tanh(made)
    return made.repeat_interleave(8, 2).repeat_interleave(8, 3) if "8x8" in squashed else made


def relative_error(ours: torch.Tensor, description: dict, arrays: dict[str, np.ndarray], key: str) -> float:
    """Relative L2 distance between a full tensor of ours and the stored (maybe strided) one."""
    stride = description["tensors"][key].get("stride", 1)
    flat = ours.detach().double().flatten()[::stride].numpy()
    golden = arrays[key].astype(np.float64).flatten()
    assert flat.shape == golden.shape
    return float(np.linalg.norm(flat - golden) / np.linalg.norm(golden))
