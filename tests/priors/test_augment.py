"""Augmentation belongs to the sample: the same seed gives the same frames in any batch."""

import torch

from spfem_dist.nets.augment import colour_jitter, face_crop, flip, mouth_window, random_shift, uniform
from spfem_dist.records import Seeds


def test_numbers_depend_on_the_sample_and_not_on_its_batch():
    seed = Seeds((3, 14, 15, 92))
    whole = uniform(seed, "colour", 2, 5)
    torch.testing.assert_close(whole[2:3], uniform(seed[2:3], "colour", 2, 5))
    assert whole.shape == (4, 2, 5)
    assert whole.min() >= 0
    assert whole.max() < 1


def test_purposes_and_seeds_are_independent():
    seed = Seeds(tuple(range(400)))
    a, b = uniform(seed, "a", 1), uniform(seed, "b", 1)
    assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) < 0.15
    assert a.unique().numel() > 390


def test_numbers_do_not_touch_the_global_generators():
    before = torch.random.get_rng_state()
    uniform(Seeds((1, 2)), "a", 3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_negative_and_large_seeds_are_taken():
    assert torch.isfinite(uniform(Seeds((-1, 2**62)), "a", 2)).all()


def test_face_crop_takes_the_square_around_its_row():
    frames = torch.arange(64).view(1, 1, 64, 1).expand(2, 1, 64, 64)
    crop = face_crop(frames, 0.75, 0.6)
    assert crop.shape == (2, 1, 48, 48)
    assert crop[0, 0, 0, 0] == 14
    moved = face_crop(frames, 0.75, 0.6, torch.tensor([[1, 0], [100, 0]]))
    assert moved[0, 0, 0, 0] == 15
    assert moved[1, 0, -1, 0] == 63, "the square stays inside the frame"


def test_face_crop_passes_gradients():
    frames = torch.rand(2, 3, 64, 64, requires_grad=True)
    face_crop(frames, 0.75, 0.5).sum().backward()
    assert frames.grad.sum() == 2 * 3 * 48 * 48


def test_shifts_stay_within_their_share():
    frames = torch.zeros(40, 3, 64, 64)
    shift = random_shift(frames, Seeds(tuple(range(10))), "shift", 0.03, (2, 2))
    assert shift.shape == (40, 2)
    assert shift.abs().max() == 2


def test_flip_mirrors_only_the_chosen():
    frames = torch.rand(2, 3, 8, 8)
    flipped = flip(frames, torch.tensor([True, False]))
    torch.testing.assert_close(flipped[0], frames[0].flip(-1))
    torch.testing.assert_close(flipped[1], frames[1])


def test_colour_jitter_of_strength_zero_changes_nothing():
    frames = torch.rand(3, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(colour_jitter(frames, 0.0, torch.rand(3, 5)), frames)
    changed = colour_jitter(frames, 0.1, torch.rand(3, 5)) - frames
    assert 0 < changed.abs().max() < 0.5


def test_the_mouth_window_is_soft_and_covers_the_mouth_only():
    window = mouth_window(48, torch.device("cpu"), (0.7, 0.5), (0.2, 0.3))[0, 0]
    assert window[34, 24] == 1
    assert window[:20].max() == 0
    assert ((window > 0) & (window < 1)).any()
