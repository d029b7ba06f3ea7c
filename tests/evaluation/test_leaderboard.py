"""Variants against a baseline: known effects are found, chance is called noise, and the recipe goes from shards to the page."""

import io
import json

import leaderboard as recipe
import numpy as np
import pytest
from documented import words_of
from doors import command, well
from rich.console import Console

from spfem_dist.corpora.splits import Split
from spfem_dist.evaluation import leaderboard as board
from spfem_dist.evaluation.compare import write_edits
from spfem_dist.evaluation.generator import ClipScore
from spfem_dist.evaluation.paired import effects, interval, read_scores
from spfem_dist.tracking.board import keep_board
from spfem_dist.tracking.store import flatten

RECIPE = "python recipes/leaderboard.py"


def scores(variant, seed, gain=0.0, clips=24, noise=0.02, figure="emotion_accuracy"):
    """Clips of different difficulty; `gain` is what the variant adds to each, `noise` what a clip of a seed differs by."""
    difficulty = np.random.default_rng(7).uniform(0.2, 0.7, clips)
    drawn = np.random.default_rng([seed, len(variant)]).normal(0, noise, clips)
    return [
        ClipScore(variant, "intra", f"S{i:02d}", "happy", "r", {figure: difficulty[i] + gain + drawn[i], "jitter": 1.0})
        for i in range(clips)
    ]


def runs_of(seeds=(0, 1, 2), **gains):
    return {
        (variant, seed): scores(variant, seed, gain)
        for variant, gain in ({"baseline": 0.0} | gains).items()
        for seed in seeds
    }


def test_an_effect_far_smaller_than_the_spread_of_clips_is_found_in_pairs():
    (effect,) = effects(runs_of(both=0.05))
    assert (effect.variant, effect.figure, effect.verdict) == ("both", "emotion_accuracy", "better")
    assert effect.difference.value == pytest.approx(0.05, abs=0.01)
    assert effect.difference.low > 0
    assert effect.value - effect.baseline == pytest.approx(effect.difference.value)


def test_a_variant_that_adds_nothing_is_noise_and_one_that_harms_is_worse():
    found = {effect.variant: effect.verdict for effect in effects(runs_of(content=0.0, emotion=-0.05))}
    assert found == {"content": "noise", "emotion": "worse"}


def test_less_is_better_where_the_figure_says_so():
    runs = {
        (variant, 0): scores(variant, 0, gain, figure="mouth_distance")
        for variant, gain in (("baseline", 0), ("both", -0.05))
    }
    assert effects(runs)[0].verdict == "better"


def test_seeds_that_disagree_make_noise_of_what_one_seed_calls_an_effect():
    alone = {(variant, 0): scores(variant, 0, gain) for variant, gain in (("baseline", 0.0), ("both", 0.1))}
    assert effects(alone)[0].verdict == "better"
    other = {(variant, 1): scores(variant, 1, gain) for variant, gain in (("baseline", 0.0), ("both", -0.08))}
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
        ({("both", 0): scores("both", 0)}, "no run of the variant 'baseline'"),
        ({("baseline", 0): scores("baseline", 0), ("both", 1): scores("both", 1)}, "share no seed"),
        ({("baseline", 0): scores("baseline", 0), ("both", 0): []}, "edited no clip in common"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs, phrase):
    with pytest.raises(ValueError, match=phrase):
        effects(runs)


def test_runs_of_other_judges_are_refused(tmp_path):
    for variant, judges in (("baseline", "a"), ("both", "b")):
        (tmp_path / variant).mkdir()
        write_edits(str(tmp_path / variant), scores(variant, 0), {"judges": judges})
    with pytest.raises(ValueError, match=r"was scored with judges 'b', .* with 'a': score all runs alike"):
        read_scores({(variant, 0): str(tmp_path / variant) for variant in ("baseline", "both")})
    with pytest.raises(ValueError, match="was not scored as 'content': spfem evaluate generator"):
        read_scores({("content", 0): str(tmp_path / "both")})


CLAIMS = (
    board.Claim("both helps", "both", ("emotion_accuracy",)),
    board.Claim("content helps", "content", ("emotion_accuracy",)),
)
VARIANTS = {"baseline": (), "both": ("a", "b"), "content": ("a",)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A board of two regimes: `both` helps in both, by more in the second."""
    storage = tmp_path_factory.mktemp("board")
    runs = {}
    for regime, gain in (("residual", 0.05), ("absolute", 0.25)):
        for (variant, seed), found in runs_of(both=gain, content=0.0).items():
            folder = storage / f"board-{regime}-{variant}-{seed}"
            folder.mkdir()
            rows = [
                ClipScore(
                    row, s.reference_identity, s.source, s.emotion, "r", {"emotion_accuracy": value, "jitter": 1.0}
                )
                for s in found
                for row, value in (("copy", 0.02), ("target", 0.96))
            ]
            write_edits(str(folder), [*found, *rows], {"judges": "j", "sentences": 3})
            fad = 0.3 if variant == "baseline" else 0.2
            (folder / "summary.json").write_text(json.dumps({"stage2": {variant: {"fad": fad + seed / 100}}}))
            runs[regime, variant, seed] = str(folder)
    return board.board_of(
        runs, VARIANTS, CLAIMS, {"machine": "2 cores & <more>"}, {("residual", "both", 0): {"a": 0.25}}
    )


def test_every_number_lies_where_a_program_finds_it(made):
    found = board.as_json(made)
    cell = found["absolute"]["both"]["emotion_accuracy"]
    assert cell["difference"] == pytest.approx(0.25, abs=0.02)
    assert cell["low"] < cell["difference"] < cell["high"]
    assert cell["verdict"] == "better"
    assert found["residual"]["content"]["emotion_accuracy"]["verdict"] == "noise"
    assert found["residual"]["both"]["fad"]["difference"] == pytest.approx(-0.1), "of whole runs, paired by seed"
    assert found["claims"] == {
        "both helps": {"residual": True, "absolute": True},
        "content helps": {"residual": False, "absolute": False},
    }
    assert found["rows"]["residual"]["target"]["emotion_accuracy"] == pytest.approx(0.96)


def test_the_page_says_what_holds_and_plays_clips(made, tmp_path):
    files = board.write(tmp_path, made, {("absolute", "happy"): (("source", "both"), b"film")})
    text, page = ((tmp_path / name).read_text() for name in ("leaderboard.md", "leaderboard.html"))
    assert "* both helps: **yes** (emotion_accuracy +0.2" in text
    assert "* content helps: **not shown**" in text
    assert "| both (a + b) | **+0.2" in text
    assert "residual, both, seed 0: a 0.25" in text
    assert page.count("data:video/mp4;base64,ZmlsbQ==") == 1
    assert "2 cores &amp; &lt;more&gt;" in page
    assert "https://" not in page
    assert [file.name for file in files] == ["leaderboard.md", "leaderboard.json", "leaderboard.html"]


def test_the_table_in_the_terminal_fits_eighty_columns(made):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(board.shown_table(made, "absolute"))
    assert "…" not in console.export_text()


def test_a_board_written_again_goes_on_in_its_own_run(made, tmp_path):
    from mlflow import MlflowClient

    from spfem_dist.config import Tracking

    tracking = Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "leaderboard.md").write_text("page")
    for _ in range(2):
        keep_board(tracking, "leaderboard", board.as_json(made), [tmp_path / "leaderboard.md"])
    client = MlflowClient(tracking.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("leaderboard").experiment_id])
    assert run.data.metrics["absolute/both/emotion_accuracy"] == pytest.approx(0.25, abs=0.02)
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["leaderboard.md"]


def test_the_documentation_holds_the_frame_until_a_board_is_made():
    assert "No board has been made with this version yet" in board.as_markdown(None)


def settings_of(run):
    return {k: v for k, v in flatten(run.model_dump(mode="json")).items() if k != "name"}


def test_variants_of_a_regime_and_seed_differ_in_their_priors_alone(tmp_path):
    asked = recipe.Leaderboard()
    asked.run.checkpoint.storage = str(tmp_path)
    baseline, both = (settings_of(recipe.run_of(asked, "absolute", variant, 1)) for variant in ("baseline", "cdrl"))
    assert {key for key in baseline if baseline[key] != both[key]} == {"priors"}
    assert both["priors"] == [f"{tmp_path}/board-ccrl-1", f"{tmp_path}/board-cerl-1"]
    assert baseline["pretrained"] == f"{tmp_path}/board-absolute-pretraining-1"
    assert baseline["ned.regime"] == "absolute"


def test_every_seed_has_a_stage_one_on_speakers_whom_the_generator_never_sees():
    asked = recipe.Leaderboard()
    stage1 = [recipe.prior_run(asked, "ccrl", seed) for seed in asked.seeds]
    assert [(run.seed, run.ccrl.enabled, list(run.jobs())) for run in stage1] == [
        (s, True, ["ccrl"]) for s in (0, 1, 2)
    ]
    learnt = [
        Split.of(run.data).part("train").speakers for run in (stage1[0], recipe.run_of(asked, "residual", "ccrl", 0))
    ]
    assert learnt[0]
    assert learnt[1]
    assert not learnt[0] & learnt[1]


def test_parts_that_several_variants_need_are_done_once():
    asked, console = recipe.Leaderboard(variants=("ccrl", "cdrl")), Console(quiet=True)
    chosen = recipe.chosen_variants(asked.variants, console)
    parts = list(recipe.parts_of(asked, chosen, 0, recipe.Panel(asked), 3, console))
    kinds = [part.kind for part in parts]
    assert {kind: kinds.count(kind) for kind in kinds} == {"prior": 2, "pretraining": 2, "guided": 6, "score": 6}


def test_the_second_generator_has_the_rows_of_the_papers(tmp_path):
    asked, console = recipe.Leaderboard(regimes=("icface",), budget="smoke"), Console(quiet=True)
    asked.run.checkpoint.storage = str(tmp_path)
    chosen = recipe.chosen_variants(recipe.OF_ICFACE, console)
    names = [part.name for part in recipe.parts_of(asked, chosen, 1, recipe.Panel(asked), 1, console)]
    guided = [f"board-icface-{variant}-1" for variant in ("baseline", "asccl", "stccl_vd", "cdrl")]
    assert [name for name in names if name.startswith("board-icface")] == ["board-icface-pretraining-1", *guided]
    assert {f"board-{kind}-1" for kind in ("ccrl", "cerl", "asccl", "stccl_vd")} <= set(names)
    baseline, both = (recipe.run_of(asked, "icface", variant, 1) for variant in ("baseline", "cdrl"))
    assert {k for k, v in settings_of(baseline).items() if v != settings_of(both)[k]} == {"priors"}
    assert both.pretrained == f"{tmp_path}/board-icface-pretraining-1"
    assert (both.icface.steps, both.data) == (2, asked.run.absolute().data)
    assert recipe.rows(recipe.Leaderboard(), "residual", recipe.VARIANTS) == list(recipe.VARIANTS)
    assert set(recipe.rows(recipe.Leaderboard(), "icface", recipe.VARIANTS)) == set(recipe.OF_ICFACE)


def test_a_part_that_was_done_here_says_how_long_the_others_take(tmp_path):
    part = recipe.Part("guided", 200, "a run", lambda: False, lambda: None)
    clock = recipe.Clock(str(tmp_path), recipe.SECONDS)
    guessed = clock.hours([part] * 3600)
    clock.time(part)
    assert recipe.Clock(str(tmp_path), recipe.SECONDS).hours([part] * 3600) < guessed / 10


@pytest.mark.nightly
def test_the_recipe_goes_from_shards_to_the_page_and_does_nothing_twice(small_corpus, brief, judges_run, tmp_path):
    shards, split = small_corpus
    words = [
        "--budget",
        "smoke",
        "--seeds",
        "0",
        "--variants",
        "ccrl",
        "--judges",
        judges_run[0],
        "--local",
        "--protocol",
        brief,
    ]
    words += ["--data.shards", shards, "--data.split", split, "--data.size", "32", "--ned.global-batch", "2"]
    words += ["--data.speakers", "S00", "S01", "--prior-speakers", "S00", "S01", "--out", tmp_path / "out"]
    words += ["--checkpoint.storage", tmp_path / "runs", "--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db"]
    words += ["--validation.every-steps", "0", "--tracking.pictures-every-steps", "0"]
    done = well(command(*words_of(RECIPE, {}, *words)))
    assert "11 of 11 parts to do, about" in done.said
    found = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert {"difference", "low", "high"} <= set(found["absolute"]["ccrl"]["mouth_error_over_copy"])
    assert set(found["residual"]) == {"ccrl"}
    assert {"copy", "target", "upper_bound"} <= set(found["rows"]["residual"])
    assert (tmp_path / "out" / "leaderboard.html").read_text().count("<video") == 4

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("leaderboard").experiment_id])
    names = {run.info.run_name for run in runs}
    assert {"leaderboard", "board-ccrl-0", "board-residual-pretraining-0", "board-absolute-ccrl-0"} <= names
    scored = (tmp_path / "runs" / "board-absolute-ccrl-0" / "edits.json").stat().st_mtime_ns
    again = well(command(*words_of(RECIPE, {}, *words)))
    assert "0 of 11 parts to do" in again.said
    assert (tmp_path / "runs" / "board-absolute-ccrl-0" / "edits.json").stat().st_mtime_ns == scored


def test_a_variant_that_nobody_knows_or_whose_prior_has_no_room_is_refused(tmp_path):
    for variant, phrase in (("everything", "there is no variant everything: there are baseline, ccrl"),):
        done = command("python", "recipes/leaderboard.py", "--variants", variant, "--checkpoint.storage", tmp_path)
        assert done.code == 1
        assert phrase in done.said
        assert "Traceback" not in done.err
