"""A trained NED as a folder: manipulator, renderer and face model, and the configuration that rebuilds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from spfem_dist.config import Data
from spfem_dist.generators.face.model import FaceModel
from spfem_dist.generators.ned.generator import TrainedNED
from spfem_dist.generators.ned.networks import build_networks
from spfem_dist.generators.ned.settings import Settings
from spfem_dist.saved import load_weights, misfit, read_config, save_model

#: The networks that an edit needs; the discriminators stay with the checkpoints.
KEPT = ("manipulator", "renderer")
FACE = "face.safetensors"


def save(
    folder: Path,
    networks: Mapping[str, nn.Module],
    model: FaceModel,
    settings: Settings,
    data: Data,
    facts: dict[str, Any],
) -> Path:
    """Write model.safetensors, face.safetensors and config.json into `folder` (made if missing); returns it.

    facts: JSON values that say where it comes from; `load` gives them back in the generator's `config`.
    """
    described = {
        "size": data.size,
        "topology": model.topology.name,
        "settings": settings.model_dump(mode="json"),
        "data": data.model_dump(mode="json"),
        "facts": facts,
    }
    save_model(folder, "generator", settings.kind, _kept(networks), described)
    model.save(folder / FACE)
    return folder


def load(folder: Path) -> TrainedNED:
    """The generator saved in `folder`, frozen, on the CPU.

    Raises FileNotFoundError where a file is missing, ValueError where one is damaged or of another version.
    """
    config = read_config(folder, "generator")
    if not (folder / FACE).is_file():
        raise FileNotFoundError(f"no {FACE} in {folder}: copy the generator again, with all of its files")
    try:
        networks, size = build_networks(Settings(**config["settings"]).network), int(config["size"])
        model = FaceModel.load(folder / FACE, config["topology"])
    except (KeyError, TypeError, ValueError) as error:
        raise misfit(folder, "generator", error) from None
    load_weights(_kept(networks), folder, "generator")
    return TrainedNED(networks["manipulator"], networks["renderer"], model, size, config)


def _kept(networks: Mapping[str, nn.Module]) -> nn.ModuleDict:
    return nn.ModuleDict({name: networks[name] for name in KEPT})
