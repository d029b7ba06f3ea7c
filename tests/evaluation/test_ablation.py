"""Arms against a baseline: known effects are found, chance is called noise, and the recipe goes from shards to the table."""

import json

import numpy as np
import pytest
from documented import words_of
from doors import command, well
from toy_stage2 import save_priors

from spfem_dist.config import Data
from spfem_dist.evaluation.ablation import effects, interval, read_scores, write
from spfem_dist.evaluation.compare import write_edits
from spfem_dist.evaluation.generator import ClipScore
from spfem_dist.streaming.reader import ShardReader

RECIPE = "python recipes/ablation.py --priors runs/cdrl-stage1 --judges runs/judges"


def scores(arm, seed, gain=0.0, clips=24, noise=0.02, figure="emotion_accuracy"):
    """Clips of different difficulty; `gain` is what the arm adds to each, `noise` what a clip of a seed differs by."""
    difficulty = np.random.default_rng(7).uniform(0.2, 0.7, clips)
    drawn = np.random.default_rng([seed, len(arm)]).normal(0, noise, clips)
    return [
        ClipScore(arm, "intra", f"S{i:02d}", "happy", "r", {figure: difficulty[i] + gain + drawn[i], "jitter": 1.0})
        for i in range(clips)
    ]


def runs_of(seeds=(0, 1, 2), **gains):
    return {(arm, seed): scores(arm, seed, gain) for arm, gain in ({"baseline": 0.0} | gains).items() for seed in seeds}


def test_an_effect_far_smaller_than_the_spread_of_clips_is_found_in_pairs():
    (effect,) = effects(runs_of(both=0.05))
    assert (effect.arm, effect.figure, effect.verdict) == ("both", "emotion_accuracy", "better")
    assert effect.difference.value == pytest.approx(0.05, abs=0.01)
    assert effect.difference.low > 0
    assert effect.value - effect.baseline == pytest.approx(effect.difference.value)


def test_an_arm_that_adds_nothing_is_noise_and_one_that_harms_is_worse():
    found = {effect.arm: effect.verdict for effect in effects(runs_of(content=0.0, emotion=-0.05))}
    assert found == {"content": "noise", "emotion": "worse"}


def test_less_is_better_where_the_figure_says_so():
    runs = {(arm, 0): scores(arm, 0, gain, figure="mouth_distance") for arm, gain in (("baseline", 0), ("both", -0.05))}
    assert effects(runs)[0].verdict == "better"


def test_seeds_that_disagree_make_noise_of_what_one_seed_calls_an_effect():
    alone = {(arm, 0): scores(arm, 0, gain) for arm, gain in (("baseline", 0.0), ("both", 0.1))}
    assert effects(alone)[0].verdict == "better"
    other = {(arm, 1): scores(arm, 1, gain) for arm, gain in (("baseline", 0.0), ("both", -0.08))}
    assert effects(alone | other)[0].verdict == "noise"


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        table = 0.1 + rng.normal(0, 0.1, (1, 40))
        found = interval(table, draws=500)
        hits += found.low <= 0.1 <= found.high
    assert 180 <= hits <= 199


def test_only_clips_of_all_runs_count():
    runs = runs_of(both=0.05)
    runs["both", 2] = runs["both", 2][:10]
    assert effects(runs)[0].difference.clips == 10


@pytest.mark.parametrize(
    ("runs", "phrase"),
    [
        ({("both", 0): scores("both", 0)}, "no run of the arm 'baseline'"),
        ({("baseline", 0): scores("baseline", 0), ("both", 1): scores("both", 1)}, "share no seed"),
        ({("baseline", 0): scores("baseline", 0), ("both", 0): []}, "edited no clip in common"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs, phrase):
    with pytest.raises(ValueError, match=phrase):
        effects(runs)


def test_runs_of_other_judges_are_refused(tmp_path):
    for arm, judges in (("baseline", "a"), ("both", "b")):
        (tmp_path / arm).mkdir()
        write_edits(str(tmp_path / arm), scores(arm, 0), {"judges": judges})
    with pytest.raises(ValueError, match=r"was scored with judges 'b', .* with 'a': score all runs alike"):
        read_scores({(arm, 0): str(tmp_path / arm) for arm in ("baseline", "both")})
    with pytest.raises(ValueError, match="was not scored as 'content': spfem evaluate generator"):
        read_scores({("content", 0): str(tmp_path / "both")})


def test_the_table_is_written_for_people_and_for_programs(tmp_path):
    runs = runs_of(both=0.05)
    write(str(tmp_path), effects(runs), {key: f"runs/ablation-{key[0]}-{key[1]}" for key in runs})
    assert "| both | emotion_accuracy |" in (tmp_path / "ablation.md").read_text()
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert content["seeds"] == [0, 1, 2]
    assert content["effects"][0]["verdict"] == "better"
    assert content["runs"]["both/2"] == "runs/ablation-both-2"


@pytest.mark.nightly
def test_the_recipe_trains_scores_and_compares_arms(small_corpus, brief, judges_run, tmp_path):
    shards, split = small_corpus
    data = Data(shards=str(shards), split=str(split), size=32)
    save_priors(tmp_path / "stage1", data, ShardReader.of(data).index.feature_dim)
    places = {"runs/cdrl-stage1": tmp_path / "stage1", "runs/judges": judges_run[0]}
    words = ["--seeds", "0", "--arms", "both", "--local", "--protocol", brief, "--data.shards", shards]
    words += ["--data.split", split, "--data.size", "32", "--ned.steps", "2", "--ned.global-batch", "2"]
    words += ["--checkpoint.storage", tmp_path / "runs", "--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db"]
    words += ["--validation.every-steps", "0", "--tracking.pictures-every-steps", "0"]
    done = well(command(*words_of(RECIPE, places, *words)))
    assert "arms against the baseline" in done.said
    found = json.loads((tmp_path / "runs" / "ablation.json").read_text())["effects"]
    assert {effect["arm"] for effect in found} == {"both"}
    assert len(found) > 10

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("ablation")
    found = client.search_runs([experiment.experiment_id])
    params = {r.info.run_name: r.data.params for r in found}
    assert params["ablation-baseline-0-ned"]["ned.guidance.cerl"] == "0.0"
    assert params["ablation-both-0-ned"]["ned.guidance.cerl"] != "0.0"
    parent = next(r.info.run_id for r in found if r.info.run_name == "ablation-both-0")
    assert {"report.html", "summary.json", "clips"} <= {f.path for f in client.list_artifacts(parent)}
    clips = [f for f in client.list_artifacts(parent, "clips") if f.path.endswith(".mp4")]
    assert clips
    assert all(f.file_size > 1000 for f in clips)

    scored = (tmp_path / "runs" / "ablation-both-0" / "edits.json").stat().st_mtime_ns
    again = well(command(*words_of(RECIPE, places, *words)))
    assert again.said.count("already finished at step 2") == 2
    assert (tmp_path / "runs" / "ablation-both-0" / "edits.json").stat().st_mtime_ns == scored, "nothing is done twice"


def test_an_arm_that_nobody_knows_is_refused():
    done = command("python", "recipes/ablation.py", "--arms", "all", "--local")
    assert done.code == 2
    assert "--arms" in done.said
    assert "content" in done.said
