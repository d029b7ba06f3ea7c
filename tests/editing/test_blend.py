"""What an edit changed is added to the full frame; what it did not change stays, to the last bit."""

import numpy as np
import pytest

from spfem_dist.editing.blend import blend
from spfem_dist.editing.video import Colour, Picture
from spfem_dist.prepare.faces import cut_face
from spfem_dist.prepare.mesh import Region

SIZE = 64
FULL = np.ones((SIZE, SIZE), np.float32)


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
    for mine, theirs in zip(planes(blend(source, region, crop, crop.copy(), FULL)), planes(source), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_where_the_mask_is_zero_no_bit_changes():
    source, region = picture(), Region(100, 80, 128, 0.0)
    crop = cut_face(source.rgb(), region, SIZE)
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[16:32, 16:48] = 1.0
    result = blend(source, region, crop, 255 - crop, mask)
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
    result = blend(source, region, crop, wanted.astype(np.uint8), FULL)
    np.testing.assert_allclose(cut_face(result.rgb(), region, SIZE)[16:48, 16:48], wanted[16:48, 16:48], atol=2)


def test_a_turned_crop_lands_where_it_was_cut():
    source, region = flat(), Region(90, 70, 80, 0.5)
    crop = cut_face(source.rgb(), region, SIZE)
    edited = crop.copy()
    edited[40:44, 20:24] = 220
    result = blend(source, region, crop, edited, FULL)
    place = np.argwhere(result.y > 180).mean(0)[::-1] + 0.5
    assert place == pytest.approx(region.to_picture(np.array([22.0, 42.0]), SIZE), abs=0.5)


def test_the_frames_own_sharpness_stays_under_an_edit():
    """A face four times as large as its crop: fine stripes that the crop cannot hold are still there, brighter."""
    source, region = flat(400, 320), Region(200, 160, 256, 0.0)
    source.y[:, ::2] += 40
    crop = cut_face(source.rgb(), region, SIZE)
    result = blend(source, region, crop, crop + 30, FULL)
    middle = result.y[120:200, 160:240].astype(int)
    assert (middle[:, ::2] - middle[:, 1::2]).mean() == pytest.approx(40, abs=1)
    assert middle.mean() - source.y[120:200, 160:240].mean() == pytest.approx(30 * 219 / 255, abs=1)


def test_a_mask_that_reaches_the_crops_edge_leaves_no_line_in_the_picture():
    source, region = flat(), Region(100, 80, 100, 0.0)
    crop = cut_face(source.rgb(), region, SIZE)
    row = blend(source, region, crop, crop + 60, FULL).y[80].astype(int)
    assert row.max() - row.min() > 45
    assert np.abs(np.diff(row)).max() < 15


def test_an_edit_reaches_the_border_where_the_crop_is_the_whole_picture():
    source, region = flat(SIZE, SIZE), Region(SIZE / 2, SIZE / 2, SIZE, 0.0)
    crop = source.rgb()
    result = blend(source, region, crop, crop + 60, FULL)
    assert int(result.y.min()) - 120 == pytest.approx(60 * 219 / 255, abs=1)
