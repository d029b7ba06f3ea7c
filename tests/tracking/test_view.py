"""What a run leaves in the store for a person: its configuration to give back, and a view of the experiment to look at first."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from cdrl_stage1 import CDRLPriors
from cdrl_stage2 import CDRLGenerator
from mlflow.artifacts import download_artifacts

from spfem_dist.tracking import environment, tracker, view
from spfem_dist.training.launch import parse, recipe_at


def state(client, run):
    tags = client.get_experiment_by_name(run.tracking.experiment).tags
    return view.unpacked(json.loads(tags[view.TAG])["state"])


def trained(run, *metrics):
    parent = tracker.start_parent(run)
    with tracker.start(run, "ccrl", parent) as t:
        t.metrics(dict.fromkeys(metrics, 1.0), 12)
    tracker.finish_parent(run, parent)
    return parent


def test_the_view_has_a_chart_for_each_loss_with_samples_on_its_axis(run, client):
    trained(run, "train/ccrl/contrast", "val/ccrl/contrast", "train/ccrl/sync", "train/learning_rate", "perf/memory_gb")
    found = state(client, run)
    assert list(view.charted(found)) == ["train/ccrl/contrast", "val/ccrl/contrast", "train/ccrl/sync"]
    shown = [chart for chart in found["compareRunCharts"] if not chart["deleted"]]
    assert {chart["xAxisKey"] for chart in shown if chart["type"] == "LINE"} == {"step"}
    sections = {section["uuid"]: section["name"] for section in found["compareRunSections"]}
    assert set(sections.values()) == {"ccrl: losses by samples seen", "What sets the runs apart"}
    assert all(chart["metricSectionId"] in sections for chart in found["compareRunCharts"])
    # Of its own accord the UI would add a second chart for what is held out.
    assert [chart["metricKey"] for chart in found["compareRunCharts"] if chart["deleted"]] == ["val/ccrl/contrast"]


def test_the_view_grows_with_the_runs_of_the_experiment(run, client):
    trained(run, "train/ccrl/contrast")
    run.name = "other"
    parent = trained(run, "train/ccrl/sync")
    assert list(view.charted(state(client, run))) == ["train/ccrl/contrast", "train/ccrl/sync"]
    late = tracker.attach(run, parent)
    late.metrics({"priors/content/same_speech_auc": 0.8}, 12)
    late.flush()
    tracker.keep_view(late)
    late.close()
    assert list(view.charted(state(client, run)))[-1] == "priors/content/same_speech_auc"


def test_the_view_shows_each_picture_at_its_last_step(run, client):
    parent = tracker.start_parent(run)
    with tracker.start(run, "ccrl", parent) as t:
        for samples in (12, 24):
            t.picture("ccrl/attention", np.zeros((8, 8, 3), np.uint8), samples)
    tracker.finish_parent(run, parent)
    found = state(client, run)
    assert view.charted(found, "imageKeys") == {"ccrl/attention": 24}
    assert [chart["showRunParams"] for chart in found["compareRunCharts"] if chart["type"] == "IMAGE"] == [False]


def test_a_view_that_a_person_saved_over_stays(run, client):
    trained(run, "train/ccrl/contrast")
    experiment = client.get_experiment_by_name(run.tracking.experiment)
    kept = json.loads(experiment.tags[view.TAG])
    mine = json.dumps(kept | {"updatedAt": kept["createdAt"] + 1, "state": "deflate;eJyrrgUAAXUA+Q=="})
    client.set_experiment_tag(experiment.experiment_id, view.TAG, mine)
    run.name = "other"
    trained(run, "train/ccrl/sync")
    assert client.get_experiment_by_name(run.tracking.experiment).tags[view.TAG] == mine


def test_a_tag_that_is_no_view_disturbs_no_run(run, client):
    trained(run, "train/ccrl/contrast")
    experiment = client.get_experiment_by_name(run.tracking.experiment)
    client.set_experiment_tag(experiment.experiment_id, view.TAG, "what?")
    run.name = "other"
    assert client.get_run(trained(run, "train/ccrl/sync")).info.status == "FINISHED"


def test_the_parent_names_the_data_too(run, client):
    parent = tracker.start_parent(run)
    with tracker.start(run, "ccrl", parent) as t:
        t.dataset("synthetic", "ab", "shards/synthetic", {"groups": 4})
    assert [entry.dataset.name for entry in client.get_run(parent).inputs.dataset_inputs] == ["synthetic"]


@pytest.mark.parametrize("made", [CDRLPriors(), CDRLGenerator(priors=("runs/a b", "models:/cerl@champion"))])
def test_the_kept_command_starts_the_same_run(made):
    run = made.absolute()
    run.scaling.workers, run.tracking.uri, run.data.maximum_warp_cost = (1, 3), "http://me:sesame@host:5000", 0.25
    words = shlex.split(environment.command(run).replace("\\\n", " "))
    assert words[0] == "python"
    assert "sesame" not in " ".join(words)
    recipe, _stage = recipe_at(words[1])
    run.tracking.uri = "http://host:5000"
    assert parse(recipe, words[2:]).run.model_dump() == run.model_dump()


def test_the_configuration_is_kept_as_files(run, client, tmp_path):
    with tracker.start(run, "ccrl") as t:
        pass
    uri = {"run_id": t.run_id, "tracking_uri": run.tracking.uri, "dst_path": str(tmp_path)}
    kept = json.loads(Path(download_artifacts(artifact_path="run.json", **uri)).read_text())
    assert CDRLPriors.model_validate(kept) == run
    assert "--ccrl.optimizer.lr" in Path(download_artifacts(artifact_path="command.sh", **uri)).read_text()


def test_runs_that_are_compared_have_different_colours(run, client):
    colours = [client.get_run(tracker.start_parent(run)).data.tags[view.COLOR] for _ in range(3)]
    assert len(set(colours)) == 3
