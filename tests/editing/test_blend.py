"""What an edit changed is added to the full frame; what it did not change stays, to the last bit."""

import numpy as np
import pytest

from spfem_dist.editing.blend import blend
from spfem_dist.editing.video import Colour, Picture
from spfem_dist.prepare.faces import cut_face
from spfem_dist.prepare.mesh import Region

SIZE = 64
FULL = np.ones((SIZE, SIZE), np.float32)
STILL = np.zeros((SIZE, SIZE, 2), np.float32)


def painted(source, region, crop, edited, mask):
    """`source` with the crop of `region` painted over, and nothing moved."""
    return blend(source, region, STILL, edited.astype(np.float32) - crop, mask)


def moved(source, region, x, y, reach=20):
    """`source` with what lies within `reach` pixels of the crop's middle shifted: it comes from (x, y) shares of the crop away."""
    away = np.hypot(*(np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2))
    flow = np.clip((reach + 6 - away) / 6, 0, 1)[..., None].astype(np.float32) * np.array([x, y], np.float32)
    return blend(source, region, flow, np.zeros((SIZE, SIZE, 3), np.float32), FULL)


def picture(width=200, height=160, matrix=2, full=False) -> Picture:
    rng = np.random.default_rng(0)
    y = rng.integers(60, 180, (height, width), np.uint8)
    u, v = rng.integers(100, 156, (2, height // 2, width // 2), np.uint8)
    return Picture(y, u, v, Colour(matrix, full, 2, 2), 0, 1)


def planes(result: Picture) -> list[np.ndarray]:
    return [result.y, result.u, result.v]


def flat(width=200, height=160, matrix=2, full=False) -> Picture:
    y = np.full((height, width), 120, np.uint8)
    half = np.full((height // 2, width // 2), 128, np.uint8)
    return Picture(y, half, half.copy(), Colour(matrix, full, 2, 2), 0, 1)


@pytest.mark.parametrize("region", [Region(100, 80, 90, 0.0), Region(30, 20, 150, 0.4), Region(190, 150, 20, -2.0)])
def test_an_edit_that_changes_nothing_changes_no_bit(region):
    source = picture()
    crop = cut_face(source.rgb(), region, SIZE)
    for mine, theirs in zip(planes(painted(source, region, crop, crop.copy(), FULL)), planes(source), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_where_the_mask_is_zero_no_bit_changes():
    source, region = picture(), Region(100, 80, 128, 0.0)
    crop = cut_face(source.rgb(), region, SIZE)
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[16:32, 16:48] = 1.0
    result = painted(source, region, crop, 255 - crop, mask)
    changed = result.y != source.y
    # Rows 16-31 and columns 16-47 of the crop are these pixels, and one crop pixel (two of the frame's) of transition.
    outside = np.ones_like(changed)
    outside[16 + 32 - 2 : 16 + 64 + 2, 36 + 32 - 2 : 36 + 96 + 2] = False
    assert not changed[outside].any()
    assert changed[16 + 34 : 16 + 62, 36 + 34 : 36 + 94].mean() > 0.9


@pytest.mark.parametrize(("matrix", "full"), [(2, False), (1, False), (1, True), (9, False), (6, True)])
def test_a_colour_arrives_as_the_colour_that_was_asked_for(matrix, full):
    """Whatever the film's colour matrix and range are."""
    source, region = flat(matrix=matrix, full=full), Region(100, 80, 100, 0.0)
    crop = cut_face(source.rgb(), region, SIZE)
    wanted = crop.astype(int) + np.array([30, -20, 10])
    result = painted(source, region, crop, wanted.astype(np.uint8), FULL)
    np.testing.assert_allclose(cut_face(result.rgb(), region, SIZE)[16:48, 16:48], wanted[16:48, 16:48], atol=2)


def test_a_turned_crop_lands_where_it_was_cut():
    source, region = flat(), Region(90, 70, 80, 0.5)
    crop = cut_face(source.rgb(), region, SIZE)
    edited = crop.copy()
    edited[40:44, 20:24] = 220
    result = painted(source, region, crop, edited, FULL)
    place = np.argwhere(result.y > 180).mean(0)[::-1] + 0.5
    assert place == pytest.approx(region.to_picture(np.array([22.0, 42.0]), SIZE), abs=0.5)


def test_the_frames_own_sharpness_stays_under_an_edit():
    """A face four times as large as its crop: fine stripes that the crop cannot hold are still there, brighter."""
    source, region = flat(400, 320), Region(200, 160, 256, 0.0)
    source.y[:, ::2] += 40
    crop = cut_face(source.rgb(), region, SIZE)
    result = painted(source, region, crop, crop + 30, FULL)
    middle = result.y[120:200, 160:240].astype(int)
    assert (middle[:, ::2] - middle[:, 1::2]).mean() == pytest.approx(40, abs=1)
    assert middle.mean() - source.y[120:200, 160:240].mean() == pytest.approx(30 * 219 / 255, abs=1)


def test_a_mask_that_reaches_the_crops_edge_leaves_no_line_in_the_picture():
    source, region = flat(), Region(100, 80, 100, 0.0)
    crop = cut_face(source.rgb(), region, SIZE)
    row = painted(source, region, crop, crop + 60, FULL).y[80].astype(int)
    assert row.max() - row.min() > 45
    assert np.abs(np.diff(row)).max() < 15


def test_an_edit_reaches_the_border_where_the_crop_is_the_whole_picture():
    source, region = flat(SIZE, SIZE), Region(SIZE / 2, SIZE / 2, SIZE, 0.0)
    crop = source.rgb()
    result = painted(source, region, crop, crop + 60, FULL)
    assert int(result.y.min()) - 120 == pytest.approx(60 * 219 / 255, abs=1)


@pytest.mark.parametrize("roll", [0.0, 0.5, -2.0])
def test_what_moves_are_the_pictures_own_pixels(roll):
    """A dot three pixels wide, in a picture four times as fine as its crop: it is moved along the crop's axes, and stays what it was."""
    source, region = flat(480, 400), Region(240, 200, 256, roll)
    source.y[199:202, 239:242] = 220
    source.u[96:105, 116:125] = 90
    result = moved(source, region, 0.0625, -0.03125)
    wanted = region.to_picture(np.array([SIZE / 2 - 0.0625 * SIZE, SIZE / 2 + 0.03125 * SIZE]), SIZE) + 0.5
    for plane, at, unit in ((result.y.astype(int), source.y, 1), (128 - result.u.astype(int), 128 - source.u, 2)):
        light = np.where(plane > at[0, 0] + 20, plane - int(at[0, 0]), 0)
        place = (np.argwhere(light) * light[light > 0][:, None]).sum(0)[::-1] / light.sum() + 0.5
        assert place * unit == pytest.approx(wanted, abs=1.1), "pixels"
    assert result.y.max() > 195, "grey levels"


def test_fine_stripes_are_as_sharp_after_a_move_of_half_a_pixel():
    source, region = flat(400, 320), Region(200, 160, 256, 0.0)
    x = np.arange(400)
    source.y[:] = np.rint(120 + 40 * np.sin(2 * np.pi * x / 4 + np.pi / 4))  # four pixels to a stripe
    result = moved(source, region, 0.5 / 256, 0.0)
    sharpness = [np.std(np.diff(y[150:170, 180:220].astype(float), axis=1)) for y in (source.y, result.y)]
    assert sharpness[1] / sharpness[0] == pytest.approx(1, abs=0.1)


def test_outside_what_is_moved_no_bit_changes():
    source, region = picture(), Region(100, 80, 90, 0.3)
    result = moved(source, region, 0.1, 0.0, reach=10)
    far = np.hypot(*(np.mgrid[:160, :200] - np.array([80, 100])[:, None, None])) > 90 * 24 / SIZE + 3
    assert (result.y != source.y).any()
    np.testing.assert_array_equal(result.y[far], source.y[far])
