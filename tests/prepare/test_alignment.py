"""Time-warps find what is said again, the released recipe is the released one, and imported paths are checked."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.prepare.alignment import (
    import_paths,
    linear_warp,
    mfcc,
    path_cost,
    time_warp,
    warp_error,
    warp_features,
)

GOLDEN = Path(__file__).resolve().parents[2] / ".." / "shared" / "golden" / "scmcl_dtw.npz"


def golden_inputs(case: str) -> tuple[np.ndarray, np.ndarray]:
    """The fixture's inputs by its own rules (see its README): 30 and 41 rows of 13 numbers."""
    sizes = (30, 13), (41, 13)
    if case == "A":
        a, b = (np.sin(0.011 * np.arange(n * d) + c).reshape(n, d) for (n, d), c in zip(sizes, (0.1, 0.2), strict=True))
    elif case == "B":
        a, b = (np.random.RandomState(seed).standard_normal(size) for size, seed in zip(sizes, (100, 200), strict=True))
    else:
        rows = (np.arange(30.0), 29 * (np.arange(41) / 40) ** 1.5)
        return tuple(10 * np.sin(0.5 * t[:, None] + 0.3 * np.arange(13)) for t in rows)
    return a.astype(np.float32).astype(float), b.astype(np.float32).astype(float)


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"the released code's numbers are not at {GOLDEN}")
@pytest.mark.parametrize("case", ["A", "B", "W"])
def test_the_released_recipe_finds_the_released_path(case):
    golden = np.load(GOLDEN, allow_pickle=False)
    a, b = golden_inputs(case)
    np.testing.assert_allclose(cdist(a, b, "cityblock"), golden[f"{case}.cost"], rtol=1e-5, atol=1e-5)
    path, cost = warp_features(a, b, band=None)
    np.testing.assert_array_equal(path, np.stack([golden[f"{case}.path_x"], golden[f"{case}.path_y"]]))
    assert cost * path.shape[1] == pytest.approx(float(golden[f"{case}.acc"][-1, -1]), rel=1e-5)


def test_ties_prefer_the_diagonal_and_then_a_step_in_the_first():
    path, cost = warp_features(np.zeros((3, 2)), np.zeros((2, 2)), band=None)
    assert cost == 0.0
    np.testing.assert_array_equal(path, [[0, 1, 2], [0, 0, 1]])


def test_released_cepstra_are_those_of_python_speech_features():
    speech = (0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.float32)
    rows = mfcc(speech, 30, 30.0, "released")
    assert rows.shape == (30, 13)
    # The first number is the log energy of the pre-emphasised window, |X|^2 / 512 summed over half the spectrum.
    window = (speech[1:] - 0.97 * speech[:-1])[533 * 5 - 1 : 533 * 5 + 399].astype(float)
    energy = (np.abs(np.fft.rfft(window, 512)) ** 2 / 512).sum()
    assert rows[5, 0] == pytest.approx(np.log(energy), rel=1e-5)
    assert np.abs(rows[:, 1:]).max() > 1


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 6), (2, 2), (2, 9), (3, 4), (40, 41), (40, 120), (120, 40), (12, 2)])
@pytest.mark.parametrize("band", [0.25, None])
def test_a_path_joins_first_to_first_and_last_to_last(n, m, band):
    rng = np.random.default_rng(n * m)
    path, cost = warp_features(rng.normal(size=(n, 13)), rng.normal(size=(m, 13)), band)
    assert path.dtype == np.int32
    assert path[:, 0].tolist() == [0, 0]
    assert path[:, -1].tolist() == [n - 1, m - 1]
    steps = {tuple(step) for step in np.diff(path, axis=1).T.tolist()}
    assert steps <= {(1, 1), (0, 1), (1, 0)}
    assert np.isfinite(cost)


def test_the_band_keeps_the_path_near_the_diagonal():
    a = np.zeros((80, 1))
    b = np.zeros((80, 1))
    a[60:], b[10:] = 5.0, 5.0  # without a band, 50 frames of b would match the end of a
    free, _ = warp_features(a, b, band=None)
    banded, _ = warp_features(a, b, band=0.25)
    assert np.abs(free[0] - free[1]).max() >= 45
    assert np.abs(banded[0] - banded[1]).max() <= 20


@pytest.fixture(scope="module")
def spoken() -> list[tuple[np.ndarray, np.ndarray, float]]:
    """(speech, phase of each frame, fps) of the recordings of two synthetic groups."""
    corpus = SyntheticCorpus.small(identities=2, sentences=1, size=32)
    raws = [corpus.render(clip) for clip in corpus.clips()]
    return [(raw.speech, raw.truth["phase"].astype(float), raw.fps) for raw in raws]


def errors(spoken, warp) -> np.ndarray:
    found = []
    for group in (spoken[:7], spoken[7:]):
        for (a, phase_a, fps), (b, phase_b, _) in itertools.combinations(group, 2):
            truth = np.interp(phase_a, phase_b, np.arange(len(phase_b)))
            found.append(warp_error(warp(a, b, fps, (len(phase_a), len(phase_b))), truth))
    return np.concatenate(found)


def test_time_warps_find_what_is_said_again_and_a_linear_stretch_does_not(spoken):
    warped = errors(spoken, lambda a, b, fps, frames: time_warp(a, b, fps, frames)[0])
    stretched = errors(spoken, lambda a, b, fps, frames: linear_warp(*frames))
    assert (warped <= 2).mean() >= 0.95
    assert warped.mean() <= 0.8
    assert (stretched <= 2).mean() <= 0.7


def test_other_words_cost_more_than_the_same_words():
    corpus = SyntheticCorpus.small(identities=1, sentences=2, size=32)
    first, second = corpus.clips()[:7], corpus.clips()[7:]
    neutral, happy, other = (corpus.render(clip).speech for clip in (first[0], first[4], second[4]))
    assert time_warp(neutral, happy, 25.0)[1] < 0.8 * time_warp(neutral, other, 25.0)[1]


def test_loudness_does_not_change_the_path(spoken):
    (a, _, fps), (b, _, _) = spoken[0], spoken[3]
    (path, cost), (quieter, quieter_cost) = time_warp(a, b, fps), time_warp(a, 0.2 * b, fps)
    np.testing.assert_array_equal(path, quieter)
    assert quieter_cost == pytest.approx(cost, rel=1e-3)
    released = time_warp(a, b, fps, recipe="released")[1], time_warp(a, 0.2 * b, fps, recipe="released")[1]
    assert released[1] > 1.01 * released[0]


def test_path_cost_is_the_mean_distance_along_the_path():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 13)), rng.normal(size=(25, 13))
    path, cost = warp_features(a, b)
    assert path_cost(a, b, path) == pytest.approx(cost)


def test_a_perfect_path_has_no_error():
    truth = np.array([0.0, 1.5, 3.0, np.nan])
    path = np.array([[0, 1, 1, 2, 3], [0, 1, 2, 3, 3]], np.int32)
    np.testing.assert_array_equal(warp_error(path, truth), [0, 0, 0])
    np.testing.assert_array_equal(warp_error(linear_warp(3, 5), np.array([0.0, 3.0, 3.0])), [0.5, 1.0, 0.5])


def write_paths(folder: Path, lists) -> Path:
    path = folder / "aligned_path36.json"
    path.write_text(json.dumps({"M005": {"happy": {"001_001": lists}}}))
    return path


def test_the_published_file_is_imported(tmp_path):
    paths = import_paths(write_paths(tmp_path, [[0, 1, 1, 2], [0, 0, 1, 2]]))
    ((key, path),) = paths.items()
    assert key == ("M005", Emotion.HAPPY, "001_001")
    assert path.dtype == np.int32
    np.testing.assert_array_equal(path, [[0, 1, 1, 2], [0, 0, 1, 2]])


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[0, 1], [0]], "equally long"),
        ([[], []], "equally long"),
        ([[0, 2, 1], [0, 1, 2]], "back in time at position 2"),
        ([[1, 2], [0, 1]], r"must start at \(0, 0\)"),
        ([[0, 0.5], [0, 1]], "whole numbers"),
        ([[0, 1]], "no pair"),
        ("text", "no pair"),
    ],
)
def test_a_broken_path_is_named(tmp_path, lists, message):
    with pytest.raises(ValueError, match=rf"M005/happy/001_001.*{message}"):
        import_paths(write_paths(tmp_path, lists))


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"M005": 3}'])
def test_another_file_is_not_a_table_of_paths(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="not a table of paths"):
        import_paths(path)
