"""A corpus of seconds for judges and generators: four speakers of whom two are tested, and judges trained for moments."""

import json

import pytest
from doors import command, well
from judged_corpus import BRIEF, BRIEF_PROTOCOL, SPLIT
from once import made_once
from toy_stage2 import toy_of

from spfem_dist.evaluation.judges.saved import load_judges


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """(folder of shards at 32 pixels, file of the split)."""
    folder = tmp_path_factory.mktemp("judged")
    (folder / "split.json").write_text(json.dumps(SPLIT))
    (folder / "brief.json").write_text(json.dumps(BRIEF_PROTOCOL))
    return toy_of(tmp_path_factory).shards, folder / "split.json"


@pytest.fixture(scope="session")
def brief(small_corpus):
    """The file of a protocol with two emotions."""
    return str(small_corpus[1].with_name("brief.json"))


@pytest.fixture(scope="session")
def judges_run(small_corpus, tmp_path_factory):
    """The folder of a finished run of recipes/metric_nets.py, and what it printed."""
    shards, split = small_corpus

    def train(storage):
        places = ["--data.shards", shards, "--data.split", split, "--data.size", "32", "--checkpoint.storage", storage]
        (storage / "out").write_text(well(command("python", "recipes/metric_nets.py", *places, *BRIEF)).out)

    storage = made_once(tmp_path_factory, "finished-judges", train)
    return storage / "judges", (storage / "out").read_text()


@pytest.fixture(scope="session")
def judges(judges_run):
    return load_judges(str(judges_run[0]))
