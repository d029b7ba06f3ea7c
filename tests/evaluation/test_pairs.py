"""Pairs scored against the truth: one that changes nothing scores as the source, an ideal one as the true target."""

import pytest
from documented import words_of
from doors import command, well
from fake_generators import Copy, Ideal

from spfem_dist.config import Data
from spfem_dist.evaluation.generator_runs import edited
from spfem_dist.evaluation.pairs import MEANING, score_pairs
from spfem_dist.evaluation.protocol import ProtocolError


@pytest.fixture(scope="module")
def data(small_corpus):
    shards, split = small_corpus
    return Data(shards=str(shards), split=str(split), size=32)


def test_figures_of_pairs_are_those_of_what_they_show(data, judges):
    makers = {"nothing": edited(Copy()), "ideal": edited(Ideal(data.shards))}
    found = score_pairs(data, judges, 32, makers, sentences=1, frames=3)
    assert set(found) == {"true", "copy", "warp", *makers}
    assert {len(values) for figures in found.values() for values in figures.values()} == {2 * 6}
    assert found["nothing"] == found["copy"]
    assert found["ideal"] == found["true"]
    assert set(found["copy"]) == set(MEANING)
    assert found["copy"]["changed_error"] == [1.0] * 12
    assert found["true"]["changed_error"] == [0.0] * 12
    assert found["warp"] != found["true"], "another recording has another pose and light"


def test_a_maker_without_a_pair_has_no_figures(data, judges):
    found = score_pairs(data, judges, 32, {"none": lambda clip, emotion, at: None}, sentences=1, frames=2)
    assert "none" not in found


def test_recorded_shards_have_no_truth(data, judges, monkeypatch):
    monkeypatch.setattr("spfem_dist.evaluation.evaluation_set.rendered.is_rendered", lambda corpus: False)
    with pytest.raises(ProtocolError, match="whose true edits nobody knows: give shards of a rendered corpus"):
        score_pairs(data, judges, 32, {})


@pytest.mark.nightly
def test_the_recipe_scores_a_finished_stage_one(small_corpus, judges_run, tmp_path):
    shards, split = small_corpus
    places = ["--data.shards", shards, "--data.split", split, "--data.size", "32", "--checkpoint.storage", tmp_path]
    brief = ["--local", "--name", "p", "--tracking.uri", "", "--validation.every-steps", "0"]
    brief += ["--pretraining.steps", "2", "--pretraining.global-batch", "2"]
    well(command("python", "recipes/sserd_stage1.py", *map(str, [*places, *brief])))
    line = "python recipes/sserd_pairs.py --run runs/sserd-stage1 --judges runs/judges"
    where = {"runs/sserd-stage1": tmp_path / "p", "runs/judges": judges_run[0]}
    said = well(command(*words_of(line, where, "--sentences", "1"))).said
    for row in ("true", "warp", "copy", "boundary 1, drawn", "mean 1, added"):
        assert row in said, row
