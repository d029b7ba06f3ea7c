"""The map from words to units of the face that `spfem edit --text` uses, learnt from the package's own vocabulary.

    python recipes/words.py --out words                                                  # the package's own: minutes on one core
    python recipes/words.py --encoder clip-vit-base-patch32 --out words-clip             # the same over CLIP's text tower, where its weights are
    spfem evaluate words --words words
    spfem edit talk.mp4 --text "a bitter smile, eyebrows raised" --words words

The same seed gives the same map; on another machine answers differ by rounding, less than 0.01.
"""

from pathlib import Path

import torch

from spfem_dist import exporting
from spfem_dist.errors import call_by_words, errors_in_words
from spfem_dist.words import text_map
from spfem_dist.words.encoder import MINILM, load_encoder


def words(out: Path, encoder: str = MINILM, steps: int = 1200, seed: int = 0) -> None:
    """Train the map and write it.

    Args:
        out: The new folder.
        encoder: A name of `spfem weights list` (all-minilm-l6-v2, clip-vit-base-patch32), or a folder with a CLIP in transformers' format.
        steps: Optimiser steps of 512 texts.
        seed: Seed of weights, order and noise.
    """
    exporting.refuse_taken(out)
    torch.set_num_threads(1)  # another number would round otherwise
    read = load_encoder(encoder)
    network = text_map.train(read, steps, seed)
    texts, _ = text_map.taught()
    print(
        f"{text_map.save(network, read, out, steps=steps, seed=seed, texts=len(texts))}: learnt from {len(texts)} texts"
    )


if __name__ == "__main__":
    with errors_in_words():
        call_by_words(words)
