"""The face of 52 units: what moved on a rendered head is found again, by name, in any order of landmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from spfem_dist.corpora.heads import HeadsCorpus
from spfem_dist.corpora.heads.expect import statistics
from spfem_dist.emotions import SEVEN
from spfem_dist.generators.face import unit_fit
from spfem_dist.generators.face.units import unit_face
from spfem_dist.head.asset import expected, head


@pytest.fixture(scope="module")
def recordings() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Landmarks in both orders and true units of a person for each emotion; of a seed that made no prior."""
    corpus = HeadsCorpus(7, 2, size=128, seed=4711, style=0.5)
    found = []
    for number, emotion in enumerate(SEVEN):
        clip = corpus.clip(number, number % 2, emotion)
        scene, moved, _ = corpus.staged(clip, emotion)
        truth = corpus.truth(clip)
        found.append((scene.landmarks(moved)[::2], truth["ibug68"][::2], truth["units"][::2]))
    return found


def correlations(found: list[np.ndarray], true: list[np.ndarray]) -> np.ndarray:
    """Of the 30 units that move most, over all frames."""
    a, b = np.concatenate(found), np.concatenate(true)
    most = np.argsort(-b.std(0))[:30]
    return np.array([pearsonr(a[:, unit], b[:, unit]).statistic for unit in most])


def test_units_of_heads_nobody_fitted_are_found_from_the_mesh(recordings):
    true = [units for _, _, units in recordings]
    loose = [unit_face("mesh478").fit(mesh).units.numpy() for mesh, _, _ in recordings]
    assert correlations(loose, true).mean() >= 0.90
    exact = [unit_face("mesh478").fit(mesh, noise=0.005).units.numpy() for mesh, _, _ in recordings]
    assert correlations(exact, true).mean() >= 0.98
    assert correlations(exact, true).min() >= 0.85
    assert np.abs(np.concatenate(exact) - np.concatenate(true)).mean() < 0.02


def test_units_are_found_from_68_points(recordings):
    found = [unit_face("ibug68").fit(points, noise=0.005).units.numpy() for _, points, _ in recordings]
    assert correlations(found, [units for _, _, units in recordings]).mean() >= 0.85


def test_a_known_person_leaves_nothing_to_mistake_for_an_expression(recordings):
    """A smile that lasts is told from a wide mouth."""
    face, asset = unit_face("mesh478"), head()
    corpus = HeadsCorpus(7, 2, size=128, seed=4711, style=0.5)
    errors: dict[str, list[float]] = {"known": [], "unknown": []}
    for number in (1, 3, 4):
        mesh, _, units = recordings[number]
        person = corpus.person(corpus.clip(number, 0, SEVEN[0]))
        own = asset.mesh478(asset.shape(person.shape)) - asset.mesh478(asset.mean)
        eyes = np.linalg.norm(np.subtract(*asset.mesh478(asset.mean)[list(face.topology.outer_eyes)]))
        rest = face.mean + torch.from_numpy(own * (1, -1, 1) / eyes).float()
        for name, given in (("known", rest), ("unknown", None)):
            found = face.fit(mesh[::3], given).units.numpy()
            errors[name].append(float(np.abs(found - units[::3]).mean()))
    assert np.mean(errors["known"]) < 0.9 * np.mean(errors["unknown"])


def test_units_know_no_picture(recordings):
    """Where a face lies in the picture, how large it is and how it is tilted does not change what it does."""
    mesh = recordings[4][0][:20]
    turn = np.array([[0.9, -0.3], [0.3, 0.9]]) * 2.5
    face = unit_face("mesh478")
    units = [face.fit(points).units for points in (mesh, (mesh @ turn.T + (900, 20)).astype(np.float32))]
    torch.testing.assert_close(*units, atol=5e-3, rtol=0)


def test_a_long_film_is_fitted_in_parts_as_it_is_in_one(recordings, monkeypatch):
    face, mesh = unit_face("mesh478"), recordings[2][0][:23]
    whole = face.fit(mesh).units
    monkeypatch.setattr(unit_fit, "_CHUNK", 5)
    torch.testing.assert_close(face.fit(mesh).units, whole, atol=1e-3, rtol=0)


def test_points_that_are_lost_cost_little(recordings):
    rng = np.random.default_rng(0)
    mesh, _, true = recordings[4]
    wrong = mesh.copy()
    lost = rng.random(mesh.shape[:2]) < 0.03
    wrong[lost] += rng.normal(0, 40, (lost.sum(), 2))
    face = unit_face("mesh478")
    errors = [np.abs(face.fit(points).units.numpy() - true).mean() for points in (mesh, wrong)]
    assert errors[1] < errors[0] + 0.02


def test_landmarks_follow_units_differentiably(recordings):
    face = unit_face("mesh478")
    mesh = torch.from_numpy(recordings[3][0][:4])
    fit = face.fit(mesh)
    torch.testing.assert_close(face.moved(mesh, fit, fit.units), mesh)
    units = fit.units.clone().requires_grad_()
    gap = lambda points: (points[:, 14, 1] - points[:, 13, 1]).mean()  # noqa: E731
    gap(face.landmarks(units, fit.rest, fit.camera)).backward()
    assert units.grad[:, face.names.index("jawOpen")].min() > 0
    opened = fit.units.clone()
    opened[:, face.names.index("jawOpen")] += 0.3
    assert gap(face.moved(mesh, fit, opened)) > gap(mesh) + 3


def test_one_frame_is_a_clip_and_none_is_not(recordings):
    face = unit_face("mesh478")
    assert face.fit(recordings[0][0][:1]).units.shape == (1, 52)
    for wrong, words in (
        (np.zeros((0, 478, 2)), "T at least 1"),
        (np.zeros((3, 68, 2)), "order mesh478"),
        (np.full((3, 478, 2), np.nan), "not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            face.fit(wrong)
    with pytest.raises(ValueError, match="above 0"):
        face.fit(recordings[0][0][:1], noise=0.0)
    with pytest.raises(ValueError, match="unknown landmark order"):
        unit_face("mesh12")


def test_what_is_expected_is_what_the_corpus_does():
    corpus = HeadsCorpus(4, 2, seed=1000, style=0.8)
    own = statistics([corpus.truth(clip)["units"] for clip in corpus.clips()[::3]])
    prior = expected()
    assert np.abs(own["mean"] - prior.mean).max() < 0.15
    assert np.corrcoef(np.diag(own["within"]), np.diag(prior.within))[0, 1] > 0.8
    assert np.linalg.eigvalsh(prior.between.astype(np.float64)).min() > -1e-6
