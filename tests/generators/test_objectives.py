"""What the losses of stage 2 look at."""

import pytest
import torch

from spfem_dist.priors.frozen import softened


@pytest.mark.parametrize("size", [64, 128])
def test_the_emotion_prior_sees_lines_and_no_pattern_of_pixels(size):
    flat = torch.full((1, 3, size, size), 0.3)
    torch.testing.assert_close(softened(flat), flat)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    dots = flat + 0.2 * ((x % 2 == 0) & (y % 2 == 0)) - 0.05
    inside = slice(8, -8)  # the edge is repeated outwards, the pattern is not
    assert (softened(dots) - flat)[..., inside, inside].abs().max() < 0.02
    line = flat.clone()
    line[..., size // 2 : size // 2 + size // 32, :] -= 0.3
    assert (flat - softened(line)).max() > 0.15


def test_what_a_softened_picture_earns_reaches_the_picture():
    picture = torch.rand(2, 3, 64, 64, requires_grad=True)
    softened(picture)[..., 30:34, 30:34].sum().backward()
    assert picture.grad[..., 31, 31].min() > 0
    assert picture.grad[..., :20, :].abs().max() == 0
