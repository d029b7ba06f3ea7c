"""A trained model as a folder: `model.safetensors` and `config.json`, written one way and read strictly.

    {"format": "spfem-prior/2", "kind": .., "parameters_sha256": .., "settings": {..}, "facts": {..}, ..}

The format says what it is (a prior, a generator, a compositor, a judge, a map of words) and its version; the kind says which; the other keys rebuild the network.
Nothing is pickled. A folder that is cut, damaged, of another version or holds numbers that are not finite is refused in words, and
tensors with such numbers are not written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spfem_dist.files import whole_file, write_whole
from spfem_dist.redact import without_credentials

What = Literal["prior", "generator", "compositor", "judge", "words"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
#: Raised when an older folder can no longer be read; `format` is `spfem-<what>/<version>`.
VERSION = 2
#: The key of config.json that tells models apart by their numbers: sha256 over all parameters and buffers.
PARAMETERS = "parameters_sha256"
#: The fix for pretrained weights that are damaged.
FETCH_AGAIN = "fetch these weights again (spfem weights pull)"
_AGAIN = {
    "prior": "train it again (python recipes/cdrl_stage1.py)",
    "generator": "train it again (python recipes/cdrl_stage2.py)",
    "compositor": "train it again (python recipes/compose.py)",
    "judge": "train the judges again (python recipes/metric_nets.py)",
    "words": "train it again (python recipes/words.py)",
}


def save_model(folder: Path | str, what: What, kind: str, network: nn.Module, config: Mapping[str, Any]) -> Path:
    """Write the network and what rebuilds it into `folder` (made if missing); returns the folder.

    Parameters are kept as float32, whatever they were trained in; buffers as they are. config: JSON values, beside `format`, `kind` and `parameters_sha256`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    trained = dict(network.named_parameters())
    for name, value in network.state_dict().items():
        whole = value.detach().cpu()
        tensors[name] = (whole.float() if name in trained else whole).contiguous().clone()
    save_tensors(tensors, folder / WEIGHTS)
    described = {"format": f"spfem-{what}/{VERSION}", "kind": kind, PARAMETERS: parameters_sha256(tensors), **config}
    write_config(folder, described)
    return folder


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json, without the passwords of the addresses in it: models are handed on."""
    write_whole(folder / CONFIG, json.dumps(without_credentials(config), indent=2, sort_keys=True) + "\n")


def read_config(folder: Path | str, what: What) -> dict[str, Any]:
    """The config.json of the model in `folder`.

    Raises FileNotFoundError where a file is missing, ValueError where config.json is damaged or of something else.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"no {name} in {folder}: give the folder of one {what}, as a finished run or `spfem export` left it"
            )
    file, expected = folder / CONFIG, f"spfem-{what}/{VERSION}"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): copy the {what} again, or {_AGAIN[what]}") from None
    found = config.get("format") if isinstance(config, dict) else None
    if found != expected or not isinstance(config.get("kind"), str):
        raise ValueError(
            f"{file} has format {found!r}, expected {expected!r}: {_AGAIN[what]}, or use the version that saved it"
        )
    for name in ("data", "settings", "facts"):
        if not isinstance(config.get(name, {}), dict):
            raise ValueError(
                f"{file} is damaged ({name} is {json.dumps(config[name])[:40]}): copy the {what} again, or {_AGAIN[what]}"
            )
    return config


def what_of(config: Mapping[str, Any]) -> str:
    """What a config.json describes: `prior`, `generator`, `compositor`, `judge`, `words`."""
    return str(config.get("format", "")).removeprefix("spfem-").split("/")[0]


def is_saved(config: bytes, what: What) -> bool:
    """Whether the bytes of a config.json are those of a `what`, of this version or another. Damaged ones may be: whoever loads it says so."""
    try:
        return str(json.loads(config).get("format", "")).startswith(f"spfem-{what}/")
    except (ValueError, AttributeError):
        return True


def refuse_parted(folder: Path, names: Sequence[str]) -> None:
    """Raises FileNotFoundError where a generator's folder lacks one of these files, which it has beside its networks."""
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}: copy the generator again, with all of its files")


def misfit(folder: Path | str, what: What, error: Exception) -> ValueError:
    """The error for a config.json whose settings this version cannot build a network from."""
    reason = " ".join(str(error).split())
    return ValueError(
        f"{Path(folder) / CONFIG} describes no {what} of this version ({reason}): {_AGAIN[what]}, or use the version that saved it"
    )


def load_weights(network: nn.Module, folder: Path | str, what: What) -> None:
    """Give the network the tensors saved in `folder`: every one of them, no other, and only finite numbers.

    Raises ValueError that names the file and what is wrong with it.
    """
    file = Path(folder) / WEIGHTS
    saved = load_tensors(file, network.state_dict(), what)
    network.load_state_dict(saved)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity, in their order. Waits once for each device, not for each tensor."""
    flags: dict[torch.device, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            flags.setdefault(tensor.device, {})[name] = tensor.detach().isfinite().all()
    bad = {
        name
        for named in flags.values()
        for name, sound in zip(named, torch.stack(list(named.values())).tolist(), strict=True)
        if not sound
    }
    return [name for name in tensors if name in bad]


def refuse_not_finite(tensors: Mapping[str, Tensor], where: Path | str, fix: str) -> None:
    """Raise ValueError that names `where` and the tensors where any holds a NaN or an infinity. fix: what to do then."""
    if broken := not_finite(tensors):
        raise ValueError(f"{where} holds numbers that are not finite, in {_named(broken)}: {fix}")


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors as safetensors, whole or not at all. Raises ValueError for numbers that are not finite: nothing is written then."""
    refuse_not_finite(tensors, f"what was to be written to {file.name}", "its training went wrong")
    with whole_file(file) as temporary:
        save_file(dict(tensors), temporary)


def load_tensors(file: Path, wanted: Mapping[str, Tensor], what: What) -> dict[str, Tensor]:
    """The tensors of a safetensors file that has the names and shapes of `wanted`; ValueError in words where it has not."""
    try:
        saved = load_file(file)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({error}): copy the {what} again, or {_AGAIN[what]}") from None
    differs = {
        "lacks": sorted(wanted.keys() - saved.keys()),
        "has, unknown here,": sorted(saved.keys() - wanted.keys()),
        "has in another shape": sorted(k for k in wanted.keys() & saved.keys() if wanted[k].shape != saved[k].shape),
    }
    if any(differs.values()):
        parts = [f"{how} {_named(names)}" for how, names in differs.items() if names]
        raise ValueError(
            f"{file.parent} holds a {what} of another version: {file.name} {'; '.join(parts)}: {_AGAIN[what]}, "
            "or use the version that saved it"
        )
    refuse_not_finite(saved, file, f"its training went wrong; {_AGAIN[what]}")
    return saved


def check_weights(folder: Path) -> None:
    """Raise ValueError where a safetensors file in `folder` is damaged or holds numbers that are not finite."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            tensors = load_file(file)
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{file} is damaged ({error}): export the model again") from None
        refuse_not_finite(tensors, file, "its training went wrong; such a model is not handed on")


def parameters_sha256(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes of tensors (of a network: its `state_dict()`)."""
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        value = tensor.detach().cpu().contiguous()
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        whole.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _named(names: list[str]) -> str:
    return ", ".join(names[:3]) + " ..." * (len(names) > 3)
