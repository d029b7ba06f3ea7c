"""A trained NED as a folder: its networks, face model and expression texture, and the configuration that rebuilds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from spfem_dist.config import Data
from spfem_dist.generators.face.expressions import ExpressionModel
from spfem_dist.generators.face.texture import ExpressionTexture, side_of
from spfem_dist.generators.ned import settings as room
from spfem_dist.generators.ned.faces import count_of, load_face_model
from spfem_dist.generators.ned.generator import TrainedNED
from spfem_dist.generators.ned.motions import Face
from spfem_dist.generators.ned.networks import build_networks
from spfem_dist.saved import load_weights, misfit, read_config, refuse_parted, save_model

FACE, TEXTURE = "face.safetensors", "texture.safetensors"


@dataclass
class Parts:
    """What a folder holds."""

    networks: dict[str, nn.Module]
    model: ExpressionModel
    texture: ExpressionTexture
    config: dict[str, Any]


def save(
    folder: Path,
    networks: Mapping[str, nn.Module],
    face: Face,
    settings: room.Manipulation,
    data: Data,
    facts: dict[str, Any],
) -> Path:
    """Write model.safetensors, face.safetensors, texture.safetensors and config.json into `folder` (made if missing); returns it.

    facts: JSON values that say where it comes from; `load` gives them back in the generator's `config`. The discriminator of windows
    is kept too: training may go on from here.
    """
    described = {
        "size": data.size,
        "topology": face.model.topology.name,
        "settings": settings.model_dump(mode="json"),
        "data": data.model_dump(mode="json"),
        "facts": facts,
    }
    save_model(folder, "generator", settings.kind, nn.ModuleDict(dict(networks)), described)
    face.model.save(folder / FACE)
    face.texture.save(folder / TEXTURE)
    return folder


def load_parts(folder: Path) -> Parts:
    """Everything saved in `folder`, on the CPU.

    Raises FileNotFoundError where a file is missing, ValueError where one is damaged or of another version.
    """
    config = read_config(folder, "generator")
    refuse_parted(folder, (FACE, TEXTURE))
    try:
        settings = getattr(room, config["settings"]["settings_class"])(**config["settings"])
        networks, size = build_networks(settings), int(config["size"])
        model = load_face_model(settings, folder / FACE, config["topology"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise misfit(folder, "generator", error) from None
    load_weights(nn.ModuleDict(networks), folder, "generator")
    texture = ExpressionTexture.load(folder / TEXTURE, side_of(size), count_of(settings))
    return Parts(networks, model, texture, config)


def load(folder: Path) -> TrainedNED:
    """The generator saved in `folder`, frozen, on the CPU; errors as `load_parts` has them."""
    parts = load_parts(folder)
    face = Face.of(parts.model, parts.texture)
    networks = parts.networks
    return TrainedNED(networks["manipulator"], networks.get("renderer"), face, int(parts.config["size"]), parts.config)
