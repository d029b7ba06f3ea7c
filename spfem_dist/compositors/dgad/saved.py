"""A trained DGAD as a folder: its networks and the configuration that rebuilds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from spfem_dist.compositors.dgad import settings as room
from spfem_dist.compositors.dgad.compositor import TrainedDGAD
from spfem_dist.compositors.dgad.networks import AppearanceNetwork, Codec, build_codec, build_geometry
from spfem_dist.config import Data
from spfem_dist.saved import load_weights, misfit, read_config, save_model


@dataclass
class Parts:
    """What a folder holds. networks: `geometry`, and of a finished second job `appearance`."""

    networks: nn.ModuleDict
    codec: Codec
    settings: room.Composition
    config: dict[str, Any]


def build(settings: room.Composition, size: int) -> Parts:
    """Fresh networks for pictures of `size` pixels, in a folder's shape."""
    codec = build_codec(settings)
    networks: dict[str, nn.Module] = {"geometry": build_geometry(settings, size, codec)}
    if isinstance(settings, room.Settings):
        networks["appearance"] = AppearanceNetwork(settings, size)
    return Parts(nn.ModuleDict(networks), codec, settings, {})


def save(
    folder: Path,
    networks: Mapping[str, nn.Module],
    settings: room.Composition,
    data: Data,
    topology: str,
    facts: dict[str, Any],
) -> Path:
    """Write model.safetensors and config.json into `folder` (made if missing); returns it.

    The frozen autoencoder and CLIP of `paper` are not copied: their folders are named. facts: JSON values that say where it comes from.
    """
    described = {
        "size": data.size,
        "topology": topology,
        "settings": settings.model_dump(mode="json"),
        "data": data.model_dump(mode="json"),
        "facts": facts,
    }
    return save_model(folder, "compositor", settings.kind, nn.ModuleDict(dict(networks)), described)


def load_parts(folder: Path) -> Parts:
    """Everything saved in `folder`, on the CPU.

    Raises FileNotFoundError where a file is missing, ValueError where one is damaged or of another version.
    """
    config = read_config(folder, "compositor")
    try:
        settings = getattr(room, config["settings"]["settings_class"])(**config["settings"])
        parts = build(settings, int(config["size"]))
        str(config["topology"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise misfit(folder, "compositor", error) from None
    load_weights(parts.networks, folder, "compositor")
    parts.config = config
    return parts


def load(folder: Path) -> TrainedDGAD:
    """The compositor saved in `folder`, frozen, on the CPU; errors as `load_parts` has them, and ValueError for the first job's alone."""
    parts = load_parts(folder)
    if not isinstance(parts.settings, room.Settings):
        raise ValueError(
            f"{folder} holds the first of two jobs alone, which knows nothing of a head's looks: train the run to its end, and give its folder"
        )
    return TrainedDGAD(
        parts.networks["geometry"], parts.networks["appearance"], parts.codec, parts.settings, parts.config
    )
