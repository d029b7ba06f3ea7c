"""A corpus of seconds for judges and generators: four speakers of whom two are tested, and judges trained for moments."""

import json

import pytest
from doors import command, well
from judged_corpus import BRIEF, BRIEF_PROTOCOL, SPLIT
from rich.console import Console

from spfem_dist.evaluation.judges.saved import load_judges
from spfem_dist.prepare import job
from spfem_dist.prepare.plan import PrepareSettings


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """(folder of shards at 32 pixels, file of the split)."""
    folder = tmp_path_factory.mktemp("judged")
    settings = PrepareSettings(
        corpus="synthetic", out=folder / "shards", identities=4, synthetic_sentences=3, size=32, local=True
    )
    job.run(settings, Console(quiet=True))
    (folder / "split.json").write_text(json.dumps(SPLIT))
    (folder / "brief.json").write_text(json.dumps(BRIEF_PROTOCOL))
    return folder / "shards", folder / "split.json"


@pytest.fixture(scope="session")
def brief(small_corpus):
    """The file of a protocol with two emotions."""
    return str(small_corpus[1].with_name("brief.json"))


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
