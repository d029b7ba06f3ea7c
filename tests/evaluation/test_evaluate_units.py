"""`spfem evaluate units`: shards with true units and films of faces in, how well units explain them out."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from documented import words_of
from doors import command, well
from pulled import pulled
from rich.console import Console
from toy_generator import film

from spfem_dist.corpora import rendered
from spfem_dist.editing.video import EditError
from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.units import MOST, compared, say, units_of_films, units_of_shards

CLIPS = Path(__file__).resolve().parents[2] / ".." / "shared" / "clips"
SHARDS, FILMS = "spfem evaluate units shards/heads", "spfem evaluate units films"


def prepared(out: Path, corpus: str, **environment) -> Path:
    small = ["--identities", "2", "--synthetic-sentences", "1", "--size", "64", "--seed", "91", "--local"]
    well(command("spfem", "prepare", corpus, "--out", out, *small, **environment))
    return out


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return prepared(tmp_path_factory.mktemp("units") / "shards" / "heads", "heads")


def test_units_of_shards_are_held_against_the_truth_by_one_command(shards):
    done = well(command(*words_of(SHARDS), "--json", cwd=shards.parents[1]))
    found = json.loads(done.out)
    assert found["recordings"] == 14
    assert found["correlation"] >= 0.95
    assert found["error"] < 0.04
    assert found["residual"] < 0.005
    assert len(found["rows"]) == 52
    moves = [row["moves"] for row in found["rows"]]
    assert moves == sorted(moves, reverse=True)
    assert found["correlation"] == pytest.approx(np.mean([row["correlation"] for row in found["rows"][:MOST]]))


def test_the_finders_landmarks_say_less_than_exact_ones(shards):
    pulled("face-mesh")
    console = Console(file=StringIO(), width=80)
    own, found = (units_of_shards(str(shards), found, 0.03, most=7, console=console) for found in (False, True))
    assert (own.recordings, found.recordings, found.landmarks) == (7, 7, "found")
    assert own.correlation > found.correlation > 0.2
    assert {row.name: row.within for row in found.rows}["jawOpen"] > 0.6
    say(found, console)
    assert "correlation" in (said := console.file.getvalue())
    assert max(map(len, said.splitlines())) <= 80


def test_shards_without_true_units_are_named(tmp_path):
    with pytest.raises(ValueError, match="no true units"):
        units_of_shards(str(prepared(tmp_path / "drawn", "synthetic")))


def test_a_unit_that_is_found_backwards_shows():
    rng = np.random.default_rng(0)
    true = [rng.random((9, 2)) for _ in range(3)]
    first, second = compared(("a", "b"), [clip * (1, -1) for clip in true], true)
    by_name = {row.name: row for row in (first, second)}
    assert (by_name["a"].correlation, by_name["a"].error) == pytest.approx((1, 0))
    assert (by_name["b"].correlation, by_name["b"].within) == pytest.approx((-1, -1))
    assert by_name["b"].bias == pytest.approx(-2 * np.concatenate(true)[:, 1].mean())
    (still,) = compared(("a",), [np.zeros((4, 1))], [np.ones((4, 1))])
    assert still.correlation == 0


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    pulled("face-mesh")
    folder = tmp_path_factory.mktemp("rendered") / "films"
    corpus = rendered.corpus("heads", 3, 1, size=192, seed=5)
    for emotion in (Emotion.HAPPY, Emotion.NEUTRAL):
        film(folder / "anna" / f"{emotion}.mp4", corpus.render(corpus.clip(1, 0, emotion)).frames[:24])
    (folder / "broken.mp4").write_bytes(b"no film at all")
    return folder


def test_films_are_fitted_by_one_command(films):
    done = well(command(*words_of(FILMS), cwd=films.parent))
    assert "happy.mp4" in done.out
    assert "not fitted" in done.out
    assert "broken.mp4" in done.out
    found = units_of_films(films)
    assert {row.film for row in found.rows} == {"anna/happy.mp4", "anna/neutral.mp4"}
    for row in found.rows:
        assert 0 < row.residual_outer < row.residual < 0.02
    console = Console(file=StringIO(), width=80)
    say(found, console)
    assert max(map(len, console.file.getvalue().splitlines()[:8])) <= 80


def test_a_folder_without_a_face_is_named(tmp_path):
    film(tmp_path / "wall.mp4", np.full((5, 64, 64, 3), 90, np.uint8))
    with pytest.raises(EditError, match="no film that shows a face"):
        units_of_films(tmp_path)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="recorded clips (../shared/clips beside the repository) are not here")
def test_recorded_faces_are_explained_to_two_hundredths_of_the_pupils_distance():
    pulled("face-mesh")
    for name in ("films/tv_interview.mp4", "references/happy_for_M012_037.mp4"):
        (row,) = units_of_films(CLIPS / name).rows
        assert row.residual <= 0.02
        assert row.residual_outer < row.residual
