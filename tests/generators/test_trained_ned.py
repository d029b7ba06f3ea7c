"""The generator that a run exports: it loads on a CPU, moves a face as it is asked, and leaves the rest of the picture alone."""

import dataclasses

import numpy as np
import pytest

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.generator import Face
from spfem_dist.generators.load import load_generator

SIZE, FRAMES = 32, 14


@pytest.fixture(scope="module")
def generator(finished):
    return load_generator(finished / "r")


@pytest.fixture(scope="module")
def corpus():
    return SyntheticCorpus.small(identities=4, sentences=3, size=SIZE)


def face_of(raw, frames=FRAMES, topology="ibug68") -> Face:
    points = raw.landmarks[:frames].astype(np.float32)
    return Face(points, np.ones(len(points), bool), SIZE, topology)


@pytest.fixture(scope="module")
def recording(corpus):
    return corpus.render(corpus.clip(3, 0, Emotion.NEUTRAL))


@pytest.fixture(scope="module")
def source(recording):
    return face_of(recording)


@pytest.fixture(scope="module")
def reference(corpus):
    return face_of(corpus.render(corpus.clip(2, 1, Emotion.HAPPY)), frames=20)


def test_it_loads_on_the_cpu_by_the_run_and_by_the_model(generator, finished):
    again = load_generator(str(finished / "r" / "ned" / "model"))
    assert (again.size, again.topology) == (generator.size, generator.topology) == (SIZE, "ibug68")
    assert again.face.texture.pictures.abs().max() > 0, "lines were learnt"
    for network in (generator.manipulator, generator.renderer):
        assert all(p.device.type == "cpu" and not p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("ways", ["emotion", "reference", "both"])
def test_emotion_reference_and_both_give_a_motion_of_the_sources_shape(ways, generator, source, reference):
    asked = {}
    if ways != "reference":
        asked["emotion"] = Emotion.HAPPY
    if ways != "emotion":
        asked["reference"] = reference
    motion = generator.drive(source, **asked)
    assert motion.target.shape == motion.source.shape == (FRAMES, 68, 2)
    assert motion.target.dtype == np.float32
    assert np.isfinite(motion.target).all()


@pytest.mark.parametrize("emotion", SEVEN)
def test_every_emotion_can_be_asked_for(emotion, generator, source):
    assert generator.drive(source, emotion).target.shape == (FRAMES, 68, 2)


def test_strength_zero_gives_the_sources_landmarks_back_and_more_moves_more(generator, source):
    moved = [
        np.abs(generator.drive(source, Emotion.HAPPY, strength=strength).target - source.landmarks).mean()
        for strength in (0.0, 0.5, 1.0)
    ]
    assert moved[0] < 1e-4, "pixels"
    assert moved[0] < moved[1] < moved[2]


def test_landmarks_of_another_size_come_in_the_generators_own(generator, source):
    twice = Face(2 * source.landmarks, source.valid, 2 * SIZE, source.topology)
    np.testing.assert_allclose(generator.drive(twice, Emotion.SAD).source, source.landmarks, rtol=1e-6)


def test_pictures_keep_their_shape_and_every_pixel_outside_the_mask(generator, recording, source):
    frames = recording.frames[:FRAMES]
    edit = generator.render(frames, generator.drive(source, Emotion.ANGRY))
    drawn, mask = edit.crops(frames), edit.mask
    assert drawn.shape == frames.shape
    assert drawn.dtype == np.uint8
    assert mask.shape == frames.shape[:3]
    assert mask.dtype == np.float32
    assert mask.min() >= 0
    assert mask.max() <= 1
    outside = mask == 0
    assert 0.3 < outside.mean() < 0.9
    assert (drawn[outside] == frames[outside]).all()


def test_an_untrained_renderer_shows_the_face_that_it_was_given(generator, recording, source):
    frames = recording.frames[:FRAMES]
    edit = generator.render(frames, generator.drive(source, Emotion.HAPPY, strength=0.0))
    drawn, inside = edit.crops(frames), edit.mask > 0.99
    assert np.abs(drawn[inside].astype(int) - frames[inside].astype(int)).mean() < 25, "grey levels"


def test_a_clip_may_be_rendered_in_parts(generator, recording, source):
    motion = generator.drive(source, Emotion.HAPPY)
    whole = generator.render(recording.frames[:6], motion).crops(recording.frames[:6])
    part = generator.render(recording.frames[4:6], motion, first=4).crops(recording.frames[4:6])
    assert np.abs(whole[4:6].astype(int) - part.astype(int)).max() <= 1


def test_an_edit_moves_the_sources_pixels_and_paints_the_rest(generator, recording, source):
    """Where nothing is painted, the edited crop holds the source's own colours."""
    frames = recording.frames[:4]
    edit = generator.render(frames, generator.drive(source, Emotion.HAPPY))
    bare = dataclasses.replace(edit, residual=np.zeros_like(edit.residual)).crops(frames)
    assert bare.max() <= frames.max()
    assert bare.min() >= frames.min()
    assert (bare != frames).any()


def test_clips_shorter_than_a_window_are_driven(generator, recording):
    assert generator.drive(face_of(recording, frames=3), Emotion.SAD).target.shape == (3, 68, 2)


@pytest.mark.parametrize(
    ("asked", "phrase"),
    [
        ({}, "needs an emotion, a reference clip, or both"),
        ({"emotion": Emotion.CALM}, "calm: this generator knows neutral, angry"),
    ],
)
def test_a_wish_that_cannot_be_granted_is_refused(asked, phrase, generator, source):
    with pytest.raises(ValueError, match=phrase):
        generator.drive(source, **asked)


def test_landmarks_of_another_kind_are_refused(generator, source, reference):
    mesh = Face(np.zeros((FRAMES, 468, 2), np.float32), source.valid, SIZE, "mesh468")
    with pytest.raises(ValueError, match="the source has mesh468 landmarks, this generator was trained on ibug68"):
        generator.drive(mesh, Emotion.HAPPY)
    with pytest.raises(ValueError, match="the reference has mesh468 landmarks"):
        generator.drive(source, reference=mesh)


def test_a_clip_of_two_frames_is_refused(generator, recording, source):
    short = face_of(recording, frames=2)
    with pytest.raises(ValueError, match="the source has 2 frames; at least 3 are needed: give a longer clip"):
        generator.drive(short, Emotion.HAPPY)
    with pytest.raises(ValueError, match="the reference has 2 frames"):
        generator.drive(source, reference=short)
