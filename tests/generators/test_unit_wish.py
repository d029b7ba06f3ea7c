"""A generator that draws landmarks is driven by units: what is asked for is shown, and speech stays speech."""

import numpy as np
import pytest

from spfem_dist.corpora.heads import HeadsCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.generators.face.unit_wish import UnitWish, toward
from spfem_dist.generators.face.units import unit_face
from spfem_dist.generators.generator import Motion
from spfem_dist.head.asset import head
from spfem_dist.prepare.landmarks import mouth_opening

NAMES, FPS, ORDER = head().names, 25.0, "mesh478"
SMILE, FROWN, JAW = (NAMES.index(name) for name in ("mouthSmileLeft", "mouthFrownLeft", "jawOpen"))


def landmarks(emotion):
    """A head that speaks, from its acting alone: landmarks [T, 478, 2] of the first 12 frames, and the true units."""
    corpus = HeadsCorpus(identities=41, sentences=1, size=64)
    scene, moved, units = corpus.staged(corpus.clip(40, 0, emotion), emotion)
    return scene.landmarks(moved[:12]).astype(np.float32), units[:12]


@pytest.fixture(scope="module")
def calm():
    return landmarks(Emotion.NEUTRAL)[0]


def wish(strength=1.0, **levels):
    level, named = np.zeros((2, len(NAMES)), np.float32)
    for name, value in levels.items():
        for i, own in enumerate(NAMES):
            if own in (name, f"{name}Left", f"{name}Right"):
                level[i], named[i] = value, 1
    return UnitWish(level, named, strength)


def change(source, asked, target=None):
    """Mean change of the 52 units that a wish makes, fitted anew."""
    edited = toward(Motion(source, source if target is None else target), ORDER, asked, FPS)
    face = unit_face(ORDER)
    before = face.fit(source, noise=0.005)
    return (face.fit(edited.target, rest=before.rest, noise=0.005).units - before.units).mean(0).numpy(), edited


def test_what_is_asked_for_is_shown_and_nothing_else(calm):
    found, _ = change(calm, wish(browInnerUp=0.8, browOuterUp=0.8, mouthSmile=0.6))
    asked = wish(browInnerUp=0.8, browOuterUp=0.8, mouthSmile=0.6).level
    np.testing.assert_allclose(found[asked > 0], asked[asked > 0], atol=0.25)
    assert np.abs(found[asked == 0]).mean() < 0.05


def test_strength_is_monotone_and_nothing_at_zero(calm):
    smiles = [change(calm, wish(strength, mouthSmile=0.8))[0][SMILE] for strength in (0.0, 0.5, 1.0)]
    assert abs(smiles[0]) < 0.02
    assert smiles[0] + 0.2 < smiles[1] < smiles[2] - 0.2


def test_the_mouth_opens_and_closes_as_it_did(calm):
    _, edited = change(calm, wish(mouthSmile=0.9, mouthUpperUp=0.8, mouthShrugLower=0.8, noseSneer=1.0))
    before, after = (mouth_opening(points, ORDER) for points in (edited.source, edited.target))
    np.testing.assert_allclose(after, before, atol=0.01)


def test_words_win_over_what_the_motion_did_before(calm):
    angry, units = landmarks(Emotion.ANGRY)
    assert units[:, FROWN].mean() > 0.3
    found, _ = change(angry, wish(mouthSmile=0.8, mouthFrown=0.0, browDown=0.0))
    assert found[FROWN] < -0.15
    assert found[NAMES.index("browDownLeft")] < -0.3
    assert found[SMILE] > 0.4


def test_the_shift_is_smooth_in_time(calm):
    edited = toward(Motion(calm, calm), ORDER, wish(mouthSmile=0.9, eyeWide=0.8), FPS)
    shift = edited.target - edited.source
    size = np.linalg.norm(shift, axis=-1).max()
    assert np.linalg.norm(np.diff(shift, axis=0), axis=-1).max() < 0.2 * size
    assert edited.coefficients is None, "a generator is to find its own for the new landmarks"
