"""Errors of drawn frames against true ones."""

import numpy as np
import pytest

from spfem_dist.evaluation.images import (
    BEST_PSNR,
    changed_error,
    jitter,
    l1,
    perceptual_distance,
    psnr,
    should_change,
    ssim,
)


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 215, (6, 8, 8, 3))
    return np.repeat(np.repeat(coarse, 4, 1), 4, 2).astype(np.uint8)


def test_equal_frames_are_perfect(frames):
    assert (l1(frames, frames), psnr(frames, frames)) == (0, BEST_PSNR)
    assert ssim(frames, frames) == pytest.approx(1)


def test_psnr_of_a_known_error(frames):
    assert psnr(frames, frames + np.uint8(10)) == pytest.approx(20 * np.log10(25.5), abs=1e-3)


def test_ssim_forgives_a_change_of_light_and_not_of_structure(frames):
    brighter, mixed = frames + np.uint8(10), frames[:, ::-1]
    assert ssim(frames, brighter) > 0.95
    assert ssim(frames, mixed) < 0.5


def test_ssim_of_flat_frames_is_the_formulas():
    a, b = (np.full((1, 16, 16, 3), v, np.uint8) for v in (100, 110))
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b) == pytest.approx((2 * 100 * 110 + c1) / (100**2 + 110**2 + c1), abs=1e-4)


def test_only_what_should_change_counts(frames):
    target = frames.copy()
    target[:, :8, :8] += np.uint8(40)
    changed = should_change(target, frames)
    assert changed.sum() == 6 * 64
    assert changed_error(frames, target, changed) == pytest.approx(40)
    spoilt = target.copy()
    spoilt[:, 20:] = 0
    assert changed_error(spoilt, target, changed) == 0
    assert np.isnan(changed_error(frames, frames, should_change(frames, frames)))


def test_grain_is_little_jitter_and_a_jumping_face_is_much(frames):
    still = np.repeat(frames[:1], 12, 0)
    rng = np.random.default_rng(1)
    grainy = np.clip(still + rng.normal(0, 3, still.shape), 0, 255).astype(np.uint8)
    jumping = np.stack([np.roll(f, t % 2, axis=1) for t, f in enumerate(still)])
    assert jitter(still) == 0
    assert jitter(jumping) > 3 * jitter(grainy)
    assert np.isnan(jitter(still[:2]))


def test_perceptual_distance_grows_with_blur(judges):
    import cv2

    rng = np.random.default_rng(2)
    frames = rng.integers(0, 255, (3, 32, 32, 3)).astype(np.uint8)
    soft, softer = (np.stack([cv2.GaussianBlur(f, (0, 0), s) for f in frames]) for s in (0.5, 1.5))
    distances = [perceptual_distance(judges.oracle, frames, other) for other in (frames, soft, softer)]
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances[0] < distances[1] < distances[2]
