"""`spfem evaluate generator` and `spfem evaluate compare` as a user types them."""

import json
import sys
import types

from documented import words_of
from doors import command, well
from fake_generators import Copy

from spfem_dist.config import Data, Run, Tracking

EVALUATE = "spfem evaluate generator runs/demo-stage2 --judges runs/judges"
COMPARE = "spfem evaluate compare runs/demo-stage2 runs/other"


def a_copy_is_loaded():
    """Every run folder holds a generator that changes nothing."""
    module = types.ModuleType("spfem_dist.generators.load")
    module.load_generator = lambda location: Copy()
    sys.modules["spfem_dist.generators.load"] = module


def test_two_generators_are_scored_and_compared(small_corpus, judges_run, brief, tmp_path):
    shards, split = small_corpus
    run = Run(data=Data(shards=str(shards), split=str(split), size=32), tracking=Tracking(uri=""))
    folders = {}
    for name in ("runs/demo-stage2", "runs/other"):
        folder = folders[name] = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(run.model_dump_json())
        places = {"runs/demo-stage2": folder, "runs/judges": judges_run[0]}
        done = well(command(*words_of(EVALUATE, places, "--protocol", brief), before=a_copy_is_loaded))
        assert "changed_error_over_copy" in done.said
        assert "judged by corpus-trained judges" in done.said
        assert json.loads((folder / "summary.json").read_text())["stage2"]["copy"]["changed_error_over_copy"] == 1
        assert (folder / "report.html").exists()
    done = well(command(*words_of(COMPARE, folders)))
    assert done.said.count("noise") > 10
    assert "better" not in done.said
    read = json.loads(well(command(*words_of(COMPARE, folders), "--json")).out)
    assert read["changed_error_over_copy"]["verdict"] == "noise"
    assert read["changed_error_over_copy"]["difference"]["value"] == 0


def test_missing_judges_end_in_one_message(small_corpus, tmp_path):
    shards, split = small_corpus
    (tmp_path / "run.json").write_text(Run(data=Data(shards=str(shards), split=str(split))).model_dump_json())
    for judges, phrase in (
        (tmp_path / "none", "python recipes/metric_nets.py"),
        ("published", "resnet18-arcface"),
        ("open", "spfem evaluate real"),
    ):
        done = command("spfem", "evaluate", "generator", tmp_path, "--judges", judges, SPFEM_WEIGHTS=str(tmp_path))
        assert done.code == 1
        assert phrase in done.said
        assert "Traceback" not in done.err
