"""Weights as TensorFlow.js stores them: `<model>-weights_manifest.json` lists the tensors, `<model>.bin` holds their bytes.

A tensor is little-endian float32, or bytes of which value = byte * scale + min. Read strictly: a manifest that lists other
tensors than the network has, or a file of another length, is refused with the name of what is wrong.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)
#: Axes of TensorFlow's tensors in the order of torch's: filters are [rows, columns, in, out] there, matrices [in, out].
_DEPTHWISE, _FILTERS, _MATRIX = (2, 3, 0, 1), (3, 2, 0, 1), (1, 0)
#: More bytes in one tensor are no part of these networks.
_LARGEST = 64 * 2**20


class BadManifest(ValueError):
    """Stored weights that are not those of the network; the text names the file, the tensor and the fix."""


def load_network(network: Network, folder: Path) -> Network:
    """`network` with the weights of its `model` in `folder`. Raises BadManifest, or FileNotFoundError where a file is missing."""
    name = str(network.model)
    tensors = read_tensors(folder / f"{name}-weights_manifest.json", folder / f"{name}.bin")
    wanted = network.state_dict()
    names = {found.replace("/", "."): found for found in tensors}
    if missing := sorted(wanted.keys() - names.keys()):
        raise _bad(folder / f"{name}-weights_manifest.json", f"it lacks {_some(missing)}")
    if strange := sorted(names.keys() - wanted.keys()):
        raise _bad(folder / f"{name}-weights_manifest.json", f"it has {_some(strange)}, which the network has not")
    state = {}
    for own, stored in names.items():
        tensor = _in_torchs_order(own, tensors[stored])
        if tensor.shape != wanted[own].shape:
            raise _bad(
                folder / f"{name}-weights_manifest.json",
                f"{stored} has the shape {list(tensors[stored].shape)}, which does not make {list(wanted[own].shape)}",
            )
        state[own] = torch.from_numpy(np.ascontiguousarray(tensor))
    network.load_state_dict(state)
    return network.eval()


def read_tensors(manifest: Path, stored: Path) -> dict[str, np.ndarray]:
    """float32 arrays by name, in TensorFlow's order of axes. Raises BadManifest for what does not fit together."""
    try:
        groups = json.loads(manifest.read_text("utf-8"))
    except ValueError as error:
        raise _bad(manifest, f"it is no JSON ({error})") from None
    if not (
        isinstance(groups, list) and all(isinstance(g, dict) and isinstance(g.get("weights"), list) for g in groups)
    ):
        raise _bad(manifest, "it is no list of groups with `weights`")
    content = stored.read_bytes()
    found: dict[str, np.ndarray] = {}
    at = 0
    for number, entry in enumerate(entry for group in groups for entry in group["weights"]):
        name, shape, quantised = _checked(manifest, number, entry)
        if name in found:
            raise _bad(manifest, f"{name} is listed twice")
        count = math.prod(shape)
        size = count * (1 if quantised else 4)
        if at + size > len(content):
            raise _bad(stored, f"it ends after {len(content):,} bytes, within {name}, which ends at {at + size:,}")
        if quantised:
            scale, low = quantised
            values = np.frombuffer(content, np.uint8, count, at).astype(np.float64) * scale + low
        else:
            values = np.frombuffer(content, "<f4", count, at)
        found[name] = values.astype(np.float32).reshape(shape)
        if not np.isfinite(found[name]).all():
            raise _bad(stored, f"{name} holds numbers that are none")
        at += size
    if at != len(content):
        raise _bad(stored, f"it has {len(content):,} bytes, and the manifest lists {at:,}")
    return found


def _checked(manifest: Path, number: int, entry: Any) -> tuple[str, list[int], tuple[float, float] | None]:
    """(name, shape, (scale, min) where it is quantised) of one entry of the manifest."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise _bad(manifest, f"its entry {number} has no name")
    name, shape = entry["name"], entry.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape) or math.prod(shape) > _LARGEST:
        raise _bad(manifest, f"{name} has the shape {shape!r}, expected a list of positive whole numbers")
    if entry.get("dtype") != "float32":
        raise _bad(manifest, f"{name} has the dtype {entry.get('dtype')!r}, expected 'float32'")
    quantised = entry.get("quantization")
    if quantised is None:
        return name, shape, None
    if not isinstance(quantised, dict) or quantised.get("dtype") != "uint8":
        raise _bad(manifest, f"{name} has the quantization {quantised!r}, expected dtype 'uint8' with scale and min")
    numbers = [quantised.get(key) for key in ("scale", "min")]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        raise _bad(manifest, f"{name} has scale and min {numbers}, expected two finite numbers")
    return name, shape, (float(numbers[0]), float(numbers[1]))  # type: ignore[arg-type]


def _in_torchs_order(name: str, tensor: np.ndarray) -> np.ndarray:
    if tensor.ndim == 4:
        return tensor.transpose(_DEPTHWISE if name.endswith("depthwise_filter") else _FILTERS)
    return tensor.transpose(_MATRIX) if tensor.ndim == 2 else tensor


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _bad(path: Path, what: str) -> BadManifest:
    return BadManifest(f"{path}: {what}; remove it and run `spfem weights pull face-api`")
