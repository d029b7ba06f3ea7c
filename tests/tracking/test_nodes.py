"""System metrics: each node of a run is watched by one of its processes, under the node's number."""

import json
import logging
import time

import pytest
from mlflow.exceptions import MlflowException

from spfem_dist.tracking import nodes, tracker
from spfem_dist.training.worker import _watched
from spfem_dist.training.world import PlainWorld

CPU = "cpu_utilization_percentage"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")


def points(client, run_id, name, count):
    """The points of a metric, once there are `count`."""
    deadline = time.monotonic() + 120
    while len(found := client.get_metric_history(run_id, name)) < count:
        assert time.monotonic() < deadline, f"{len(found)} points of {name}: {client.get_run(run_id).data.metrics}"
        time.sleep(0.2)
    return found


def test_every_node_of_a_run_has_its_own_curves(run, client):
    with tracker.start(run, "ccrl") as t:
        with nodes.watched(run, t.run_id, 0):
            points(client, t.run_id, f"system/node_0/{CPU}", 3)
        run.tracking.uri = run.tracking.uri.replace(
            "sqlite://", "sqlite+pysqlite://"
        )  # as a database that all nodes reach
        with nodes.watched(run, t.run_id, 1):
            found = points(client, t.run_id, f"system/node_1/{CPU}", 1)
    assert 0 <= found[0].value <= 100
    metrics = client.get_run(t.run_id).data.metrics
    assert metrics["system/node_0/system_memory_usage_megabytes"] > 0
    assert {"system/node_0/disk_usage_percentage", "system/node_1/network_receive_megabytes"} <= set(metrics)


def test_a_resumed_run_goes_on_counting(run, client):
    with tracker.start(run, "ccrl") as t, nodes.watched(run, t.run_id, 0):
        before = points(client, t.run_id, f"system/node_0/{CPU}", 2)
    with tracker.start(run, "ccrl", resume_run_id=t.run_id) as t, nodes.watched(run, t.run_id, 0):
        after = points(client, t.run_id, f"system/node_0/{CPU}", len(before) + 3)
    steps = sorted(point.step for point in after)
    assert steps == list(range(len(steps)))


def test_a_store_that_does_not_answer_once_does_not_end_it_and_no_password_is_printed(run, client, monkeypatch, caplog):
    real, failed = client.__class__.get_run, []

    def away(self, run_id):
        if len(failed) < 3:
            failed.append(run_id)
            raise MlflowException("no answer from http://me:sesame@host/api")
        return real(self, run_id)

    with tracker.start(run, "ccrl") as t:
        t.flush(60)
        monkeypatch.setattr("mlflow.tracking.client.MlflowClient.get_run", away)
        with caplog.at_level(logging.INFO), nodes.watched(run, t.run_id, 0):
            deadline = time.monotonic() + 120
            while len(failed) < 3 and time.monotonic() < deadline:
                time.sleep(0.1)
            points(client, t.run_id, f"system/node_0/{CPU}", 1)
    assert len(failed) == 3
    assert "sesame" not in caplog.text


def test_another_node_does_not_make_an_sqlite_file_of_its_own(run, client, caplog):
    with tracker.start(run, "ccrl") as t, nodes.watched(run, t.run_id, 1):
        time.sleep(1)
    assert not [name for name in client.get_run(t.run_id).data.metrics if name.startswith("system/")]
    assert "http://server:5000" in caplog.text


def test_one_process_of_a_node_watches_it(run, client, tmp_path, monkeypatch):
    with tracker.start(run, "ccrl") as t:
        monkeypatch.setenv("LOCAL_RANK", "1")
        with _watched(run, PlainWorld(str(tmp_path)), t.run_id):
            time.sleep(1)
        assert "system/" not in json.dumps(client.get_run(t.run_id).data.to_dictionary())
        monkeypatch.setenv("LOCAL_RANK", "0")
        with _watched(run, PlainWorld(str(tmp_path)), t.run_id):
            points(client, t.run_id, f"system/node_0/{CPU}", 1)
        run.tracking.system_metrics = False
        with _watched(run, PlainWorld(str(tmp_path)), t.run_id):
            count = len(client.get_metric_history(t.run_id, f"system/node_0/{CPU}"))
            time.sleep(1)
            assert len(client.get_metric_history(t.run_id, f"system/node_0/{CPU}")) == count
