"""FAD, CSIM and LSE-D against the numbers that the authors' scripts gave."""

import numpy as np
import pytest
from released_golden import fixture, input_of, needs_golden

from spfem_dist.evaluation.distances import frechet_distance, mean_cosine, synchrony


def gaussians(*shape, seed):
    return np.random.RandomState(seed).standard_normal(shape)


@pytest.fixture(scope="module")
def golden():
    return fixture("metrics")


@needs_golden
def test_frechet_distances_are_the_published_scripts(golden):
    scalars = golden[0]["scalars"]
    one, two = gaussians(300, 512, seed=0), gaussians(300, 512, seed=1)
    tall = gaussians(2000, 64, seed=0), 1.5 * gaussians(2000, 64, seed=1) + 0.25
    assert frechet_distance(one, two) == pytest.approx(scalars["fid.set1_set2"], rel=1e-6)
    assert frechet_distance(one, 1.5 * two + 0.25) == pytest.approx(scalars["fid.set1_scaled2"], rel=1e-6)
    assert frechet_distance(*tall) == pytest.approx(scalars["fid.tall"], rel=1e-9)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-4)


@needs_golden
@pytest.mark.parametrize("rule", ["A", "B"])
def test_cosines_are_the_published_scripts(golden, rule):
    actors = [([5, 512], 0.1, [7, 512], 0.2), ([4, 512], 0.3, [6, 512], 0.4)]
    found = [
        mean_cosine(*(input_of({"shape": shape, "c": c}, rule).numpy().astype(float) for shape, c in ((a, b), (d, e))))
        for a, b, d, e in actors
    ]
    assert found == pytest.approx(golden[0]["scalars"][f"{rule}.csim_per_actor"], abs=1e-6)
    assert np.mean(found) == pytest.approx(golden[0]["scalars"][f"{rule}.csim"], abs=1e-6)


@needs_golden
@pytest.mark.parametrize("case", ["A", "B", "shifted"])
def test_synchrony_is_the_published_scripts(golden, case):
    description, arrays = golden
    lips, speech = (input_of({"shape": [40, 1024], "c": c}, "A" if case == "A" else "B").numpy() for c in (0.1, 0.2))
    if case == "shifted":
        noise = speech
        speech = np.concatenate([noise[:3], lips[:-3] + np.float32(0.1) * noise[3:]])
    found = synchrony(lips, speech)
    scalars = description["scalars"]
    np.testing.assert_allclose(found.distances, arrays[f"{case}.mdist"], rtol=1e-5)
    assert found.lse_d == pytest.approx(scalars[f"{case}.lse_d"], rel=1e-5)
    assert found.lse_c == pytest.approx(scalars[f"{case}.conf_lse_c"], rel=1e-5)
    assert found.offset == scalars[f"{case}.offset_10_minus_argmin"]


def test_a_known_shift_is_found_without_any_fixture():
    lips = gaussians(60, 32, seed=3)
    assert synchrony(lips, np.roll(lips, -4, axis=0)).offset == 4
    assert synchrony(lips, lips).lse_d == pytest.approx(0, abs=1e-5)


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="at least two rows"):
        frechet_distance(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="one of each for every window"):
        synchrony(np.zeros((5, 4)), np.zeros((6, 4)))
