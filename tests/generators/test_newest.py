"""`spfem edit` without --generator takes the one that was finished last in runs/, else the one of the package."""

import json
import os

from doors import command

from spfem_dist.generators.load import SHIPPED, newest_generator
from spfem_dist.saved import CONFIG, VERSION


def finished(home, run, what, when):
    folder = home / "runs" / run / "job" / "model"
    folder.mkdir(parents=True)
    config = {"format": f"spfem-{what}/{VERSION}", "kind": "x", "parameters_sha256": "0"}
    (folder / CONFIG).write_text(json.dumps(config))
    os.utime(folder / CONFIG, (when, when))


def test_the_newest_generator_of_the_store_is_found_among_priors_and_older_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("SPFEM_HOME", str(tmp_path))
    assert newest_generator() == SHIPPED
    for when, (run, what) in enumerate([("old", "generator"), ("new", "generator"), ("priors", "prior")]):
        finished(tmp_path, run, what, when)
    assert newest_generator() == str(tmp_path / "runs" / "new")


def test_an_edit_without_a_generator_says_which_one_it_took(tmp_path):
    finished(tmp_path, "demo-stage2", "generator", 1)
    words = ["spfem", "edit", tmp_path / "nothing.mp4", "--emotion", "happy", "--out", tmp_path / "out.mp4"]
    done = command(*words, SPFEM_HOME=str(tmp_path))
    assert done.code == 1
    assert f"by {tmp_path}/runs/demo-stage2, the newest generator in runs" in done.said
