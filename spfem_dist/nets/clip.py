"""CLIP's two towers through transformers, and a text prompt whose first words are learned.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021;
Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022 (class-specific context). CDRL uses ViT-B/32:
77 tokens of 512 numbers, images of 224 px, features of 512 numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPConfig, CLIPModel

from spfem_dist.emotions import Emotion
from spfem_dist.saved import FETCH_AGAIN, refuse_not_finite

#: A tokeniser here is a function from one text to its token ids, without start, end or padding.
Tokeniser = Callable[[str], list[int]]


def _local(name_or_path: str | Path) -> Path:
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    from spfem_dist.weights import locate

    return locate(str(name_or_path))


def load_clip(name_or_path: str | Path = "clip-vit-base-patch32") -> CLIPModel:
    """CLIP in float32, frozen and in eval mode. Nothing is downloaded.

    name_or_path: a folder in transformers' format, or a name of `spfem weights list`. Raises MissingWeights (what it is,
    where to get it, where to put it) or ValueError where the files do not hold CLIP.
    """
    folder = _local(name_or_path)
    try:
        loaded: Any = CLIPModel.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, attn_implementation="sdpa"
        )
    except Exception as error:
        raise ValueError(
            f"{folder} cannot be loaded as CLIP ({type(error).__name__}: {error}); it must hold config.json and "
            "model.safetensors or pytorch_model.bin of a CLIPModel"
        ) from error
    model, report = loaded
    absent = sorted(report["missing_keys"])
    if absent:
        raise ValueError(
            f"{folder} lacks {len(absent)} tensors of CLIP ({', '.join(absent[:3])}, ...), which would stay random: "
            "put the weights of this very architecture there"
        )
    refuse_not_finite(model.state_dict(), folder, FETCH_AGAIN)
    return model.eval().requires_grad_(False)


def load_tokeniser(name_or_path: str | Path = "clip-vit-base-patch32") -> Tokeniser:
    """CLIP's byte-pair tokeniser from the vocabulary files beside its weights; raises MissingWeights or ValueError."""
    from transformers import CLIPTokenizer

    folder = _local(name_or_path)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise ValueError(f"{folder} has no vocabulary: put vocab.json and merges.txt (or tokenizer.json) of CLIP there")
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


def word_tokeniser(vocabulary: int) -> Tokeniser:
    """A tokeniser that needs no files: every word is one id in [1, vocabulary - 2), the same on every machine.

    Different words may share an id. For tiny and random CLIPs only; it is not CLIP's own tokeniser.
    """

    def tokens(text: str) -> list[int]:
        words = re.findall(r"[a-z0-9']+|[^\sa-z0-9']", text.lower())
        return [
            1 + int.from_bytes(word.encode()[-16:], "big") * 2654435761 % 2**61 % (vocabulary - 3) for word in words
        ]

    return tokens


def tiny_clip(size: int = 64, width: int = 64, seed: int = 0) -> CLIPModel:
    """A random CLIP of two layers in each tower (patches of size / 8 pixels), frozen; for tests and demos.

    size: side of its images, pixels, a multiple of 8. width: of text, images and features, a multiple of 4.
    """
    tower = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "projection_dim": width,
    }
    vocabulary = 512
    text = {"vocab_size": vocabulary, "max_position_embeddings": 48, "eos_token_id": vocabulary - 1}
    text |= {"bos_token_id": vocabulary - 2, "pad_token_id": 0}
    vision = {"image_size": size, "patch_size": size // 8}
    return random_clip(CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=width), seed)


def random_clip(config: CLIPConfig | None = None, seed: int = 0) -> CLIPModel:
    """CLIP with random weights by seed, frozen; the default configuration is ViT-B/32's."""
    config = CLIPConfig() if config is None else config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel._from_config(config, attn_implementation="sdpa").eval().requires_grad_(False)


def image_features(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Projected image features [N, D], not normalised, of pixels [N, 3, size, size] scaled as the caller wants them."""
    return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)


def vision_of(model: CLIPModel) -> nn.Module:
    """All that `image_features` computes with."""
    return nn.ModuleDict({"vision_model": model.vision_model, "visual_projection": model.visual_projection})


def text_features(model: CLIPModel, texts: Sequence[str], tokeniser: Tokeniser) -> torch.Tensor:
    """Projected text features [N, D], not normalised, of plain texts; a text that is too long is cut."""
    config: Any = model.config.text_config
    # OpenAI's vocabulary ends with start and end, whatever older configuration files say of their ids.
    start, end, most = config.vocab_size - 2, config.vocab_size - 1, config.max_position_embeddings - 2
    ids = prompt_ids(texts, lambda text: tokeniser(text)[:most], 0, most + 2, start, end)
    tower = model.text_model
    places = torch.arange(ids.shape[1])
    causal = torch.where(places[:, None] >= places, 0.0, -torch.inf)
    hidden = tower.embeddings(input_ids=ids)
    hidden = tower.encoder(inputs_embeds=hidden, attention_mask=causal[None, None]).last_hidden_state
    at_end = tower.final_layer_norm(hidden)[torch.arange(len(ids)), ids.argmax(-1)]
    return model.text_projection(at_end)


def read_descriptors(path: str | Path) -> dict[Emotion, str]:
    """Descriptions of faces by emotion, from a JSON object {emotion name: text}.

    Raises FileNotFoundError or ValueError that names the fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"descriptor file {path} does not exist; give a JSON file {{emotion name: text}}")
    try:
        texts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"descriptor file {path} is not JSON ({error}); write {{emotion name: text}}") from error
    if not isinstance(texts, dict) or not all(isinstance(t, str) and t.strip() for t in texts.values()):
        raise ValueError(f"descriptor file {path} must be one object of non-empty texts: {{emotion name: text}}")
    return {Emotion.parse(name): text for name, text in texts.items()}


def prompt_ids(
    texts: Sequence[str], tokeniser: Tokeniser, context: int, length: int, start: int, end: int
) -> torch.Tensor:
    """Token ids [len(texts), length]: start, `context` places for the learned words, the text, end, zeros.

    Raises ValueError where a text is too long: the published tokeniser does not cut either.
    """
    rows = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        tokens = tokeniser(text)
        if 2 + context + len(tokens) > length:
            raise ValueError(
                f"the description {text!r} has {len(tokens)} tokens; with {context} learned words, start and end at most "
                f"{length - 2 - context} fit: shorten it"
            )
        row[0] = start
        row[1 + context : 1 + context + len(tokens)] = torch.tensor(tokens)
        row[1 + context + len(tokens)] = end
    return rows


def sizes(model: CLIPModel) -> tuple[int, int, int]:
    """(side of the images in pixels, numbers in a feature, words in the vocabulary) of a CLIP."""
    config: Any = model.config
    return config.vision_config.image_size, config.projection_dim, config.text_config.vocab_size


class PromptedText(nn.Module):
    """Text vectors of classes whose prompts begin with learned words: start, ctx, description, end.

    clip: gives the sizes and the special tokens; it is not kept, `forward` takes it (one copy of CLIP in a model, and the
    authors' parameter name `prompt_learner.ctx`). descriptors: class -> text, in the order of the rows.
    positional: add CLIP's positional embedding. The published code adds it and then overwrites the sum with the raw
    prompt, so its text knows no positions beyond what the causal mask gives: False repeats that.
    """

    ids: torch.Tensor

    def __init__(
        self,
        clip: CLIPModel,
        descriptors: Mapping[Emotion, str],
        tokeniser: Tokeniser,
        context: int = 8,
        positional: bool = True,
    ):
        super().__init__()
        text: Any = clip.config.text_config
        self.positional = positional
        self.emotions = tuple(descriptors)
        # OpenAI's vocabulary ends with start and end, whatever older configuration files say of their ids.
        start, end = text.vocab_size - 2, text.vocab_size - 1
        ids = prompt_ids(list(descriptors.values()), tokeniser, context, text.max_position_embeddings, start, end)
        self.register_buffer("ids", ids)  # saved, so that a trained context keeps its descriptions
        self.ctx = nn.Parameter(0.02 * torch.randn(len(ids), context, text.hidden_size))
        self._used: int | None = None
        self.register_load_state_dict_post_hook(PromptedText._forget_length)

    def _forget_length(self, _keys: object) -> None:
        self._used = None

    @property
    def used(self) -> int:
        """Places up to the last end token: each place sees those before it alone, so that what follows changes nothing."""
        if self._used is None:  # asked once: on a GPU the answer waits for all work in flight
            self._used = int(self.ids.argmax(-1).max()) + 1
        return self._used

    def forward(self, clip: CLIPModel, shift: torch.Tensor | None = None) -> torch.Tensor:
        """Unit-norm text vectors [classes, D], differentiable in `ctx`.

        shift: [N, hidden], what is added to every learned word; then there are N sets of them, [N, classes, D].
        """
        tower = clip.text_model
        ids, ctx = self.ids[:, : self.used], self.ctx
        if shift is not None:
            ids, ctx = ids.repeat(len(shift), 1), (ctx + shift[:, None, None]).flatten(0, 1)
        words = tower.embeddings.token_embedding(ids)
        prompt = torch.cat([words[:, :1], ctx.to(words.dtype), words[:, 1 + ctx.shape[1] :]], dim=1)
        places = torch.arange(prompt.shape[1], device=prompt.device)
        if self.positional:
            prompt = prompt + tower.embeddings.position_embedding(places)
        causal = torch.where(places[:, None] >= places, 0.0, -torch.inf).to(prompt.dtype)
        hidden = tower.encoder(inputs_embeds=prompt, attention_mask=causal[None, None]).last_hidden_state
        hidden = tower.final_layer_norm(hidden)
        at_end = hidden[torch.arange(len(hidden), device=hidden.device), ids.argmax(-1)]
        found = F.normalize(clip.text_projection(at_end).float(), dim=-1)
        return found if shift is None else found.view(len(shift), len(self.ids), -1)
