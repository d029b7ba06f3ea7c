"""What a prior is: a representation that learns in stage 1 and supervises in stage 2.

A prior is an `nn.Module` that turns a `Batch` into named, weighted losses, embeds faces into a space of unit vectors,
and draws what it looks at. `build_prior` makes one from its settings, `save_prior` and `load_prior` move it to and from
a folder (safetensors and a config.json that holds everything needed to rebuild it).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spfem_dist.config import CCRL, CERL, Data
from spfem_dist.records import Batch

FORMAT = "spfem-prior/1"
AGAIN = "train it again (python recipes/cdrl_stage1.py), or use the version that saved it"


@runtime_checkable
class Prior(Protocol):
    """What the training loop and the scores ask of a prior; the modules that `build_prior` returns all answer it."""

    view: Literal["content", "emotion"]

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses (already weighted: their sum is minimised) and monitors (only logged), scalars by name.

        Every loss is a mean over the batch's samples; samples meet only in the synchronised batch norm.
        """
        ...

    def embed(self, frames: Tensor, speech: Tensor | None) -> Tensor:
        """Unit vectors [N, D] of frames uint8 [N, 3, S, S] and speech float [N, W, F], or None where nothing is heard.

        An emotion prior does not listen.
        """
        ...

    def guidance(
        self, source: Tensor, reference: Tensor, generated: Tensor, speech: Tensor | None, emotion: Tensor
    ) -> dict[str, Tensor]:
        """Stage 2: how far generated frames are from what they should be, scalars by name, means over frames.

        All frames [N, 3, S, S], uint8 or float in [-1, 1]. source: what shall be said. reference: the emotion that shall be
        shown. speech: the source's windows [N, W, F]. emotion: the target, int64 [N], index into `list(Emotion)`.
        Gradients reach `generated` alone. Call it on a frozen prior (`training.engines.freeze`).
        """
        ...

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """Pictures by name, uint8 [H, W, 3] RGB, that show what the prior does with the batch."""
        ...


def build_prior(
    name: str, settings: CCRL | CERL, data: Data, feature_dim: int, *, pretrained: bool = True
) -> nn.Module:
    """A fresh prior: what it learns is random, the trunks of the paper's network come with their weights.

    name: "ccrl" or "cerl". feature_dim: numbers in one row of speech features, as the shards' index says. pretrained:
    False leaves trunks random too (dry runs, tests, and where a saved prior brings its own).
    Raises MissingWeights where a trunk's weights are not there.
    """
    if name == "ccrl" and isinstance(settings, CCRL):
        if settings.form == "released":
            from spfem_dist.priors.released_ccrl import ReleasedCCRL

            return ReleasedCCRL(settings, data, feature_dim, pretrained=pretrained)
        from spfem_dist.priors.ccrl import CleanCCRL

        return CleanCCRL(settings, data, feature_dim, pretrained=pretrained)
    if name == "cerl" and isinstance(settings, CERL):
        if settings.form == "released":
            from spfem_dist.priors.released_cerl import ReleasedCERL

            return ReleasedCERL(settings, data, pretrained=pretrained)
        from spfem_dist.priors.cerl import CleanCERL

        return CleanCERL(settings, data, pretrained=pretrained)
    raise ValueError(
        f"no prior called {name!r} takes settings of type {type(settings).__name__}: use 'ccrl' with CCRL or 'cerl' with CERL"
    )


def save_prior(
    folder: Path | str,
    prior: nn.Module,
    *,
    name: str,
    settings: CCRL | CERL,
    data: Data,
    feature_dim: int,
    facts: dict[str, Any] | None = None,
) -> Path:
    """Writes `model.safetensors` and `config.json` into `folder` (made if missing) and returns the folder.

    facts: JSON values that say where the prior comes from (run name, samples seen, figures); `load_prior` returns them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in prior.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    config = {
        "format": FORMAT,
        "name": name,
        "view": prior.view,
        "settings": settings.model_dump(mode="json"),
        "data": data.model_dump(mode="json"),
        "feature_dim": feature_dim,
        "facts": facts or {},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return folder


def load_prior(folder: Path | str) -> tuple[nn.Module, dict[str, Any]]:
    """The prior saved in `folder`, frozen (eval mode, no gradients on parameters), and its config.json.

    Raises FileNotFoundError where a file is missing, ValueError where one is damaged or of another version.
    """
    folder = Path(folder)
    for file in ("config.json", "model.safetensors"):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"no {file} in {folder}: give the folder of one prior, as a finished run saved it")
    config = _read_config(folder / "config.json")
    kind = {"ccrl": CCRL, "cerl": CERL}
    try:
        prior = build_prior(
            config["name"],
            kind[config["name"]](**config["settings"]),
            Data(**config["data"]),
            config["feature_dim"],
            pretrained=False,
        )
    except (KeyError, TypeError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder / 'config.json'} describes no prior of this version ({reason}): {AGAIN}") from None
    _load_tensors(prior, folder / "model.safetensors")
    return prior.eval().requires_grad_(False), config


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): copy the prior again, or {AGAIN}") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else config
        raise ValueError(f"{file} has format {found!r}, expected {FORMAT!r}: {AGAIN}")
    return config


def _load_tensors(prior: nn.Module, file: Path) -> None:
    """Give the prior the tensors in `file`, every one of them and no other."""
    try:
        saved = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}): copy the prior again, or {AGAIN}") from None
    wanted = prior.state_dict()
    differs = {
        "lacks": sorted(wanted.keys() - saved.keys()),
        "has, unknown here,": sorted(saved.keys() - wanted.keys()),
        "has in another shape": sorted(k for k in wanted.keys() & saved.keys() if wanted[k].shape != saved[k].shape),
    }
    if any(differs.values()):
        told = "; ".join(
            f"{how} {', '.join(names[:3])}{' ...' * (len(names) > 3)}" for how, names in differs.items() if names
        )
        raise ValueError(f"{file.parent} holds a prior of another version, which {told}: {AGAIN}")
    prior.load_state_dict(saved)
