"""A trained ICface as a folder: its networks, face model and units, and the configuration that rebuilds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from spfem_dist.config import Data
from spfem_dist.generators.face.texture import ExpressionTexture, side_of
from spfem_dist.generators.icface import settings as room
from spfem_dist.generators.icface.faces import count_of, load_units
from spfem_dist.generators.icface.generator import TrainedICface
from spfem_dist.generators.icface.networks import build_networks
from spfem_dist.generators.icface.pairs import Face
from spfem_dist.generators.icface.units import Units
from spfem_dist.saved import load_weights, misfit, read_config, refuse_parted, save_model

FACE, UNITS, TEXTURE = "face.safetensors", "units.safetensors", "texture.safetensors"


@dataclass
class Parts:
    """What a folder holds."""

    networks: dict[str, nn.Module]
    units: Units
    texture: ExpressionTexture
    config: dict[str, Any]


def save(
    folder: Path,
    networks: Mapping[str, nn.Module],
    face: Face,
    people: int,
    settings: room.Reenactment,
    data: Data,
    facts: dict[str, Any],
) -> Path:
    """Write model.safetensors, face.safetensors, units.safetensors, texture.safetensors and config.json into `folder` (made if missing); returns it.

    people: training speakers. facts: JSON values that say where it comes from; `load` gives them back in the generator's `config`. The
    discriminator is kept too: training may go on from here.
    """
    described = {
        "size": data.size,
        "topology": face.units.model.topology.name,
        "people": people,
        "settings": settings.model_dump(mode="json"),
        "data": data.model_dump(mode="json"),
        "facts": facts,
    }
    save_model(folder, "generator", settings.kind, nn.ModuleDict(dict(networks)), described)
    face.units.model.save(folder / FACE)
    face.units.save(folder / UNITS)
    face.texture.save(folder / TEXTURE)
    return folder


def load_parts(folder: Path) -> Parts:
    """Everything saved in `folder`, on the CPU.

    Raises FileNotFoundError where a file is missing, ValueError where one is damaged or of another version.
    """
    config = read_config(folder, "generator")
    refuse_parted(folder, (FACE, UNITS, TEXTURE))
    try:
        settings = getattr(room, config["settings"]["settings_class"])(**config["settings"])
        networks = build_networks(settings, int(config["size"]), int(config["people"]))
        units = load_units(settings, folder / FACE, folder / UNITS, config["topology"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise misfit(folder, "generator", error) from None
    load_weights(nn.ModuleDict(networks), folder, "generator")
    texture = ExpressionTexture.load(folder / TEXTURE, side_of(int(config["size"])), count_of(settings))
    return Parts(networks, units, texture, config)


def load(folder: Path) -> TrainedICface:
    """The generator saved in `folder`, frozen, on the CPU; errors as `load_parts` has them."""
    parts = load_parts(folder)
    face = Face.of(parts.units, parts.texture)
    return TrainedICface(parts.networks["reenactor"], face, int(parts.config["size"]), parts.config)
