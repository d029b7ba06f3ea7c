"""The small map from a text's vector to what it means: a share for every concept of `captions`, and for being none of them.

Several small networks that learn side by side and whose shares are averaged; cross-entropy, with equal shares where a text means several concepts.
Minutes on one core make it from the package's own vocabulary (`recipes/words.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfem_dist.saved import load_weights, misfit, read_config, save_model
from spfem_dist.words.captions import Caption, captions, concepts
from spfem_dist.words.encoder import Encoder
from spfem_dist.words.parse import core

#: The map that comes with the package.
SHIPPED = Path(__file__).parent / "shipped"
#: What the encoder reads of a text, side by side: the word as a feeling sorts unseen words better than the word alone, and both together better still.
PROMPTS = ("{}", "feeling {}")
KIND = "ensemble"
#: Concepts with less than this share of the likeliest one's are doubts, and left out.
_DOUBT = 0.1
#: Concepts with many texts weigh more, by this power of their number; all that is unknown weighs this share of all that is known.
_BALANCE, _UNKNOWN = 0.5, 0.3
#: Deviation of the noise on a text's vector while learning, in deviations of its numbers: unseen words lie beside the seen ones.
_NOISE = 0.9
#: Texts whose shares are kept.
_REMEMBERED = 4096
_BATCH, _RATE, _DECAY = 512, 2e-3, 0.05


class ConceptMap(nn.Module):
    """`members` networks of one hidden layer. Answers float [N, concepts + 1]: shares; the last one's is that of everything unknown."""

    middle: Tensor
    scale: Tensor

    def __init__(self, width: int, concepts: int, hidden: int = 48, members: int = 4):
        super().__init__()
        self.members = members
        self.first = nn.Linear(width, members * hidden)
        self.second = nn.Parameter(0.5 * torch.randn(members, hidden, concepts + 1) / hidden**0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, concepts + 1))
        self.register_buffer("middle", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def each(self, vectors: Tensor) -> Tensor:
        """Logarithms of every member's shares [members, N, concepts + 1] for vectors in the map's own scale."""
        inner = F.gelu(self.first(vectors)).unflatten(1, (self.members, -1)).transpose(0, 1)
        return (inner @ self.second + self.bias).log_softmax(-1)

    def forward(self, vectors: Tensor) -> Tensor:
        """Shares of an encoder's vectors [N, width]."""
        return self.each((vectors - self.middle) * self.scale).exp().mean(0)


@dataclass(frozen=True)
class Meaning:
    """What texts mean. units: float64 [N, len(NAMES)]. whole, known: float64 [N], probabilities. surest: the concept that is likeliest of each."""

    units: np.ndarray
    whole: np.ndarray
    known: np.ndarray
    surest: tuple[str, ...]


class TextMap:
    """A trained map with its encoder. config: what was saved with it."""

    def __init__(self, network: ConceptMap, encoder: Encoder, config: dict[str, Any]):
        self.network, self.encoder, self.config = network.eval(), encoder, config
        self._read: dict[str, np.ndarray] = {}

    def __call__(self, cores: Sequence[str]) -> Meaning:
        """What texts mean of which `parse.core` left this. Each is read once, and together with others in less time."""
        if len(self._read) > _REMEMBERED:
            self._read = {}
        if new := [text for text in dict.fromkeys(cores) if text not in self._read]:
            self._read |= dict(zip(new, self._shares(new), strict=True))
        return meaning(np.stack([self._read[text] for text in cores]))

    @torch.inference_mode()
    def _shares(self, cores: Sequence[str]) -> np.ndarray:
        found: np.ndarray = self.network(torch.from_numpy(vectors(self.encoder, cores))).double().numpy()
        return found


def meaning(shares: np.ndarray) -> Meaning:
    """What shares [N, concepts + 1] mean: the sum of the known concepts' units by their shares. Where a text is hardly understood, less is shown."""
    every, known = concepts(), 1 - shares[:, -1]
    kept = shares[:, :-1] * (shares[:, :-1] >= _DOUBT * shares[:, :-1].max(1, keepdims=True))
    kept /= kept.sum(1, keepdims=True)
    units = kept @ np.stack([concept.units for concept in every])
    whole = kept @ np.array([concept.whole for concept in every], float)
    return Meaning(units, whole, known, tuple(every[i].name for i in kept.argmax(1)))


def vectors(encoder: Encoder, cores: Sequence[str]) -> np.ndarray:
    """What the map reads of texts: float32 [N, width]."""
    return np.concatenate([encoder([prompt.format(text) for text in cores]) for prompt in PROMPTS], 1)


def taught() -> tuple[list[str], list[Caption]]:
    """The texts from which a map learns, as `parse.core` leaves them, each once, and what each means."""
    by_core: dict[str, Caption] = {}
    for caption in captions():
        by_core.setdefault(core(caption.text) or caption.text.lower(), caption)
    return list(by_core), list(by_core.values())


def train(encoder: Encoder, steps: int = 1200, seed: int = 0, hidden: int = 48, members: int = 4) -> ConceptMap:
    """Learn a map for `encoder`, on the CPU: the same seed gives the same weights, up to another machine's rounding."""
    texts, means = taught()
    seen, target = torch.from_numpy(vectors(encoder, texts)), _targets(means)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ConceptMap(seen.shape[1], len(concepts()), hidden, members)
        network.middle.copy_(seen.mean(0))
        network.scale.fill_(1 / seen.std())
        seen, weights = (seen - network.middle) * network.scale, _weights(target)
        optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            drawn = torch.multinomial(weights, _BATCH, replacement=True)
            noisy = seen[drawn] + _NOISE * torch.randn(_BATCH, seen.shape[1])
            # A sum over members: each learns by itself.
            loss = -(target[drawn] * network.each(noisy)).sum((0, 2)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def _targets(means: Sequence[Caption]) -> Tensor:
    """The shares [N, concepts + 1] that texts teach."""
    number = {concept.name: i for i, concept in enumerate(concepts())}
    target = torch.zeros(len(means), len(number) + 1)
    for shares, caption in zip(target, means, strict=True):
        for name in caption.means:
            shares[number[name]] = 1 / len(caption.means)
        if not caption.means:
            shares[-1] = 1
    return target


def _weights(target: Tensor) -> Tensor:
    """How often each text is drawn: by its concept, compounds by their first and all together."""
    topic = target.argmax(1) + (target.max(1).values < 1) * target.shape[1]
    weights = topic.bincount().double()[topic] ** -_BALANCE
    known = target[:, -1] == 0
    weights[known] /= weights[known].sum()
    weights[~known] *= _UNKNOWN / weights[~known].sum()
    return weights


def save(network: ConceptMap, encoder: Encoder, folder: Path, **facts: Any) -> Path:
    """Write a map into `folder`. facts: JSON values about its training."""
    first = network.first
    config = {
        "encoder": {"name": encoder.name, "sha256": encoder.sha256},
        "concepts": [concept.name for concept in concepts()],
        "prompts": list(PROMPTS),
        "settings": {
            "width": first.in_features,
            "hidden": first.out_features // network.members,
            "members": network.members,
        },
        "facts": facts,
    }
    return save_model(folder, "words", KIND, network, config)


def load(folder: Path | str = SHIPPED, encoder: Encoder | None = None) -> TextMap:
    """The map in `folder` with its encoder, frozen.

    Raises FileNotFoundError or ValueError where the folder holds none of this version, or one that learnt with another encoder than is here, and what
    `encoder.load_encoder` raises.
    """
    from spfem_dist.words.encoder import load_encoder

    config = read_config(folder, "words")
    try:
        if config["concepts"] != [concept.name for concept in concepts()] or config["prompts"] != list(PROMPTS):
            raise ValueError("it knows other concepts, or read other prompts")
        width, hidden, members = (int(config["settings"][name]) for name in ("width", "hidden", "members"))
        network = ConceptMap(width, len(concepts()), hidden, members)
        name, sha256 = (str(config["encoder"][key]) for key in ("name", "sha256"))
    except (KeyError, TypeError, ValueError) as error:
        raise misfit(folder, "words", error) from None
    load_weights(network, folder, "words")
    encoder = encoder or load_encoder(name)
    if (len(PROMPTS) * encoder.width, encoder.sha256) != (width, sha256):
        raise ValueError(
            f"{folder} learnt with another encoder than the {encoder.name} that is here: train it again (python recipes/words.py --encoder {encoder.name})"
        )
    return TextMap(network.requires_grad_(False), encoder, config)
