"""Four synthetic speakers, and which of them train: small enough for seconds."""

from pathlib import Path

from rich.console import Console

from spfem_dist.prepare import job
from spfem_dist.prepare.plan import PrepareSettings

#: Two speakers train, one validates, one is tested.
SPLIT = {
    "corpus": "synthetic",
    "description": "four speakers for the tests",
    "source": "the tests",
    "train": {"speakers": ["S00", "S01"], "sentences": ["00", "01"]},
    "validation": {"speakers": ["S02"], "sentences": ["02"]},
    "test": {"speakers": ["S03"], "sentences": ["00", "02"]},
}


def four_speakers(shards: Path) -> None:
    """Prepare them, three sentences in seven emotions of 32 pixels, into the folder `shards`."""
    settings = PrepareSettings(corpus="synthetic", out=shards, identities=4, synthetic_sentences=3, size=32, local=True)
    job.run(settings, Console(quiet=True))
