"""The figures of a mouth say what was done to it: a shift, a still mouth, a box that is spoilt."""

import numpy as np
import pytest

from spfem_dist.corpora.synthetic import SyntheticCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.mouth import VisemeProbe, corner_movement, mouth_error

CORPUS = SyntheticCorpus.small(identities=3, sentences=2, size=32)


@pytest.fixture(scope="module")
def recordings():
    return [
        CORPUS.render(CORPUS.clip(s, n, e)) for s in range(2) for n in (0, 1) for e in (Emotion.NEUTRAL, Emotion.SAD)
    ]


@pytest.fixture(scope="module")
def probe(recordings):
    return VisemeProbe.fit([(r.landmarks, r.truth["visemes"]) for r in recordings], "ibug68")


@pytest.fixture(scope="module")
def clip():
    """A recording of a speaker whom the probe has not seen."""
    return CORPUS.render(CORPUS.clip(2, 0, Emotion.HAPPY))


def test_speech_is_read_off_the_lips_of_another_speaker(probe, clip):
    assert probe.r2(clip.landmarks, clip.landmarks, clip.truth["visemes"]) > 0.9


def test_an_expression_that_is_held_costs_nothing_and_a_mouth_that_stands_still_says_nothing(probe, clip):
    lips = np.zeros((68, 1)) + (np.arange(68) >= 48)[:, None]
    held = clip.landmarks + 2 * lips
    still = clip.landmarks * (1 - lips) + clip.landmarks.mean(0) * lips
    visemes = clip.truth["visemes"]
    assert probe.r2(held, clip.landmarks, visemes) == pytest.approx(
        probe.r2(clip.landmarks, clip.landmarks, visemes), abs=0.02
    )
    assert probe.r2(still, clip.landmarks, visemes) < 0.3
    assert corner_movement(held, clip.landmarks, "ibug68") == pytest.approx(1)
    frozen = clip.landmarks.copy()
    frozen[:, [48, 54]] = frozen[:, [36, 45]]  # as far apart as the eyes, at all times
    assert abs(corner_movement(frozen, clip.landmarks, "ibug68")) < 0.5


def test_corners_that_move_the_other_way_are_below_zero(clip):
    turned = clip.landmarks.copy()
    wide = clip.landmarks[:, 54] - clip.landmarks[:, 48]
    turned[:, 54] = clip.landmarks[:, 48] + 2 * wide.mean(0) - wide
    assert corner_movement(turned, clip.landmarks, "ibug68") < -0.9


def test_only_errors_at_the_mouth_count(clip):
    spoilt = clip.frames.copy()
    spoilt[:, :8] = 255
    assert mouth_error(spoilt, clip.frames, clip.landmarks, "ibug68") == 0
    x, y = np.rint(clip.landmarks[:, 48:68].mean((0, 1))).astype(int)
    spoilt[:, y, x] ^= 0x80
    assert mouth_error(spoilt, clip.frames, clip.landmarks, "ibug68") > 0


def test_a_split_without_training_landmarks_is_named():
    with pytest.raises(ValueError, match="the viseme probe needs a training recording"):
        VisemeProbe.fit([], "ibug68")
