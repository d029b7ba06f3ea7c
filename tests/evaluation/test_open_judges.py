"""The open judges see a face as their packages would, and say it in the project's own order."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pulled import pulled
from toy_generator import film, talking_head

from spfem_dist.editing.face import finder_for
from spfem_dist.editing.video import EditError, footage, pictures
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.evaluation.open_judges.faces import cut, face_box
from spfem_dist.evaluation.open_judges.judges import (
    EMOTION_JUDGES,
    FACE_API,
    FER,
    FER_CLASSES,
    OpenJudges,
    load_open_judges,
)
from spfem_dist.evaluation.open_judges.seen import see, track_of
from spfem_dist.evaluation.real.scores import film_distance, identity_distance
from spfem_dist.nets.face_api import ExpressionNetwork, LandmarkNetwork, RecognitionNetwork
from spfem_dist.nets.face_api.networks import EXPRESSIONS, SAME_PERSON
from spfem_dist.prepare.landmarks import converted, mouth_opening

CLIPS = Path(__file__).resolve().parents[2] / ".." / "shared" / "clips"


@pytest.fixture(scope="module")
def judges():
    pulled("face-mesh")
    for name in ("fer", "face-api"):
        pulled(name)
    return load_open_judges("cpu")


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """(a rendered film of one head, its frames)."""
    frames = talking_head(frames=12).frames
    return film(tmp_path_factory.mktemp("heads") / "head.mp4", frames), frames


@pytest.fixture(scope="module")
def seen(judges, head):
    return see(head[0], judges)


class OneClass:
    """Stands for LiteRT's interpreter: sure of one class, whatever it is shown."""

    def __init__(self, number: int):
        self.number, self.shown = number, []

    def get_input_details(self):
        return [{"index": 0}]

    get_output_details = get_input_details

    def set_tensor(self, index, values):
        self.shown.append(values)

    def invoke(self):
        pass

    def get_tensor(self, index):
        return np.eye(7, dtype=np.float32)[[self.number] * 16]


def some_faces(count: int, level: int = 128):
    points = np.random.default_rng(0).uniform(20, 80, (478, 2)).astype(np.float32)
    frames = np.full((count, 100, 100, 3), level, np.uint8)
    return [cut(frame, points) for frame in frames]


@pytest.mark.parametrize("number", range(7))
def test_every_class_of_either_network_is_the_same_emotion_in_the_projects_order(number):
    expression = ExpressionNetwork()
    expression.fc.bias[number] = 20.0
    judges = OpenJudges(OneClass(number), expression, LandmarkNetwork(), RecognitionNetwork(), "none")
    found = judges.emotion(some_faces(19))
    assert {name: values.shape for name, values in found.items()} == {FER: (19, 7), FACE_API: (19, 7)}
    assert {SEVEN[i] for i in found[FER].argmax(1)} == {FER_CLASSES[number]}
    assert {SEVEN[i] for i in found[FACE_API].argmax(1)} == {EXPRESSIONS[number]}


def test_fer_is_shown_grey_faces_from_minus_one_to_one():
    shown = OneClass(0)
    judges = OpenJudges(shown, ExpressionNetwork(), LandmarkNetwork(), RecognitionNetwork(), "none")
    judges.emotion(some_faces(3, level=255))
    judges.emotion(some_faces(3, level=0))
    bright, dark = shown.shown
    assert bright.shape == (16, 64, 64, 1)
    assert np.all(bright[:3] == 1.0)
    assert np.all(dark[:3] == -1.0)


def test_a_face_fills_its_square_and_the_rest_is_black(head):
    pulled("face-mesh")
    points = track_of(footage(head[0])).landmarks[0] * [1.0, 1.5]  # a tall face
    face = cut(cv2.resize(head[1][0], None, fx=1, fy=1.5), points)
    assert (face.grey.shape, face.small.shape, face.large.shape) == ((64, 64), (112, 112, 3), (150, 150, 3))
    low, high = face_box(points)
    width, height = high - low
    beside = round((1 - width / height) / 2 * 112)
    assert beside > 3
    empty = face.small.max(2) == 0
    assert np.flatnonzero(empty.all(0)).tolist() == [*range(beside), *range(112 - beside, 112)]
    assert face.square.to_picture(np.array([56.0, 56.0]), 112) == pytest.approx((low + high) / 2)


def test_a_film_of_twice_the_size_is_cut_to_the_same_faces(head):
    pulled("face-mesh")
    points, frame = track_of(footage(head[0])).landmarks[0], head[1][0]
    twice = cut(cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), 2 * points)
    once = cut(frame, points)
    for name in ("grey", "small", "large"):
        assert np.abs(getattr(once, name).astype(int) - getattr(twice, name)).mean() < 3


def test_rendered_faces_are_judged_frame_by_frame(seen):
    for name in EMOTION_JUDGES:
        assert seen.emotion[name].shape == (12, 7)
        assert np.allclose(seen.emotion[name].sum(1), 1, atol=1e-4)
    mean = np.mean([seen.probability(Emotion.HAPPY, name) for name in EMOTION_JUDGES])
    assert seen.probability(Emotion.HAPPY) == pytest.approx(mean)
    assert seen.identity_frames.tolist() == [0, 5, 10]
    assert identity_distance(seen, seen) == 0
    assert np.linalg.norm(seen.identity - seen.identity[0], axis=1).max() < SAME_PERSON


def test_the_landmark_network_finds_the_rendered_face_where_it_is(seen):
    truth = talking_head(frames=12).landmarks
    eyes = np.linalg.norm(truth[:, 45] - truth[:, 36], axis=-1)[:, None]
    assert (np.linalg.norm(seen.landmarks - truth, axis=-1)[:, 17:] / eyes).mean() < 0.12
    assert seen.opening_68 == pytest.approx(mouth_opening(seen.landmarks, "ibug68"))


def test_two_people_are_further_apart_than_one_from_himself(judges, seen, tmp_path):
    other = see(film(tmp_path / "other.mp4", talking_head(speaker=2, frames=6).frames), judges)
    apart = np.linalg.norm(other.identity[0] - seen.identity[0])
    assert apart > 2 * np.linalg.norm(seen.identity[1] - seen.identity[0])


def test_the_judges_give_the_same_on_any_device_and_in_any_batch(judges, head):
    points = track_of(footage(head[0])).landmarks
    faces = [cut(frame, at) for frame, at in zip(head[1], points, strict=True)]
    together, alone = judges.emotion(faces), [judges.emotion([face]) for face in faces[:3]]
    for name in EMOTION_JUDGES:
        assert np.concatenate([found[name] for found in alone]) == pytest.approx(together[name][:3], abs=1e-5)
    if torch.cuda.is_available():
        assert load_open_judges("cuda").identity(faces) == pytest.approx(judges.identity(faces), abs=1e-3)


def test_a_film_without_a_face_is_one_message(judges, tmp_path):
    grey = film(tmp_path / "grey.mp4", [np.full((96, 96, 3), 120, np.uint8)] * 3)
    with pytest.raises(EditError, match=r"grey\.mp4: no face in any of 3 frames"):
        see(grey, judges)


# --- recordings ---------------------------------------------------------------------------------------------------


def recorded(name: str) -> list:
    """A few faces of one of the shared clips."""
    if not (CLIPS / name).is_file():
        pytest.skip("the shared clips are not here")
    frames = [picture.rgb() for number, picture in enumerate(pictures(footage(CLIPS / name))) if number % 12 == 6]
    track = finder_for("mesh", False).track(frames)
    return [cut(f, points) for f, points, there in zip(frames, track.landmarks, track.found, strict=True) if there]


@pytest.mark.parametrize(
    ("name", "emotion"),
    [
        ("references/happy_for_W015_037.mp4", Emotion.HAPPY),
        ("references/sad_for_W015_028.mp4", Emotion.SAD),
        ("references/angry_for_M012_029.mp4", Emotion.ANGRY),
        ("MEAD/M003/video/front/neutral/level_1/033.mp4", Emotion.NEUTRAL),
    ],
)
def test_both_networks_say_what_a_recording_shows(judges, name, emotion):
    for judge, found in judges.emotion(recorded(name)).items():
        assert SEVEN[int(found.mean(0).argmax())] is emotion, judge


def test_two_recordings_of_one_person_are_nearer_than_those_of_two(judges):
    ones = [f"MEAD/W015/video/front/neutral/level_1/{n}.mp4" for n in ("028", "037")]
    a, b = (judges.identity(recorded(name)) for name in ones)
    other = judges.identity(recorded("MEAD/M012/video/front/neutral/level_1/037.mp4"))
    assert film_distance(a, b) < 0.5 < SAME_PERSON < film_distance(a, other)


def test_the_landmark_network_agrees_with_the_mesh_about_a_recorded_face(judges):
    name = "MEAD/M003/video/front/neutral/level_1/033.mp4"
    faces = recorded(name)
    frames = [picture.rgb() for number, picture in enumerate(pictures(footage(CLIPS / name))) if number % 12 == 6]
    mesh = converted(finder_for("mesh", False).track(frames).landmarks, "mesh478", "ibug68")
    eyes = np.linalg.norm(mesh[:, 45] - mesh[:, 36], axis=-1)[:, None]
    assert (np.linalg.norm(judges.landmarks(faces) - mesh, axis=-1)[:, 17:] / eyes).mean() < 0.05
