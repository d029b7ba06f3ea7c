"""A generator's figures: the copy scores as the copy, the true target as the target, and differences are paired."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from fake_generators import Copy, Ideal
from rich.console import Console

from spfem_dist.config import Data, Run, Tracking
from spfem_dist.evaluation import evaluation_set as sets
from spfem_dist.evaluation.compare import compare, comparison_table, read_edits, verdict, write_edits
from spfem_dist.evaluation.distances import frechet_distance
from spfem_dist.evaluation.edit_report import shown_figures
from spfem_dist.evaluation.evaluation_set import evaluation_set
from spfem_dist.evaluation.film import beside, filmed
from spfem_dist.evaluation.generator import ClipScore, generator_figures
from spfem_dist.evaluation.generator_runs import evaluate, evaluate_generator
from spfem_dist.evaluation.report import read_summary
from spfem_dist.evaluation.retrieval import Estimate


def run_of(small_corpus, **changes):
    shards, split = small_corpus
    return Run(
        name="ned", data=Data(shards=str(shards), split=str(split), size=32, **changes), tracking=Tracking(uri="")
    )


def score(row, emotion="happy", source="S20_11/neutral-1-1", reference_identity="intra", features=None, **values):
    features = np.zeros((0, 1)) if features is None else features
    return ClipScore(row, reference_identity, source, emotion, "S21_12/happy-1-1", values, features)


# --- figures from scores ------------------------------------------------------------------------------------------


def test_a_clip_edited_both_ways_counts_once_and_each_way_has_its_own_figure():
    scores = [score("both", reference_identity=w, identity=v) for w, v in (("intra", 0.6), ("cross", 0.8))]
    figures = generator_figures(scores)
    assert (figures["stage2/both/identity"].value, figures["stage2/both/identity"].clips) == (pytest.approx(0.7), 1)
    assert figures["stage2/both/cross/identity"].value == pytest.approx(0.8)
    assert figures["stage2/both/by_emotion/happy/identity"].value == pytest.approx(0.7)
    assert figures["stage2/both/intra/by_emotion/happy/identity"].value == pytest.approx(0.6)


def test_the_difference_to_the_copy_is_paired_clip_by_clip():
    scores = []
    for n, base in enumerate((0.1, 0.5, 0.9)):
        scores += [
            score("copy", source=f"S{n}", mouth_corr=base),
            score("both", source=f"S{n}", mouth_corr=base + 0.05),
        ]
    figure = generator_figures(scores)["stage2/both/mouth_corr_minus_copy"]
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.05, 0.05, 0.05))


def test_fad_is_the_frechet_distance_over_all_clips_of_an_emotion():
    rng = np.random.default_rng(0)
    real = {(s, "happy"): rng.standard_normal((200, 4)) for s in ("S0", "S1")}
    drawn = {s: rng.standard_normal((150, 4)) * 1.5 + 0.3 for s in ("S0", "S1")}
    figures = generator_figures([score("both", source=s, features=f, identity=1.0) for s, f in drawn.items()], real)
    expected = frechet_distance(np.concatenate(list(real.values())), np.concatenate(list(drawn.values())))
    assert figures["stage2/both/by_emotion/happy/fad"].value == pytest.approx(expected, rel=1e-6)
    fad = figures["stage2/both/fad"]
    assert fad.low < fad.value < fad.high


def test_a_score_that_no_clip_has_gives_no_figure():
    assert "stage2/both/psnr" not in generator_figures([score("both", identity=1.0)])


# --- evaluation ---------------------------------------------------------------------------------------------------


def evaluated(corpus, generator, judges, variant, by="reference", protocol="", **options):
    run = run_of(corpus)
    tests = evaluation_set(run.data, judges, generator.size, protocol=protocol)
    return evaluate(run, generator, tests, variant, by, **options)


@pytest.fixture(scope="module")
def ideal(small_corpus, judges):
    return evaluated(small_corpus, Ideal(small_corpus[0]), judges, "ideal").figures


def test_a_generator_that_draws_the_true_target_scores_as_the_target(ideal):
    names = ("emotion_accuracy", "mouth_corr", "identity", "csim", "lse_d", "changed_error", "jitter", "fad")
    for name in (*names, "mouth_error", "width_corr", "width_corr_exact", "viseme_r2", "viseme_r2_exact"):
        found, wanted = (ideal[f"stage2/{row}/{name}"].value for row in ("ideal", "target"))
        assert found == pytest.approx(wanted, abs=1e-5), name
    assert ideal["stage2/ideal/changed_error_over_copy"].value == 0
    assert ideal["stage2/ideal/mouth_error_over_copy"].value == 0
    assert ideal["stage2/ideal/width_corr_exact"].value == pytest.approx(1)
    assert ideal["stage2/ideal/ssim"].value == pytest.approx(1)


def test_the_copy_row_is_one_in_units_of_the_copy_and_misses_the_target(ideal):
    assert ideal["stage2/copy/changed_error_over_copy"].value == pytest.approx(1)
    assert ideal["stage2/copy/mouth_error_over_copy"].value == pytest.approx(1)
    assert ideal["stage2/copy/jitter"].value == pytest.approx(1)
    assert ideal["stage2/copy/changed_error"].value > 12
    assert 0 < ideal["stage2/copy/psnr"].value < 40
    assert not any(name.startswith("stage2/copy") and name.endswith("_minus_copy") for name in ideal)


def test_the_upper_bound_is_drawn_from_the_true_targets_landmarks(ideal):
    """The ideal generator finds its frames by the landmarks alone: with the true ones it draws the truth."""
    for name in ("changed_error_over_copy", "mouth_error_over_copy"):
        assert ideal[f"stage2/upper_bound/{name}"].value == 0, name
    assert ideal["stage2/upper_bound/emotion_accuracy"].value == ideal["stage2/target/emotion_accuracy"].value


def test_the_figures_of_the_judges_stand_beside(ideal):
    assert "oracle/emotion_accuracy" in ideal
    assert "oracle/mouth_opening_corr" in ideal
    assert ideal["stage2/real/csim"].value <= 1


def test_driven_by_name_every_clip_is_edited_once(small_corpus, judges, brief):
    found = evaluated(small_corpus, Copy(), judges, "both", by="emotion", protocol=brief)
    assert {s.reference_identity for s in found.scores} == {"label"}
    assert found.facts["clips"] == 4  # two speakers, two emotions


def test_on_recorded_corpora_the_target_is_a_real_recording_and_no_truth_is_claimed(
    small_corpus, judges, brief, monkeypatch
):
    monkeypatch.setattr(sets, "rendered_corpus", lambda source, size: None)
    found = evaluated(small_corpus, Copy(), judges, "both", protocol=brief)
    figures = found.figures
    assert not any(
        name.split("/")[-1] in ("psnr", "changed_error_over_copy", "mouth_error_over_copy", "width_corr", "viseme_r2")
        for name in figures
    )
    assert not any(name.startswith("stage2/upper_bound") for name in figures)
    assert {"emotion_accuracy", "csim", "identity", "lse_d"} <= {
        name.split("/")[-1] for name in figures if name.startswith("stage2/target/")
    }
    assert "stage2/target/mouth_corr" not in figures
    assert "stage2/target/fad" not in figures
    assert figures["stage2/both/mouth_corr_minus_copy"].value == 0
    assert all(shown.target is None for shown in found.shown)


def test_a_variant_cannot_take_the_name_of_a_row(small_corpus, judges):
    with pytest.raises(ValueError, match="a variant cannot be called 'copy'"):
        evaluated(small_corpus, Copy(), judges, "copy")


def test_many_generators_are_scored_on_clips_that_were_judged_once(small_corpus, judges, brief, monkeypatch):
    run = run_of(small_corpus)
    tests = evaluation_set(run.data, judges, Copy.size, protocol=brief)
    first = evaluate(run, Copy(), tests, "both")
    alone = evaluated(small_corpus, Copy(), judges, "both", protocol=brief)
    monkeypatch.setattr(tests, "truth", None)  # a second generator asks for no target again
    again = evaluate(run, Copy(), tests, "both", upper_bound=False)
    assert {score.row for score in again.scores} == {"both", "copy", "target"}
    for other in (alone, again):
        shared = [(s.row, s.clip, s.values) for s in first.scores if s.row != "upper_bound"]
        assert shared == [(s.row, s.clip, s.values) for s in other.scores if s.row != "upper_bound"]


def test_a_generator_of_other_landmarks_is_refused(small_corpus, judges):
    class Mesh(Copy):
        topology = "mesh468"

    with pytest.raises(ValueError, match="the generator was trained on mesh468"):
        evaluated(small_corpus, Mesh(), judges, "both")


# --- what is written ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(small_corpus, judges, brief, tmp_path_factory):
    """Two evaluated run folders: one generator that copies, one that is ideal."""
    folders = {}
    for name, generator in (("copying", Copy()), ("ideal", Ideal(small_corpus[0]))):
        folder = tmp_path_factory.mktemp(name)
        (folder / "run.json").write_text(json.dumps(run_of(small_corpus).model_dump(mode="json") | {"stage_two": 1}))
        (folder / "summary.json").write_text(json.dumps({"training": {"loss": 0.5}, "stage2": {"both": {"old": 1.0}}}))
        evaluate_generator(str(folder), "both", judges, generator, protocol=brief, console=Console(quiet=True))
        folders[name] = str(folder)
    return folders


def test_the_summary_keeps_what_others_wrote_and_forgets_an_older_evaluation(runs):
    figures = read_summary(f"{runs['ideal']}/summary.json")
    assert figures["training/loss"] == 0.5
    assert "stage2/both/old" not in figures
    assert isinstance(figures["stage2/both/emotion_accuracy"], Estimate)
    assert figures["stage2/both/changed_error_over_copy"].value == 0


def test_the_report_plays_clips_and_says_who_judged(runs, judges):
    page = Path(runs["ideal"], "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == 2
    assert judges.digest in page
    assert "Reference: cross-identity" in page
    assert page.index("By emotion") < page.index("Clips") < page.index("Reference: cross-identity")
    assert "http://" not in page
    assert "https://" not in page


def test_each_emotion_has_a_bar_so_that_a_weak_one_does_not_hide_behind_the_mean(runs):
    summary = json.loads(Path(runs["copying"], "summary.json").read_text())
    facts = summary["facts"]["stage2"]["both"]
    by_emotion = {
        name.split("/")[1]: bar["met"] for name, bar in facts["bars"].items() if "/" in name and "by_" in name
    }
    assert by_emotion, "there are emotions"
    assert not any(by_emotion.values()), "who changes nothing shows none of them"
    assert all(emotion in facts["verdict"] for emotion in by_emotion)
    table = Console(width=80, record=True, file=io.StringIO())
    table.print(shown_figures(read_summary(f"{runs['copying']}/summary.json"), "both"))
    text = table.export_text()
    assert all(f"{emotion}: shown" in text for emotion in by_emotion)
    assert "changed_error_over_copy" in text, "no name is broken at 80 columns"
    assert "…" not in text, "no number is cut"
    assert "<= 0.58 missed" in text
    assert "upper" in text, "what a perfect motion would give stands beside"


def test_a_run_that_is_better_is_called_better_and_the_other_worse(runs):
    found = compare(runs["ideal"], runs["copying"])
    back = compare(runs["copying"], runs["ideal"])
    assert found["changed_error_over_copy"].verdict == "better"
    assert back["changed_error_over_copy"].verdict == "worse"
    assert found["changed_error_over_copy"].difference.value == pytest.approx(-1)
    assert comparison_table(found, "a", "b").row_count == len(found)


def test_a_run_is_compared_with_its_own_rows_and_not_with_itself(runs):
    same = compare(runs["copying"], runs["copying"], against="copy")
    assert {d.verdict for d in same.values()} == {"noise"}
    with pytest.raises(ValueError, match="cannot be compared with itself"):
        compare(runs["ideal"], runs["ideal"])
    with pytest.raises(ValueError, match="has no variant 'content'"):
        compare(runs["ideal"], runs["copying"], variant="content")


def test_runs_of_different_judges_are_not_compared(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_edits(str(tmp_path / name), [score("both", identity=1.0)], {"judges": name})
    with pytest.raises(ValueError, match="evaluate both with the same --judges"):
        compare(str(tmp_path / "a"), str(tmp_path / "b"))


def test_a_second_variant_is_added_and_a_repeated_one_replaced(tmp_path):
    for row, value in (("both", 1.0), ("content", 2.0), ("both", 3.0)):
        write_edits(str(tmp_path), [score(row, identity=value)], {"judges": "j"})
    assert {s.row: s.values["identity"] for s in read_edits(str(tmp_path))} == {"content": 2.0, "both": 3.0}


def test_an_interval_over_zero_is_noise():
    assert verdict(Estimate(0.1, -0.01, 0.2, 9), 1) == "noise"
    assert verdict(Estimate(-0.1, -0.2, -0.05, 9), 1) == "worse"
    assert verdict(Estimate(-0.1, -0.2, -0.05, 9), -1) == "better"
    assert verdict(Estimate(math.nan, math.nan, math.nan, 0), 1) == "noise"


def test_what_is_missing_is_named(tmp_path, judges):
    with pytest.raises(FileNotFoundError, match=r"no run.json"):
        evaluate_generator(str(tmp_path), judges=judges, generator=Copy())
    with pytest.raises(ValueError, match="no judges: train them"):
        evaluate_generator(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="spfem evaluate generator"):
        read_edits(str(tmp_path))


def test_clips_of_different_length_and_size_stand_beside_each_other():
    long, short = np.zeros((5, 32, 32, 3), np.uint8), np.full((3, 16, 16, 3), 255, np.uint8)
    film = beside({"long": long, "short": short}, side=20)
    assert film.shape == (5, 20, 44, 3)
    assert film[4, :, 24:].min() == 255
    assert b"ftyp" in filmed(film)[:16]
