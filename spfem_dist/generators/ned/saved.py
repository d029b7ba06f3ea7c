"""A trained NED as a folder: safetensors of manipulator, renderer and face model, and the configuration that rebuilds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from spfem_dist.config import NED, Data
from spfem_dist.generators.face.model import FaceModel
from spfem_dist.generators.ned.generator import TrainedNED
from spfem_dist.generators.ned.networks import build_networks

FORMAT = "spfem-generator/1"
#: The networks that an edit needs; the discriminators stay with the checkpoints.
KEPT = ("manipulator", "renderer")


def save_ned(
    folder: Path, networks: Mapping[str, nn.Module], model: FaceModel, settings: NED, data: Data, facts: dict[str, Any]
) -> Path:
    """Write model.safetensors, face.safetensors and config.json into `folder` (made if missing); returns it.

    facts: JSON values that say where it comes from; `load_ned` gives them back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{key}": value.detach().cpu().float().contiguous().clone()
        for name in KEPT
        for key, value in networks[name].state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors")
    model.save(folder / "face.safetensors")
    config = {
        "format": FORMAT,
        "name": "ned",
        "size": data.size,
        "topology": model.topology.name,
        "settings": settings.model_dump(mode="json"),
        "data": data.model_dump(mode="json"),
        "facts": facts,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return folder


def load_ned(folder: Path) -> TrainedNED:
    """The generator saved in `folder`, frozen, on the CPU. Raises ValueError where a file is not what it should be."""
    config = json.loads((folder / "config.json").read_text())
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{folder / 'config.json'} has format {config.get('format')!r}, expected {FORMAT!r}: train the generator again"
        )
    networks = build_networks(NED(**config["settings"]).network)
    tensors = load_file(folder / "model.safetensors")
    for name in KEPT:
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        networks[name].load_state_dict(own)
    model = FaceModel.load(folder / "face.safetensors", config["topology"])
    return TrainedNED(networks["manipulator"], networks["renderer"], model, config["size"], config)
