"""What words are asked of: the shipped map where its encoder's weights can be had, and a stand-in for encoders that need none."""

import zlib

import numpy as np
import pytest
import torch
from pulled import pulled

from spfem_dist.words import text_map
from spfem_dist.words.encoder import MINILM, Encoder


@pytest.fixture(scope="session")
def shipped():
    pulled(MINILM)
    return text_map.load()


@pytest.fixture(scope="session")
def stand_in():
    """Vectors that are a sum over a text's words: no knowledge, but no weights either."""

    def features(texts):
        rows = [
            sum(np.random.default_rng(zlib.crc32(word.encode())).standard_normal(32) for word in text.split())
            for text in texts
        ]
        return torch.nn.functional.normalize(torch.tensor(np.stack(rows), dtype=torch.float32), dim=-1)

    return Encoder("stand-in", "0" * 64, 32, features)
