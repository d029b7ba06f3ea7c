"""`spfem evaluate compositor` as a user types it, and what its figures say of a perfect compositor and of a blind one."""

import json

import numpy as np
import pytest
from documented import words_of
from doors import command, well

from spfem_dist.compositors import load
from spfem_dist.config import Data, Run, Tracking
from spfem_dist.evaluation.composition import CONDITIONS, COPY, TRUTH, cases, evaluate_compositor
from spfem_dist.evaluation.report import read_summary

LINE = "spfem evaluate compositor runs/compose --judges runs/judges"


class Paster:
    """Puts the heads in as they are; `truth`: by chance the right ones."""

    size, topology, grow = 32, "ibug68", 0.06

    def __init__(self, truth=None):
        self.truth = truth

    def compose(self, scenes, masks, heads, covers):
        return np.where(masks[..., None], heads if self.truth is None else self.truth, scenes)


def a_paster_is_loaded():
    """Every run folder holds a compositor that pastes."""
    load.load_compositor = lambda location: Paster()


@pytest.fixture
def run_folder(small_corpus, tmp_path):
    shards, split = small_corpus
    run = Run(data=Data(shards=str(shards), split=str(split), size=32), tracking=Tracking(uri=""))
    (tmp_path / "run.json").write_text(run.model_dump_json())
    return tmp_path, run


def test_a_compositor_is_scored_beside_what_learns_nothing(run_folder, judges_run):
    folder, _ = run_folder
    places = {"runs/compose": folder, "runs/judges": judges_run[0]}
    flags = ["--clips", "2", "--frames", "4"]
    done = well(command(*words_of(LINE, places, *flags), before=a_paster_is_loaded))
    for said in ("the head displaced and relit", "feathered paste", "Poisson", "psnr_in_hole"):
        assert said in done.said
    figures = read_summary(folder / "summary.json")
    assert set(json.loads((folder / "summary.json").read_text())["compositor"]) == set(CONDITIONS)
    for condition, (moves, lights) in CONDITIONS.items():
        at = f"compositor/{condition}"
        assert figures[f"{at}/compositor/outside"].value == 0
        assert figures[f"{at}/{TRUTH}/seam"].value == 0
        wrong = figures[f"{at}/compositor/seam"].value
        assert wrong > 1 if moves or lights else wrong == 0, condition
    assert figures["compositor/in its place/compositor/psnr_in_hole"].value == 60
    assert figures[f"compositor/in its place/{COPY}/psnr_in_hole"].value < 50


def test_who_knows_the_truth_reaches_it_whatever_the_head_looks_like(run_folder, judges):
    folder, run = run_folder
    (case,) = cases(run.data, Paster(), 1, 4)
    figures = evaluate_compositor(str(folder), judges, 1, 4, Paster(case.truth))
    for condition in CONDITIONS:
        at = f"compositor/{condition}"
        assert figures[f"{at}/compositor/seam"].value == 0
        for name in ("identity", "opening", "geometry"):
            assert figures[f"{at}/compositor/{name}"].value == pytest.approx(figures[f"{at}/{TRUTH}/{name}"].value)
