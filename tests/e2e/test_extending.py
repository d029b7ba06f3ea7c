"""docs/extending.md, word for word: its prior is found, trained, exported and guides stage 2, and nothing else changes."""

import json
import os
import re

from doors import ROOT, command, well

PAGE = ROOT / "docs" / "extending.md"


def with_the_pages_prior():
    """Called in the process of a command: the package of priors has one more place."""
    import spfem_dist.priors

    spfem_dist.priors.__path__.append(os.environ["SPFEM_TEST_PRIORS"])


def written(place):
    """The page's files below `place`."""
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        name, text = block.removeprefix("# ").split("\n", 1)
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)


def test_the_prior_of_the_page_trains_and_guides(shards, tmp_path):
    written(tmp_path)
    folder, split = shards
    flags = ["--local", "--data.shards", folder, "--data.split", split, "--checkpoint.storage", tmp_path / "runs"]
    flags += ["--tracking.uri", "", "--tracking.pictures-every-steps", "0", "--validation.every-steps", "0"]
    flags += ["--tracking.log-every-steps", "1"]
    place = {"SPFEM_TEST_PRIORS": str(tmp_path / "spfem_dist/priors"), "before": with_the_pages_prior}
    stage1 = [*flags, "--labels.steps", "3", "--labels.global-batch", "2"]
    well(command("python", tmp_path / "recipes/labels_stage1.py", *stage1, **place))
    stage2 = [*flags, "--priors", tmp_path / "runs/labels", "--ned.guidance.labels", "0.5", "--ned.steps", "2"]
    stage2 += ["--pretraining.steps", "2"]
    well(command("python", "recipes/cdrl_stage2.py", *stage2, "--ned.global-batch", "2", **place))
    rows = json.loads((tmp_path / "runs/cdrl-stage2/ned/history.json").read_text())
    assert all(row["values"]["train/guidance/labels/emotion"] > 0 for row in rows)
    config = json.loads((tmp_path / "runs/cdrl-stage2/ned/model/config.json").read_text())
    assert "labels" in config["facts"]["priors"]
