"""The same through a real MLflow server over HTTP: it goes away in the middle of a run and comes back."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from werkzeug.serving import make_server

from spfem_dist.config import Data
from spfem_dist.priors import cerl
from spfem_dist.priors.prior import build_prior, save_prior
from spfem_dist.tracking import models, stored, tracker
from spfem_dist.tracking.store import TrackingUnavailable, open_client, reachable


class Server:
    """MLflow's own web application on the shared SQLite store, stopped and started on one port."""

    def __init__(self, app):
        self.app, self.port, self.server = app, 0, None

    def start(self):
        self.server = make_server("127.0.0.1", self.port, self.app, threaded=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


@pytest.fixture
def server(store, tmp_path, monkeypatch):
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", store)
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(tmp_path / "artifacts"))
    monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    from mlflow.server import app

    server = Server(app)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def served(run, server):
    run.tracking.uri = f"http://me:sesame@127.0.0.1:{server.port}"
    return run


def test_a_run_survives_the_server_going_away_and_coming_back(served, server, caplog, capfd):
    parent = tracker.start_parent(served)
    t = tracker.start(served, "ccrl", parent)
    t.metrics({"train/ccrl/contrast": 0.0}, 0)
    assert t.flush(180)
    server.stop()
    started = time.perf_counter()
    for samples in range(12, 120, 12):
        t.metrics({"train/ccrl/contrast": samples}, samples)
        t.picture("ccrl/attention", np.zeros((16, 16, 3), np.uint8), samples)
    assert time.perf_counter() - started < 10, "18 calls, none of which waited for the server"
    assert not t.flush(6)
    server.start()
    assert t.flush(180)
    t.finish()
    tracker.finish_parent(served, parent)
    client = open_client(served.tracking.uri)
    assert [m.step for m in client.get_metric_history(t.run_id, "train/ccrl/contrast")] == list(range(0, 120, 12))
    assert stored.pictures(client, t.run_id) == {("ccrl/attention", samples) for samples in range(12, 120, 12)}
    assert [client.get_run(run_id).info.status for run_id in (t.run_id, parent)] == ["FINISHED", "FINISHED"]
    printed = caplog.text + "".join(capfd.readouterr())
    assert "does not take data" in printed
    assert "is back" in printed
    assert "sesame" not in printed


def test_a_run_resumed_while_the_server_is_away_tells_it_later_and_nothing_twice(served, server, caplog):
    """The first attempt leaves points in the spool; the second replays all of them, as a restored history does."""
    parent = tracker.start_parent(served)
    first = tracker.start(served, "ccrl", parent)
    for samples in (0, 12, 24):
        first.metrics({"train/ccrl/contrast": samples}, samples)
    assert first.flush(60)
    server.stop()
    first.metrics({"train/ccrl/contrast": 36.0}, 36)
    first.close(timeout=1)

    assert tracker.start_parent(served, resume_run_id=parent) == parent
    second = tracker.start(served, "ccrl", parent, resume_run_id=first.run_id, samples=24)
    second.dataset("synthetic", "ab", "shards", {"groups": 4})
    for samples in (0, 12, 24, 36, 48):
        second.metrics({"train/ccrl/contrast": samples}, samples)
    assert not second.flush(1)
    server.start()
    assert second.flush(60, patient=True)
    second.finish()
    tracker.finish_parent(served, parent)
    assert "is away; the run goes on" in caplog.text
    client = open_client(served.tracking.uri)
    for run_id in (first.run_id, parent):
        points = client.get_metric_history(run_id, "train/ccrl/contrast")
        assert [(m.step, m.value) for m in points] == [(n, n) for n in (0, 12, 24, 36, 48)]
        assert client.get_run(run_id).info.status == "FINISHED"
    found = client.get_run(first.run_id)
    assert found.data.tags["attempt"] == "2"
    assert "samples=24" in found.data.tags["attempt.2"]
    assert [entry.dataset.name for entry in found.inputs.dataset_inputs] == ["synthetic"]


def test_a_new_run_does_not_start_without_the_server(served, server):
    server.stop()
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        tracker.start_parent(served)
    served.tracking.wait_s = 0.5
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        tracker.start(served, "ccrl", "a" * 32)


def test_the_end_of_a_run_waits_for_the_server(served, server):
    parent = tracker.start_parent(served)
    server.stop()
    threading.Timer(3.0, server.start).start()
    tracker.finish_parent(served, parent)
    assert open_client(served.tracking.uri).get_run(parent).info.status == "FINISHED"


def test_a_prior_is_registered_and_fetched_through_the_server(served, tmp_path):
    assert reachable(served.tracking.uri).ok
    prior = build_prior(cerl.Settings(), Data(), 160)
    folder = save_prior(tmp_path / "cerl", prior, settings=cerl.Settings(), data=Data(), feature_dim=160)
    with tracker.start(served, "cerl") as t:
        pass
    version = models.register_model(served.tracking.uri, folder, "served-cerl", t.run_id)
    found = models.fetch_model(f"models:/served-cerl/{version}", served.tracking.uri, into=tmp_path / "fetched")
    assert tmp_path / "fetched" in found.parents
    assert (found / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
