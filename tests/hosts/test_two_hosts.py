"""The stage-1 recipe on two hosts, as a user starts it: `ray job submit`, S3 over HTTP, MLflow on PostgreSQL."""

from __future__ import annotations

import psycopg2
import pytest
from comparing import TINY, curves, same_losses
from mlflow import MlflowClient


@pytest.fixture(scope="module")
def trained(cluster):
    """A finished run of both priors, one worker on each host."""
    job = cluster.submit("plain", *TINY, "--scaling.workers", "2", "--scaling.placement", "STRICT_SPREAD")
    job.wait()
    return job


def test_one_worker_trains_on_each_host(trained, cluster):
    assert trained.hosts() == {host.address for host in cluster.hosts}


@pytest.mark.parametrize("prior", ["ccrl", "cerl"])
def test_the_losses_are_those_of_one_process(trained, shared, reference, prior):
    same_losses(shared.json(f"plain/{prior}/history.json"), reference(*TINY)[prior])


def test_checkpoints_and_exported_priors_are_in_the_bucket(trained, shared):
    keys = shared.objects("plain/")
    for prior in ("ccrl", "cerl"):
        assert f"plain/{prior}/model/model.safetensors" in keys
        assert any(key.startswith(f"plain/{prior}/checkpoint_") and "optim_states" in key for key in keys)


@pytest.mark.parametrize("prior", ["ccrl", "cerl"])
def test_mlflow_has_every_point_once(trained, shared, reference, prior):
    client = MlflowClient(shared.tracking)
    found = curves(client, shared, "plain", prior)
    for key in {name for _, name in reference(*TINY)[prior]}:
        wanted = sorted(step for step, name in reference(*TINY)[prior] if name == key)
        assert [point.step // 4 for point in found[key]] == wanted, key


def test_mlflow_keeps_it_in_postgresql(trained, shared):
    state = shared.json("plain/ccrl/state.json")
    with psycopg2.connect(shared.store) as connection, connection.cursor() as cursor:
        cursor.execute("select status from runs where run_uuid = %s", (state["mlflow_run"],))
        assert cursor.fetchone() == ("FINISHED",)
        cursor.execute("select count(*) from metrics where run_uuid = %s", (state["mlflow_run"],))
        assert cursor.fetchone()[0] > 50


def test_pictures_arrive_through_the_server(trained, shared):
    client = MlflowClient(shared.tracking)
    run = shared.json("plain/ccrl/state.json")["mlflow_run"]
    assert [entry.path for entry in client.list_artifacts(run)]


def test_no_secret_is_in_what_a_user_sees(trained):
    assert "a-secret-of-the-hosts" not in trained.text()
    assert "sesame" not in trained.text()
