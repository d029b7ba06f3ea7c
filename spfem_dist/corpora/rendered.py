"""Rendered corpora by their name: each is a package of its own inside `corpora/`, found by one import; nothing else spells its name.

Such a package exports `Corpus`, a `SpokenCorpus`, and `LANDMARKS`, the order of its landmarks as an index of shards names it;
and may export `SHOWN`, speaker and sentence of recordings for whoever wants a film to try.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import spfem_dist.corpora
from spfem_dist.corpora._speech.corpus import SpokenCorpus

#: The one that settings name when nobody says otherwise.
DEFAULT = "synthetic"


def kinds() -> tuple[str, ...]:
    """Names of the rendered corpora, sorted; nothing of them is imported."""
    found = pkgutil.iter_modules(spfem_dist.corpora.__path__)
    return tuple(sorted(m.name for m in found if m.ispkg and not m.name.startswith("_")))


def is_rendered(corpus: str) -> bool:
    """Whether the corpus of this name is rendered here, and not recorded."""
    return corpus in kinds()


def find(kind: str) -> ModuleType:
    """The package of the rendered corpus `kind`; raises ValueError that lists those there are."""
    if kind not in kinds():
        raise ValueError(f"there is no rendered corpus {kind!r}; there are {', '.join(kinds())}")
    return importlib.import_module(f"spfem_dist.corpora.{kind}")


def corpus(
    kind: str,
    identities: int | None = None,
    sentences: int | None = None,
    fps: float = 25.0,
    size: int = 64,
    seed: int = 0,
    style: float = 0.0,
) -> SpokenCorpus:
    """The rendered corpus `kind`; None for a count takes the full corpus's. Raises ValueError as `SpokenCorpus` does."""
    made: type[SpokenCorpus] = find(kind).Corpus
    full = made.extent
    return made(identities or full[0], sentences or full[1], fps, size, seed, style=style)
