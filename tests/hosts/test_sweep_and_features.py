"""On two hosts and S3: a search over settings, and a frozen trunk's features that the workers compute together and share."""

from __future__ import annotations

import pytest
from comparing import LONG, TINY, same_losses
from mlflow import MlflowClient

from spfem_dist.tracking.sweeps import OBJECTIVE

CONTENT = ("--cerl.enabled", "False", "--scaling.workers", "1")
#: A CLIP of the small size, frozen; no stored view is drawn, so that the numbers are those without a cache.
RELEASED = ("--ccrl.enabled", "False", "--cerl.form", "released", "--cerl.feature-views", "0")


def test_trials_of_a_sweep_train_on_both_hosts_and_are_compared_in_mlflow(cluster, shared):
    """Submitted as a job: the trials' own drivers run the job's upload, on whichever host they are put."""
    words = ("recipes/sweep.py", "cdrl_stage1", "--metric", "val/ccrl/contrast", "--scheduler", "none")
    space = ("--space", "ccrl.optimizer.lr=grid:1e-4,1e-3")
    before = cluster.training_workers()
    job = cluster.submit("searched", *TINY, *CONTENT, *space, program=words)
    said = job.wait()
    trials = shared.json("searched/sweep.json")["trials"]
    assert [trial["ended"] for trial in trials] == ["finished", "finished"]
    best = min(trials, key=lambda trial: trial["figure"])
    assert f"--ccrl.optimizer.lr {best['values']['ccrl.optimizer.lr']}" in said
    client = MlflowClient(shared.tracking)
    for trial in trials:
        assert f"{trial['name']}/ccrl/model/model.safetensors" in shared.objects(f"{trial['name']}/")
        run = client.get_run(shared.json(f"{trial['name']}/state.json")["mlflow_run"])
        assert run.data.metrics[OBJECTIVE] == trial["figure"]
        assert client.get_run(run.data.tags["mlflow.parentRunId"]).data.tags["kind"] == "sweep"
    after = cluster.training_workers()
    assert {after[actor][1] for actor in after.keys() - before.keys()} == {host.address for host in cluster.hosts}
    assert shared.objects("searched/tune") == []


@pytest.mark.parametrize("again", [False, True])
def test_features_are_computed_by_both_hosts_once_and_kept_on_s3(again, cluster, shared, reference):
    """The losses are those of one process that decodes every frame anew."""
    name = f"features-{int(again)}"
    flags = (*TINY, *RELEASED, "--scaling.workers", "2", "--scaling.placement", "STRICT_SPREAD")
    said = cluster.submit(name, *flags, "--cerl.feature-cache", "s3://runs/kept").wait()
    assert ("were there" in said) == again
    assert any(key.endswith(".safetensors") for key in shared.objects("kept/"))
    same_losses(shared.json(f"{name}/cerl/history.json"), reference(*TINY, *RELEASED)["cerl"])


def test_a_population_on_two_hosts_goes_on_from_a_checkpoint_on_s3(cluster, shared):
    words = ("recipes/sweep.py", "cdrl_stage1", "--metric", "val/ccrl/contrast", "--scheduler", "pbt", "--trials", "2")
    space = ("--space", "ccrl.optimizer.lr=loguniform:1e-6,1e-3", "--validation.every-steps", "4")
    cluster.submit("population", *LONG, *CONTENT, *space, "--ccrl.steps", "40", program=words).wait()
    trials = shared.json("population/sweep.json")["trials"]
    assert {trial["ended"] for trial in trials} == {"finished"}
    moved = [trial for trial in trials if trial["run"] != trial["name"]]
    assert moved, "with two trials the worse one goes on from the better"
    for trial in moved:
        origin = shared.json(f"{trial['run']}/origin.json")
        assert origin["run"].startswith("population-t")
        assert origin["samples"]["ccrl"] > 0
        history = shared.json(f"{trial['run']}/ccrl/history.json")
        assert max(row["samples"] for row in history) == 160
        assert f"{trial['run']}/ccrl/model/model.safetensors" in shared.objects(f"{trial['run']}/")
