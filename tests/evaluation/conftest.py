"""A corpus of seconds for judges and generators: four speakers of whom two are tested, and judges trained for moments."""

import json

import pytest
from doors import command, well
from rich.console import Console

from spfem_dist.evaluation.judges.saved import load_judges
from spfem_dist.prepare import job
from spfem_dist.prepare.plan import PrepareSettings

SPLIT = {
    "corpus": "synthetic",
    "description": "two speakers train and two are tested",
    "source": "the tests",
    "train": {"speakers": ["S00", "S01"], "sentences": ["00"]},
    "validation": {"speakers": [], "sentences": []},
    "test": {"speakers": ["S02", "S03"], "sentences": ["01", "02"]},
}
#: What makes the judges' recipe a matter of seconds.
BRIEF = ["--local", "--tracking.uri", "", "--tracking.log-every-steps", "1", "--data.frames-per-recording", "12"]
for judge in ("oracle", "identity", "synchrony"):
    BRIEF += [f"--{judge}.steps", "3", f"--{judge}.global-batch", "2", f"--{judge}.optimizer.warmup-steps", "1"]


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """(folder of shards at 32 pixels, file of the split)."""
    folder = tmp_path_factory.mktemp("judged")
    settings = PrepareSettings(
        corpus="synthetic", out=folder / "shards", identities=4, synthetic_sentences=3, size=32, local=True
    )
    job.run(settings, Console(quiet=True))
    (folder / "split.json").write_text(json.dumps(SPLIT))
    return folder / "shards", folder / "split.json"


@pytest.fixture(scope="session")
def judges_run(small_corpus, tmp_path_factory):
    """The folder of a finished run of recipes/metric_nets.py, and what it said."""
    storage = tmp_path_factory.mktemp("judges")
    shards, split = small_corpus
    places = ["--data.shards", shards, "--data.split", split, "--data.size", "32", "--checkpoint.storage", storage]
    done = well(command("python", "recipes/metric_nets.py", *places, *BRIEF))
    return storage / "judges", done


@pytest.fixture(scope="session")
def judges(judges_run):
    return load_judges(str(judges_run[0]))
