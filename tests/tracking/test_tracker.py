"""An MLflow run as training leaves it: its points, pictures, parameters, data, machine, and how it ended."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from spfem_dist.tracking import environment, stored, tracker
from spfem_dist.tracking.sender import HEADLINES, TABLES_TAG
from spfem_dist.tracking.store import TrackingUnavailable


def steps(client, run_id, name):
    return [metric.step for metric in client.get_metric_history(run_id, name)]


def picture(value=0):
    return np.full((24, 32, 3), value, np.uint8)


def test_a_prior_is_a_child_of_its_training_run_and_both_end_finished(run, client):
    parent = tracker.start_parent(run)
    with tracker.start(run, "ccrl", parent) as child:
        assert client.get_run(child.run_id).info.status == "RUNNING"
    tracker.finish_parent(run, parent)
    stored_child, stored_parent = client.get_run(child.run_id), client.get_run(parent)
    assert stored_child.data.tags["mlflow.parentRunId"] == parent
    assert (stored_child.info.run_name, stored_parent.info.run_name) == ("demo-ccrl", "demo")
    assert stored_child.info.status == stored_parent.info.status == "FINISHED"


def test_points_arrive_by_samples_seen(run, client):
    with tracker.start(run, "ccrl") as t:
        for samples in range(0, 120, 12):
            t.metrics({"train/ccrl/contrast": 1 / (samples + 1), "perf/samples_per_s": 40}, samples)
    assert steps(client, t.run_id, "train/ccrl/contrast") == list(range(0, 120, 12))
    assert stored.curves(run.tracking.uri, t.run_id)["train/ccrl/contrast"][1] == (12, pytest.approx(1 / 13))


def test_losses_that_are_not_numbers_are_kept_and_seen(run, client):
    with tracker.start(run, "ccrl") as t:
        t.metrics({"train/ccrl/contrast": float("nan"), "train/ccrl/sync": float("inf")}, 12)
    assert np.isnan(client.get_metric_history(t.run_id, "train/ccrl/contrast")[0].value)
    assert client.get_metric_history(t.run_id, "train/ccrl/sync")[0].value > 1e300


def test_a_resumed_job_continues_its_run_without_duplicate_points(run, client):
    with tracker.start(run, "ccrl") as t:
        for samples in range(0, 100, 10):
            t.metrics({"train/ccrl/contrast": samples}, samples)
            t.picture("attention", picture(samples), samples)
    again = tracker.start(run, "ccrl", resume_run_id=t.run_id, samples=60)
    assert again.run_id == t.run_id
    assert client.get_run(t.run_id).info.status == "RUNNING"
    for samples in range(60, 150, 10):  # the checkpoint was at 60: 60 to 90 come a second time
        again.metrics({"train/ccrl/contrast": samples}, samples)
        again.picture("attention", picture(samples), samples)
    again.finish()
    assert steps(client, t.run_id, "train/ccrl/contrast") == list(range(0, 150, 10))
    assert stored.pictures(client, t.run_id) == {("attention", samples) for samples in range(0, 150, 10)}
    assert len(client.list_artifacts(t.run_id, "images")) == 2 * 15
    found = client.get_run(t.run_id)
    assert found.data.tags["attempt"] == "2"
    assert "samples=60" in found.data.tags["attempt.2"]
    assert found.info.status == "FINISHED"


def test_points_left_in_the_spool_are_sent_by_the_resumed_run_once(run, client, monkeypatch):
    t = tracker.start(run, "ccrl")
    t.flush()
    real = t.client.log_batch
    monkeypatch.setattr(t.client, "log_batch", lambda *a, **k: (_ for _ in ()).throw(MlflowException("away")))
    for samples in range(0, 50, 10):
        t.metrics({"train/ccrl/contrast": samples}, samples)
    t.close(timeout=1.0)
    monkeypatch.setattr(t.client, "log_batch", real)
    assert "train/ccrl/contrast" not in client.get_run(t.run_id).data.metrics
    again = tracker.start(run, "ccrl", resume_run_id=t.run_id)
    for samples in range(0, 80, 10):  # from the very beginning, as without a checkpoint
        again.metrics({"train/ccrl/contrast": samples}, samples)
    again.finish()
    assert sorted(steps(client, t.run_id, "train/ccrl/contrast")) == list(range(0, 80, 10))


def test_leftovers_can_be_sent_without_training(run, client, monkeypatch):
    t = tracker.start(run, "ccrl")
    t.flush()
    monkeypatch.setattr(t.client, "log_batch", lambda *a, **k: (_ for _ in ()).throw(MlflowException("away")))
    t.metrics({"train/ccrl/contrast": 1.0}, 10)
    t.finish(timeout=1.0)
    assert client.get_run(t.run_id).info.status == "RUNNING"
    assert tracker.deliver_leftovers(run) == 0
    assert steps(client, t.run_id, "train/ccrl/contrast") == [10]
    assert client.get_run(t.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED"), (RuntimeError("loss is not finite"), "FAILED")],
)
def test_a_run_that_did_not_finish_says_so(run, client, error, status):
    t = tracker.start(run, "ccrl")
    with pytest.raises(type(error)), t:
        raise error
    found = client.get_run(t.run_id)
    assert found.info.status == status
    assert found.info.end_time
    if status == "FAILED":
        assert found.data.tags["end.reason"] == "RuntimeError: loss is not finite"


def test_the_reason_of_a_failure_holds_no_password(run, client):
    t = tracker.start(run, "ccrl")
    with pytest.raises(OSError, match="sesame"), t:
        raise OSError("cannot open s3://key:sesame@bucket/mead")
    assert "sesame" not in json.dumps(client.get_run(t.run_id).to_dictionary())


def test_the_resolved_configuration_is_there_as_parameters(run, client):
    with tracker.start(run, "ccrl") as t:
        pass
    params = client.get_run(t.run_id).data.params
    assert params["ccrl.optimizer.lr"] == str(run.ccrl.optimizer.lr)
    assert params["scaling.workers"] == str(run.scaling.workers)
    assert params["ccrl.form"] == "clean"


def test_a_changed_setting_of_a_resumed_run_becomes_a_tag(run, client):
    with tracker.start(run, "ccrl") as t:
        pass
    run.scaling.workers = 1
    with tracker.start(run, "ccrl", resume_run_id=t.run_id, samples=24):
        pass
    found = client.get_run(t.run_id).data
    assert found.params["scaling.workers"] == "2"
    assert found.tags["changed.scaling.workers"] == "2 -> 1"
    assert [(m.step, m.value) for m in client.get_metric_history(t.run_id, "run/workers")] == [(0, 2), (24, 1)]


def test_many_and_long_parameters_are_cut_to_what_the_store_takes(run, client):
    with tracker.start(run, "ccrl") as t:
        t.params({"many": {f"p{i}": i for i in range(250)}, "long": "x" * 7000})
        t.tags({"long": "y" * 9000})
    found = client.get_run(t.run_id).data
    assert found.params["many.p249"] == "249"
    assert len(found.params["long"]) == 6000
    assert found.params["long"].endswith("...")
    assert len(found.tags["long"]) == 5000


def test_secrets_reach_neither_parameters_nor_tags_nor_files(run, client, tmp_path):
    with tracker.start(run, "ccrl", tags={"source": "http://me:sesame@git/repo"}) as t:
        t.params({"server": {"uri": "http://me:sesame@host", "password": "sesame"}})
        t.settings("settings.json", {"server": {"uri": "http://me:sesame@host", "api_token": "sesame"}})
        t.dataset("mead", "ab" * 32, "https://me:sesame@host/mead", {"groups": 3})
    found = client.get_run(t.run_id)
    assert "sesame" not in json.dumps(found.to_dictionary())
    assert "sesame" not in str(found.inputs.dataset_inputs)
    text = (tmp_path / client.download_artifacts(t.run_id, "settings.json", str(tmp_path))).read_text()
    assert "sesame" not in text
    assert "host" in text


def test_the_data_set_is_named_by_its_digest(run, client):
    with tracker.start(run, "ccrl") as t:
        t.dataset("synthetic", "ab" * 32, "s3://bucket/synthetic", {"groups": 288, "recordings": 2016})
    data = client.get_run(t.run_id).inputs.dataset_inputs[0].dataset
    assert (data.name, data.source_type) == ("synthetic", "s3")
    assert ("ab" * 32).startswith(data.digest)
    assert json.loads(data.profile)["groups"] == 288


def test_the_run_says_what_produced_it(run, client):
    with tracker.start(run, "ccrl", tags={"git.commit": "0123abc"}) as t:
        pass
    tags = client.get_run(t.run_id).data.tags
    assert tags["git.commit"] == "0123abc"  # the driver's word wins over the worker's own look
    assert {"recipe", "seed", "host", "gpu", "python", "version.torch", "version.deepspeed", "version.ray"} <= set(tags)


def test_a_source_with_changes_is_marked(tmp_path):
    import subprocess

    def git(*words):
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words],
            check=True,
            capture_output=True,
        )

    assert environment.revision(tmp_path / "nowhere") == "unknown"
    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    clean = environment.revision(tmp_path)
    assert len(clean) == 40
    (tmp_path / "file").write_text("two")
    assert environment.revision(tmp_path) == f"{clean}+changes"


def test_the_headlines_of_its_jobs_can_be_compared_on_the_parents(run, client):
    parents = []
    own = [f"train/ccrl/loss_{letter}" for letter in "fedcba"]
    for workers in (1, 2):
        run.scaling.workers = workers
        parent = tracker.start_parent(run)
        for job in ("ccrl", "cerl"):
            with tracker.start(run, job, parent) as t:
                for samples in range(0, 60, 12):
                    t.metrics({f"train/{job}/contrast": samples, "perf/samples_per_s": 1}, samples)
                    t.metrics(dict.fromkeys(own if job == "ccrl" else ["train/guidance/ccrl/content"], 1.0), samples)
                t.metrics({f"val/{job}/contrast": 1.0}, 48)
                t.picture(f"{job}/attention", picture(), 48)
        tracker.finish_parent(run, parent)
        parents.append(parent)
    one, two = (client.get_run(parent).data for parent in parents)
    held_out = {"val/ccrl/contrast", "val/cerl/contrast"}
    first = {"train/ccrl/contrast", *own[: HEADLINES - 1], "train/cerl/contrast"}
    assert set(one.metrics) == set(two.metrics) == held_out | first | {"run/workers", "run/attempt"}
    for name in ("train/ccrl/contrast", "train/cerl/contrast"):
        assert steps(client, parents[0], name) == steps(client, parents[1], name) == list(range(0, 60, 12))
    assert [key for key in one.params if one.params[key] != two.params[key]] == ["scaling.workers"]
    assert stored.pictures(client, parents[0]) == {("ccrl/attention", 48), ("cerl/attention", 48)}


def test_a_resumed_job_keeps_the_headlines_that_its_parent_has(run, client):
    parent = tracker.start_parent(run)
    with tracker.start(run, "mine", parent, tags={"method": "ccrl"}) as t:
        t.metrics({f"train/ccrl/{n}": 1.0 for n in range(HEADLINES)}, 12)
    with tracker.start(run, "mine", parent, t.run_id, {"method": "ccrl"}) as t:
        t.metrics({"train/ccrl/late": 1.0, "train/ccrl/0": 2.0}, 24)
    found = {key for key in client.get_run(parent).data.metrics if key.startswith("train/")}
    assert found == {f"train/ccrl/{n}" for n in range(HEADLINES)}
    assert steps(client, parent, "train/ccrl/0") == [12, 24]


def test_files_and_tables_arrive(run, client, tmp_path):
    (tmp_path / "report.html").write_text("<html>")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with tracker.start(run, "ccrl") as t:
        t.artifact(tmp_path / "report.html")
        t.artifact(tmp_path / "model")
        t.table("figures", [{"figure": "auc", "value": 0.8}, {"figure": "top1", "low": 0.1}])
    assert {"report.html", "model", "figures.json"} <= {f.path for f in client.list_artifacts(t.run_id)}
    assert [f.path for f in client.list_artifacts(t.run_id, "model")] == ["model/config.json"]
    table = json.loads((tmp_path / client.download_artifacts(t.run_id, "figures.json", str(tmp_path))).read_text())
    assert table == {"columns": ["figure", "value", "low"], "data": [["auc", 0.8, None], ["top1", None, 0.1]]}
    assert json.loads(client.get_run(t.run_id).data.tags[TABLES_TAG]) == [{"path": "figures.json", "type": "table"}]
    with pytest.raises(FileNotFoundError, match=r"missing\.html"):
        t.artifact(tmp_path / "missing.html")


def test_names_and_pictures_the_store_would_refuse_are_refused_at_once(run):
    t = tracker.start(run, "ccrl")
    with pytest.raises(ValueError, match="metric name"):
        t.metrics({"train/loss{1}": 1.0}, 1)
    with pytest.raises(ValueError, match="uint8"):
        t.picture("attention", np.zeros((4, 4, 3)), 1)
    with pytest.raises(ValueError, match="picture key"):
        t.picture("what?", picture(), 1)
    with pytest.raises(ValueError, match="DONE"):
        t.finish("DONE")
    t.finish()


def test_final_figures_can_be_added_to_a_finished_run(run, client):
    with tracker.start(run, "ccrl") as t:
        pass
    late = tracker.attach(run, t.run_id)
    late.metrics({"priors/content/same_speech_auc": 0.83}, 7200)
    late.close()
    found = client.get_run(t.run_id)
    assert found.data.metrics["priors/content/same_speech_auc"] == 0.83
    assert found.info.status == "FINISHED"


def test_a_run_deleted_in_the_ui_is_brought_back_and_an_unknown_one_begins_anew(run, client, caplog):
    with tracker.start(run, "ccrl") as t:
        pass
    client.delete_run(t.run_id)
    with tracker.start(run, "ccrl", resume_run_id=t.run_id) as again:
        pass
    assert again.run_id == t.run_id
    assert client.get_run(t.run_id).info.lifecycle_stage == "active"
    with tracker.start(run, "ccrl", resume_run_id="f" * 32) as fresh:
        pass
    assert fresh.run_id != "f" * 32
    assert "a new MLflow run begins" in caplog.text


def test_with_tracking_off_every_call_does_nothing(run, tmp_path):
    run.tracking.uri = ""
    assert tracker.start_parent(run) == ""
    with tracker.start(run, "ccrl") as t:
        t.metrics({"train/loss": 1.0}, 1)
        t.picture("attention", picture(), 1)
        t.dataset("synthetic", "ab", "shards", {})
        t.params({"a": 1})
        t.tags({"a": 1})
        t.table("figures", [{"a": 1}])
        t.settings("run.json", {})
        t.secure()
        assert t.flush()
    tracker.finish_parent(run, "")
    assert tracker.deliver_leftovers(run) == 0
    assert not (tmp_path / "runs").exists()


def test_an_unreachable_store_stops_the_start_with_its_name_and_the_fix(run):
    run.tracking.uri = "http://me:sesame@127.0.0.1:9"
    with pytest.raises(TrackingUnavailable, match=r"127\.0\.0\.1:9.*--tracking\.uri sqlite:///") as caught:
        tracker.start_parent(run)
    assert "sesame" not in str(caught.value)


def test_a_run_and_its_experiment_say_what_they_are_and_a_persons_words_stay(run, client):
    run.data.shards = "s3://key:sesame@bucket/mead"
    with tracker.start(run, "ccrl") as t:
        t.flush()
    found = client.get_run(t.run_id)
    note = found.data.tags["mlflow.note.content"]
    assert "`recipes/cdrl_stage1.py`" in note
    assert "**ccrl** (clean): 700 steps of 12 samples" in note
    assert "cerl" not in note
    assert "sesame" not in note
    about = client.get_experiment(found.info.experiment_id).tags["mlflow.note.content"]
    assert "samples seen" in about
    client.set_tag(t.run_id, "mlflow.note.content", "mine")
    with tracker.start(run, "ccrl", resume_run_id=t.run_id) as t:
        t.flush()
    assert client.get_run(t.run_id).data.tags["mlflow.note.content"] == "mine"
