"""Linear probes read what is linearly there and nothing else."""

import numpy as np
import pytest

from spfem_dist.evaluation.probes import mean_over_clips, probe_accuracy, ridge_r2

GENERATOR = np.random.default_rng(0)
TRAIN, TEST = GENERATOR.standard_normal((600, 12)), GENERATOR.standard_normal((300, 12))
CLIPS = np.repeat([f"clip{i}" for i in range(30)], 10)


def test_a_linear_target_is_read_whole():
    weights = GENERATOR.standard_normal((12, 3))
    figure = ridge_r2(TRAIN, TRAIN @ weights, TEST, TEST @ weights, CLIPS)
    assert figure.value > 0.99
    assert figure.low <= figure.value <= figure.high
    assert figure.clips == 30


def test_an_unrelated_target_cannot_be_read():
    figure = ridge_r2(TRAIN, GENERATOR.standard_normal(600), TEST, GENERATOR.standard_normal(300), CLIPS)
    assert figure.value < 0.05


def test_the_score_is_the_mean_over_targets():
    known, unknown = TEST[:, 0], GENERATOR.standard_normal(300)
    both = ridge_r2(
        TRAIN,
        np.stack([TRAIN[:, 0], GENERATOR.standard_normal(600)], 1),
        TEST,
        np.stack([known, unknown], 1),
        CLIPS,
    )
    assert both.value == pytest.approx(0.5, abs=0.1)


def test_separable_labels_are_told_apart_and_random_ones_are_not():
    names = np.array(["a", "b", "c"])
    label = names[TRAIN[:, :3].argmax(1)]
    assert probe_accuracy(TRAIN, label, TEST, names[TEST[:, :3].argmax(1)], CLIPS).value > 0.9
    chance = probe_accuracy(TRAIN, GENERATOR.permutation(label), TEST, names[TEST[:, :3].argmax(1)], CLIPS)
    assert chance.value == pytest.approx(1 / 3, abs=0.12)


def test_a_mean_over_clips_weighs_frames_equally():
    assert mean_over_clips(np.array([1.0, 1.0, 1.0, 0.0]), np.array(["a", "a", "a", "b"])).value == pytest.approx(0.75)
