"""A sweep over a prior of the recipes, on shards."""

import json

import pytest
from doors import process, well
from toy_stage2 import make_toy


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_the_content_priors_rate_is_searched_on_synthetic_shards(tmp_path):
    toy = make_toy(tmp_path)
    words = ["cdrl_stage1", "--cerl.enabled", "False", "--metric", "val/ccrl/contrast", "--local", "--trials", "2"]
    words += ["--space", "ccrl.optimizer.lr=loguniform:1e-4,1e-2", "--checkpoint.storage", str(tmp_path / "runs")]
    words += ["--data.shards", str(toy.shards), "--data.split", str(toy.split), "--data.size", "32"]
    words += ["--ccrl.steps", "4", "--ccrl.global-batch", "4", "--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db"]
    done = well(process("recipes/sweep.py", *words, "--validation.every-steps", "2", "--validation.samples", "4"))
    trials = json.loads((tmp_path / "runs" / "cdrl-stage1-sweep" / "sweep.json").read_text())["trials"]
    assert [trial["ended"] for trial in trials].count("finished") >= 1
    assert all(trial["figure"] > 0 for trial in trials)
    best = min((trial for trial in trials if trial["ended"] == "finished"), key=lambda trial: trial["figure"])
    assert f"--ccrl.optimizer.lr {best['values']['ccrl.optimizer.lr']}" in done.out
    assert "python recipes/cdrl_stage1.py --cerl.enabled False" in done.out
