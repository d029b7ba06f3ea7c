"""Retrieval scores on similarities whose answer is known."""

import numpy as np
import pytest

from spfem_dist.evaluation.retrieval import (
    auc,
    bootstrap,
    chance,
    linear_matches,
    match_and_mismatch,
    matching_frames,
    phase_matches,
    top1,
)


def test_a_hit_is_within_two_frames():
    similarity = -np.abs(np.arange(20)[None] - np.array([[5.0], [8.0], [2.0]]))
    assert top1(similarity, np.array([7, 5, 2.4])).tolist() == [True, False, True]


def test_chance_counts_the_candidates_that_would_do():
    np.testing.assert_allclose(chance(np.array([0, 10]), 50), [3 / 50, 5 / 50])


def test_random_similarities_score_chance():
    generator = np.random.default_rng(0)
    similarity, truth = generator.standard_normal((4000, 50)), generator.integers(5, 45, 4000)
    assert top1(similarity, truth).mean() == pytest.approx(chance(truth, 50).mean(), abs=0.02)
    assert auc(*match_and_mismatch(similarity, truth)) == pytest.approx(0.5, abs=0.02)


def test_perfect_similarities_have_an_area_of_one():
    truth = np.array([3.0, 9.2, 15.0])
    similarity = -np.abs(np.arange(20)[None] - truth[:, None])
    match, mismatch = match_and_mismatch(similarity, truth)
    assert auc(match, mismatch) == 1.0
    assert len(mismatch) == sum((np.abs(np.arange(20) - t) >= 5).sum() for t in truth)


def test_near_frames_are_neither_match_nor_mismatch():
    similarity = np.zeros((1, 11))
    similarity[0, 1:10] = 1.0  # frames 1 to 9 all look like frame 5
    assert auc(*match_and_mismatch(similarity, np.array([5.0]))) == 1.0


def test_a_warp_gives_each_frame_its_mean_match():
    warp = np.array([[0, 1, 1, 2, 3], [0, 1, 2, 3, 3]])
    np.testing.assert_allclose(matching_frames(warp, 4), [0, 1.5, 3, 3])
    np.testing.assert_allclose(matching_frames(warp[::-1], 4), [0, 1, 1, 2.5])


def test_a_gap_in_the_warp_is_bridged():
    np.testing.assert_allclose(matching_frames(np.array([[0, 4], [0, 8]]), 5), [0, 2, 4, 6, 8])


def test_equal_phases_match():
    a, b = np.linspace(0, 1, 11), np.linspace(0, 1, 21)
    np.testing.assert_allclose(phase_matches(a, b), np.arange(0, 21, 2), atol=1e-4)


def test_a_pause_in_the_phase_is_taken():
    assert np.isfinite(phase_matches(np.array([0.0, 0.5, 0.5, 1.0]), np.array([0.0, 0.5, 0.5, 0.5, 1.0]))).all()


def test_a_linear_stretch_maps_ends_to_ends():
    assert linear_matches(5, 9).tolist() == [0, 2, 4, 6, 8]


def test_the_interval_holds_the_mean_and_is_deterministic():
    values, weights = np.random.default_rng(1).uniform(0.2, 0.6, 40), np.full(40, 3.0)
    figure = bootstrap(values, weights)
    assert figure.low < figure.value < figure.high
    assert figure.value == pytest.approx(values.mean())
    assert figure == bootstrap(values, weights)
    assert figure.clips == 40


def test_weights_count_frames():
    assert bootstrap([0.0, 1.0], [1, 3]).value == pytest.approx(0.75)


def test_no_clip_is_an_error():
    with pytest.raises(ValueError, match="no clip to score"):
        bootstrap([])
