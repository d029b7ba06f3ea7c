"""Which of four synthetic speakers train: small enough for seconds."""

#: Two speakers train, one validates, one is tested.
SPLIT = {
    "corpus": "synthetic",
    "description": "four speakers for the tests",
    "source": "the tests",
    "train": {"speakers": ["S00", "S01"], "sentences": ["00", "01"]},
    "validation": {"speakers": ["S02"], "sentences": ["02"]},
    "test": {"speakers": ["S03"], "sentences": ["00", "02"]},
}
