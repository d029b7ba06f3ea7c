"""A trained SSERD as a folder: its networks, face model and exemplars, and the configuration that rebuilds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spfem_dist.config import Data
from spfem_dist.generators.face.model import EXPRESSION, FaceModel
from spfem_dist.generators.sserd import settings as room
from spfem_dist.generators.sserd.bank import Bank
from spfem_dist.generators.sserd.generator import TrainedSSERD
from spfem_dist.generators.sserd.networks import Portrait, Residual, build_critic, build_portrait, build_residual
from spfem_dist.generators.sserd.stylegan2 import Discriminator
from spfem_dist.saved import load_tensors, load_weights, misfit, read_config, refuse_parted, save_model, save_tensors

FACE, EXEMPLARS = "face.safetensors", "exemplars.safetensors"


@dataclass
class Parts:
    """What a folder holds."""

    portrait: Portrait
    residual: Residual
    critic: Discriminator
    face: FaceModel
    bank: Bank
    config: dict[str, Any]


def save(
    folder: Path,
    networks: Mapping[str, nn.Module],
    face: FaceModel,
    bank: Bank,
    settings: room.Portraits,
    data: Data,
    facts: dict[str, Any],
) -> Path:
    """Write model.safetensors, face.safetensors, exemplars.safetensors and config.json into `folder` (made if missing); returns it.

    networks: portrait, residual, critic; the last is kept so that training may go on from here. bank: of it some exemplars are kept.
    facts: JSON values that say where it comes from; `load` gives them back in the generator's `config`.
    """
    kept = bank.reduced()
    described = {
        "size": data.size,
        "topology": face.topology.name,
        "speakers": list(kept.speakers),
        "settings": settings.model_dump(mode="json"),
        "data": data.model_dump(mode="json"),
        "facts": facts,
    }
    save_model(folder, "generator", settings.kind, nn.ModuleDict(dict(networks)), described)
    face.save(folder / FACE)
    tensors = {"codes": kept.codes, "emotions": kept.emotions, "levels": torch.from_numpy(kept.levels).float()}
    save_tensors(tensors, folder / EXEMPLARS)
    return folder


def load_parts(folder: Path) -> Parts:
    """Everything saved in `folder`, on the CPU.

    Raises FileNotFoundError where a file is missing, ValueError where one is damaged or of another version.
    """
    config = read_config(folder, "generator")
    refuse_parted(folder, (FACE, EXEMPLARS))
    try:
        settings = getattr(room, config["settings"]["settings_class"])(**config["settings"])
        size, speakers = int(config["size"]), tuple(config["speakers"])
        portrait, critic = build_portrait(settings, size), build_critic(settings, size)
        residual = build_residual(settings, size)
        face = FaceModel.load(folder / FACE, config["topology"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise misfit(folder, "generator", error) from None
    networks = nn.ModuleDict({"portrait": portrait, "residual": residual, "critic": critic})
    load_weights(networks, folder, "generator")
    count, codes = len(speakers), portrait.generator.codes
    wanted = {
        "codes": torch.empty(count, codes, portrait.encoder.style, device="meta"),
        "emotions": torch.empty(count, dtype=torch.long, device="meta"),
        "levels": torch.empty(count, EXPRESSION, device="meta"),
    }
    kept = load_tensors(folder / EXEMPLARS, wanted, "generator")
    bank = Bank(kept["codes"], kept["emotions"], speakers, kept["levels"].numpy())
    return Parts(portrait, residual, critic, face, bank, config)


def load(folder: Path) -> TrainedSSERD:
    """The generator saved in `folder`, frozen, on the CPU; errors as `load_parts` has them."""
    parts = load_parts(folder)
    return TrainedSSERD(parts.portrait, parts.residual, parts.face, parts.bank, int(parts.config["size"]), parts.config)
