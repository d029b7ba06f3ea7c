"""The face model explains landmarks, moves them, and draws maps that follow them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spfem_dist.corpora.synthetic import SyntheticCorpus
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.face.maps import MAPS, FaceMaps, mask_edge, warped
from spfem_dist.generators.face.model import FaceModel, TrainingClip, learn_face_model, similarity
from spfem_dist.generators.face.topology import IBUG68, MESH468, MESH478, topology


@pytest.fixture(scope="module")
def corpus():
    return SyntheticCorpus.small(5, 2)


@pytest.fixture(scope="module")
def clips(corpus):
    return [
        TrainingClip(c.speaker, c.emotion == Emotion.NEUTRAL, corpus.render(c).landmarks)
        for c in corpus.clips()
        if c.speaker != "S04"
    ]


@pytest.fixture(scope="module")
def learnt(clips):
    return learn_face_model(clips, IBUG68)


def recording(corpus, speaker=4, sentence=0, emotion=Emotion.NEUTRAL):
    return corpus.render(corpus.clip(speaker, sentence, emotion))


def test_coefficients_and_back_give_the_landmarks(corpus, learnt):
    model, _ = learnt
    seen = recording(corpus, emotion=Emotion.SURPRISED).landmarks
    fit = model.fit(seen)
    np.testing.assert_allclose(model.moved(seen, fit, fit.coefficients), seen, atol=1e-4)
    shapes, _ = model.seen_from_the_front(seen.astype(np.float64))
    left = shapes - fit.rest - model.shift(fit.coefficients)
    assert np.abs(left).max() < 0.03, "what the model does not explain of an unseen person, in eye distances"


def test_every_nth_of_very_many_frames_gives_nearly_the_same_model(corpus, clips, learnt, monkeypatch):
    frames = sum(len(clip.landmarks) for clip in clips)
    monkeypatch.setattr("spfem_dist.generators.face.model._MOST_POINTS", 68 * frames // 3)
    thinned, _ = learn_face_model(clips, IBUG68)
    seen = recording(corpus, emotion=Emotion.SURPRISED).landmarks
    left = []
    for model in (learnt[0], thinned):
        fit = model.fit(seen)
        shapes, _ = model.seen_from_the_front(seen.astype(np.float64))
        left.append(np.abs(shapes - fit.rest - model.shift(fit.coefficients)).mean())
    assert not np.array_equal(thinned.basis, learnt[0].basis)
    assert left[1] < 1.3 * left[0]


def test_the_jaw_is_the_mouths_opening(corpus, learnt):
    model, _ = learnt
    clip = recording(corpus)
    jaw = model.fit(clip.landmarks, neutral=True).coefficients[:, 0]
    assert np.corrcoef(jaw, clip.truth["opening"])[0, 1] > 0.95
    moved = model.fit(clip.landmarks)
    wider = moved.coefficients.copy()
    wider[:, 0] += 1
    changed = model.moved(clip.landmarks, moved, wider) - clip.landmarks
    gap = changed[:, list(IBUG68.lower), 1].mean(1) - changed[:, list(IBUG68.upper), 1].mean(1)
    assert (gap > 0.5 * model.openings * np.abs(moved.pose.factor)).all()


def test_another_emotions_coefficients_give_its_landmarks(corpus, learnt):
    model, _ = learnt
    clip = corpus.clip(4, 0, Emotion.NEUTRAL)
    source, target = corpus.render(clip).landmarks, corpus.target(clip, Emotion.ANGRY).landmarks
    fit = model.fit(source)
    wanted = model.fit(target, rest=fit.rest).coefficients
    edited = model.moved(source, fit, wanted)
    assert np.abs(edited - target).mean() < 0.25 * np.abs(source - target).mean()


def test_the_head_s_pose_changes_no_coefficient(corpus, learnt):
    model, _ = learnt
    seen = recording(corpus).landmarks
    turned = (seen - 32) @ np.array([[np.cos(0.2), np.sin(0.2)], [-np.sin(0.2), np.cos(0.2)]], np.float32) * 1.3 + 30
    np.testing.assert_allclose(model.fit(turned).coefficients, model.fit(seen).coefficients, atol=1e-3)


def test_a_known_emotion_is_told_from_a_face_at_rest(corpus, learnt):
    model, rests = learnt
    neutral, angry = (recording(corpus, 1, 1, e).landmarks for e in (Emotion.NEUTRAL, Emotion.ANGRY))
    away = [np.linalg.norm(model.fit(x, rests["S01"]).coefficients[:, 1:].mean(0)) for x in (neutral, angry)]
    assert away[1] > 2 * away[0]


def test_a_model_survives_its_file(learnt, corpus, tmp_path):
    model, _ = learnt
    model.save(tmp_path / "face.safetensors")
    again = FaceModel.load(tmp_path / "face.safetensors", "ibug68")
    seen = recording(corpus).landmarks
    np.testing.assert_allclose(again.fit(seen).coefficients, model.fit(seen).coefficients, atol=1e-4)


def test_a_similarity_is_found_exactly():
    template = np.random.default_rng(0).normal(size=(9, 2))
    z = (template @ (1, 1j)) * (2 * np.exp(0.3j)) + (5 - 7j)
    factor, centre = similarity(np.stack([z.real, z.imag], -1)[None], template)
    assert factor[0] == pytest.approx(2 * np.exp(0.3j))
    assert centre[0] == pytest.approx((5, -7))


def test_wrong_landmarks_are_refused_by_name(learnt):
    with pytest.raises(ValueError, match="ibug68"):
        learnt[0].fit(np.zeros((4, 468, 2)))
    with pytest.raises(ValueError, match="mesh468"):
        topology("mesh5")
    with pytest.raises(ValueError, match="--faces mesh"):
        learn_face_model([], IBUG68)


def test_topologies_name_points_that_exist():
    for order in (IBUG68, MESH468, MESH478):
        points = [*order.rigid, *order.upper, *order.lower, *order.eyes[0], *order.eyes[1], *order.mouth, *order.brows]
        assert max(points) < order.points
        assert len(set(order.mouth)) == len(order.mouth)


@pytest.fixture(scope="module")
def maps(learnt):
    return FaceMaps(learnt[0])


def vertices(maps, landmarks):
    return torch.from_numpy(np.concatenate([landmarks, maps.anchors(landmarks)], 1))


def test_maps_lie_on_the_face_and_within_their_range(maps, corpus):
    seen = recording(corpus).landmarks[:3]
    drawn, _ = maps.draw(vertices(maps, seen), vertices(maps, seen), 64)
    assert drawn.shape == (3, MAPS, 64, 64)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    mask = drawn[:, -1]
    for face, covered in zip(seen, mask, strict=True):
        inside = face[(face > 0).all(1) & (face < 64).all(1)].astype(int)
        assert covered[inside[:, 1], inside[:, 0]].mean() > 0.9, "landmarks lie inside the mask"
    assert (drawn[:, :-1] * (1 - mask[:, None])).abs().max() == 0, "nothing is drawn outside it"
    eyes = drawn[:, 3:5].flatten(2).sum(-1)
    assert (eyes > 2).all()
    assert (eyes < 200).all()


def test_an_unmoved_face_comes_from_where_it_is(maps, corpus):
    clip = recording(corpus)
    seen = vertices(maps, clip.landmarks[:2])
    _, grid = maps.draw(seen, seen, 64)
    picture = torch.from_numpy(clip.frames[:2]).permute(0, 3, 1, 2).float()
    # Closed lips and lids are seen edge-on: their pixels have no place of their own.
    assert (warped(picture, grid) - picture).abs().mean() < 1.0


def test_a_moved_face_lands_on_the_target(maps, corpus):
    clip = corpus.clip(4, 1, Emotion.NEUTRAL)
    source, target = corpus.render(clip), corpus.target(clip, Emotion.SURPRISED)
    rows = slice(0, None, 5)
    drawn, grid = maps.draw(vertices(maps, target.landmarks[rows]), vertices(maps, source.landmarks[rows]), 64)
    before, after = (torch.from_numpy(x.frames[rows]).permute(0, 3, 1, 2).float() for x in (source, target))
    change = (before - after).abs().mean(1, keepdim=True) > 12
    moved = torch.where(drawn[:, -1:] > 0, warped(before, grid), before)
    assert ((moved - after).abs() * change).sum() < 0.75 * ((before - after).abs() * change).sum()


def test_the_gaze_moves_with_the_irises(corpus):
    """The drawn corpus marks no irises: discs that roll in its eyes stand for them."""
    rows = (36, 39, 42, 45)
    order = replace(IBUG68, name="with irises", points=78, irises=(tuple(range(68, 73)), tuple(range(73, 78))))

    def with_irises(points, roll):
        middles = [(points[:, a] + points[:, b]) / 2 for a, b in (rows[:2], rows[2:])]
        width = np.linalg.norm(points[:, 39] - points[:, 36], axis=-1)[:, None, None]
        disc = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], np.float32) * 0.2 + [roll, 0]
        return np.concatenate([points, *(m[:, None] + width * disc for m in middles)], 1).astype(np.float32)

    clips = [c for c in corpus.clips() if c.speaker != "S04"]
    learnt, _ = learn_face_model(
        [
            TrainingClip(c.speaker, c.emotion == Emotion.NEUTRAL, with_irises(corpus.render(c).landmarks, 0))
            for c in clips
        ],
        order,
    )
    drawer, seen = FaceMaps(learnt), recording(corpus).landmarks[:2]

    def eyes(roll):
        points = vertices(drawer, with_irises(seen, roll)).requires_grad_()
        drawn, _ = drawer.draw(points, points.detach(), 256)
        return drawn[:, 3:5], points

    left, points = eyes(-0.2)
    right, _ = eyes(0.2)
    column = torch.arange(256.0)
    for side in (0, 1):
        white = [(m[:, side].sum(1) * column).sum(-1) / m[:, side].sum((1, 2)) for m in (left, right)]
        assert (white[0] > white[1] + 0.5).all(), "the iris leaves white behind it"
    left.sum().backward()
    assert points.grad[:, 68:78].abs().sum() > 0


def test_maps_are_differentiable_in_the_landmarks(maps, corpus):
    clip = recording(corpus)
    source = vertices(maps, clip.landmarks[:1]).double()
    wanted = (source + 0.3).requires_grad_()
    picture = torch.from_numpy(clip.frames[:1]).permute(0, 3, 1, 2).double()

    def total(points):
        drawn, grid = maps.draw(points, source, 64)
        return (warped(picture, grid) * mask_edge(drawn[:, -1:], 3)).sum() + drawn[:, :3].sum()

    total(wanted).backward()
    step = torch.zeros_like(wanted)
    step[0, 30, 0] = 1e-6  # the nose's tip, far from any edge
    with torch.no_grad():
        slope = (total(wanted + step) - total(wanted - step)) / 2e-6
    assert wanted.grad[0, 30, 0].item() == pytest.approx(slope.item(), rel=0.05)


def test_the_ring_knows_no_expression(maps, corpus):
    clip = corpus.clip(4, 0, Emotion.NEUTRAL)
    calm, upset = corpus.render(clip).landmarks, corpus.target(clip, SEVEN[3]).landmarks
    assert np.abs(maps.anchors(calm) - maps.anchors(upset)).max() < 0.5
