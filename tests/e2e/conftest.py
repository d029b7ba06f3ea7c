"""One small data set for all end-to-end tests, prepared through the command line."""

import json

import pytest
from flow import call, ok
from small_corpus import SPLIT


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """(folder of shards, file of the split): four synthetic speakers, three sentences, seven emotions."""
    folder = tmp_path_factory.mktemp("data")
    ok(
        call(
            "spfem",
            "prepare",
            "synthetic",
            "--out",
            folder / "shards",
            "--identities",
            "4",
            "--synthetic-sentences",
            "3",
            "--local",
        )
    )
    (folder / "split.json").write_text(json.dumps(SPLIT))
    return folder / "shards", folder / "split.json"


@pytest.fixture(scope="session")
def small(shards):
    """Flags that make the stage-1 recipe a matter of seconds on that data set."""
    folder, split = shards
    flags = [
        "--data.shards",
        folder,
        "--data.split",
        split,
        "--scaling.workers",
        "2",
        "--tracking.log-every-steps",
        "1",
    ]
    flags += ["--ccrl.steps", "8", "--ccrl.global-batch", "4", "--cerl.steps", "6", "--cerl.global-batch", "4"]
    flags += ["--checkpoint.every-steps", "4", "--validation.every-steps", "4", "--validation.samples", "4"]
    return [str(f) for f in [*flags, "--tracking.pictures-every-steps", "4"]]
