"""The summary holds every figure under its own path; the report is one page that needs nothing else."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from rich.console import Console

from spfem_dist.evaluation.drawing import curves_svg, project, retrieval_picture, scatter_picture
from spfem_dist.evaluation.priors import meanings, targets
from spfem_dist.evaluation.report import (
    figures_table,
    numbers,
    read_summary,
    write_report,
    write_summary,
)
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.evaluation.targets import Target

BARS = targets(["ccrl", "cerl"])
FIGURES = {
    "corpus/dtw_within_2": Estimate(0.97, 0.96, 0.98, 40),
    "priors/content/same_speech_auc": Estimate(0.83, 0.79, 0.87, 40),
    "priors/content/emotion_probe": Estimate(0.30, 0.27, 0.33, 40),
    "priors/emotion/worst_class": Estimate(0.45, 0.40, 0.50, 40),
    "priors_released/content/same_speech_auc": Estimate(0.51, 0.48, 0.54, 40),
    "priors_released/content/emotion_probe": Estimate(0.42, 0.38, 0.46, 40),
    "priors/steps": 600.0,
}


def test_a_figure_lies_under_its_own_path_as_a_number(tmp_path):
    summary = json.loads(write_summary(tmp_path / "deep" / "summary.json", FIGURES).read_text())
    assert summary["priors"]["content"]["same_speech_auc"] == 0.83
    assert summary["intervals"]["priors"]["content"]["same_speech_auc"] == {"low": 0.79, "high": 0.87, "clips": 40}
    assert summary["priors"]["steps"] == 600
    assert "steps" not in summary["intervals"]["priors"]


def test_a_summary_reads_back_as_the_same_figures(tmp_path):
    path = write_summary(tmp_path / "summary.json", FIGURES, facts={"run": "demo"})
    assert read_summary(path) == FIGURES
    assert json.loads(path.read_text())["facts"] == {"run": "demo"}


def test_an_undefined_figure_is_null_and_reads_back_as_undefined(tmp_path):
    path = write_summary(tmp_path / "summary.json", {"a/b": math.nan, "a/c": Estimate(math.nan, math.nan, 1.0, 2)})
    assert json.loads(path.read_text())["a"] == {"b": None, "c": None}
    assert math.isnan(read_summary(path)["a/b"])


def test_a_second_evaluation_replaces_the_first_unless_told_to_keep_it(tmp_path):
    path = write_summary(tmp_path / "summary.json", {"corpus/x": 1.0})
    write_summary(path, {"priors/y": 2.0}, keep=True)
    assert numbers(read_summary(path)) == {"corpus/x": 1.0, "priors/y": 2.0}
    write_summary(path, {"priors/y": 3.0})
    assert numbers(read_summary(path)) == {"priors/y": 3.0}


@pytest.mark.parametrize("names", [("a/b", "a/b/c"), ("a/b/c", "a/b")])
def test_a_figure_cannot_be_another_figures_folder(tmp_path, names):
    with pytest.raises(ValueError, match="rename one"):
        write_summary(tmp_path / "summary.json", dict.fromkeys(names, 1.0))
    assert not (tmp_path / "summary.json").exists()


def test_bars_are_met_missed_or_unknown():
    verdict = {(t.name, t.than): t.met(FIGURES) for t in BARS}
    assert verdict["priors/content/same_speech_auc", ""] is True
    assert verdict["priors/emotion/worst_class", ""] is False
    assert verdict["priors_released/content/same_speech_auc", ""] is True
    assert verdict["priors/content/emotion_probe", "priors_released/content/emotion_probe"] is True
    assert verdict["priors/content/viseme_r2", ""] is None
    assert Target("priors/content/emotion_probe", "<=", 0.0, than="missing").met(FIGURES) is None


def test_the_terminal_table_shows_every_figure_and_verdict():
    console = Console(width=160, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(figures_table(FIGURES, BARS))
    text = console.export_text()
    for name in FIGURES:
        assert name in text
    assert "met" in text
    assert "missed" in text


@pytest.fixture
def page(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    path = write_report(
        tmp_path / "report.html",
        "demo <script>alert(1)</script>",
        FIGURES,
        curves={
            "ccrl": {"train/ccrl/contrast": [(0, 3.0), (12, 2.0), (24, float("nan"))], "val/ccrl/contrast": [(24, 2.5)]}
        },
        pictures={"retrieved & found": image, "attention": {0: image, 240: image // 2}},
        facts={"seed": 0, "tracking": "http://me:sesame@host"},
        targets=BARS,
        meanings=meanings(["ccrl", "cerl"]),
    )
    return path.read_text()


def test_the_report_needs_no_other_file_and_no_network(page):
    links = [a or b for a, b in re.findall(r"""(?:src|href)="([^"]+)"|url\(([^)]+)\)""", page)]
    assert links
    assert [link[:40] for link in links if not link.startswith(("data:", "#"))] == []
    assert "<link" not in page
    assert "@import" not in page


def test_the_report_shows_figures_intervals_bars_curves_and_pictures(page):
    assert "0.830" in page
    assert "0.790 .. 0.870" in page
    assert "priors_released" in page
    assert 'class="missed"' in page
    assert "samples seen" in page
    assert "retrieved &amp; found" in page
    assert 'type="range"' in page
    assert page.count("<img") == 2


def test_the_report_escapes_names_and_masks_secrets(page):
    assert "<script>alert" not in page
    assert "sesame" not in page


def test_the_report_fits_a_phone_and_its_tables_scroll_in_a_box_of_their_own(page):
    assert 'name="viewport" content="width=device-width' in page
    assert page.count('<div class="scroll"><table>') == page.count("<table>") > 0
    assert re.search(r"img,video,figure>svg\{max-width:100%", page)


def test_a_report_of_nothing_is_still_a_page(tmp_path):
    assert "no bars apply" in write_report(tmp_path / "r.html", "empty", {}).read_text()


def test_a_projection_keeps_clusters_apart_and_is_the_same_twice():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 16)) * 0.1
    points[30:, 3] += 5
    for method in ("pca", "tsne"):
        flat = project(points, method)
        assert np.array_equal(flat, project(points, method))
        spread = np.linalg.norm(flat[:30] - flat[:30].mean(0), axis=1).mean()
        assert np.linalg.norm(flat[:30].mean(0) - flat[30:].mean(0)) > 2 * spread


def test_a_scatter_has_a_panel_for_each_labelling():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 8))
    emotions = ["happy", "sad"] * 25
    one = scatter_picture(points, emotions)
    two = scatter_picture(points, {"emotion": emotions, "mouth opening": rng.random(50)}, "content")
    assert one.dtype == two.dtype == np.uint8
    assert two.shape[1] == 2 * one.shape[1]
    assert len(np.unique(one.reshape(-1, 3), axis=0)) > 10
    with pytest.raises(ValueError, match="50 embeddings"):
        scatter_picture(points, emotions[:-1])


def test_points_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="at least 3 finite rows"):
        project(np.full((5, 4), np.nan))
    with pytest.raises(ValueError, match="at least 3 finite rows"):
        project(np.zeros((2, 4)))


def test_retrieved_frames_stand_beside_their_query_framed_by_verdict():
    queries = np.full((2, 8, 8, 3), 10, np.uint8)
    found = np.full((2, 3, 8, 8, 3), 200, np.uint8)
    page = retrieval_picture(queries, found, np.array([[True, False, False], [False, True, True]]), side=16)
    colours = {tuple(c) for c in page.reshape(-1, 3)}
    assert {(10, 10, 10), (200, 200, 200), (0, 158, 115), (213, 94, 0)} <= colours
    green = (page == (0, 158, 115)).all(-1).sum()
    assert green == (page == (213, 94, 0)).all(-1).sum()  # three right, three wrong
    with pytest.raises(ValueError, match="expected uint8"):
        retrieval_picture(queries, found[:1])


def test_a_curve_without_points_is_an_empty_chart():
    assert curves_svg({"nothing": []}).startswith("<svg")


def test_the_terminal_table_fits_80_columns_with_nothing_cut():
    longest = "priors_released/content/viseme_r2_without_speech"
    figures = {name: figure for name, figure in FIGURES.items() if isinstance(figure, Estimate)}
    figures[longest] = Estimate(0.072, 0.037, 0.102, 40)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(figures_table(figures, BARS))
    text = console.export_text()
    assert "…" not in text
    assert longest in text
    assert "missed" in text
