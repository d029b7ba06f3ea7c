"""The generator that comes with the package: small, complete, and at work without anything that was trained here."""

import re
from pathlib import Path

import numpy as np
import pytest
from toy_generator import film, shown, sound_packets

import spfem_dist.generators
from spfem_dist.corpora.heads import HeadsCorpus
from spfem_dist.editing.job import run
from spfem_dist.editing.request import EditRequest
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.generator import Face
from spfem_dist.generators.load import SHIPPED, load_generator
from spfem_dist.prepare.landmarks import converted

FOLDER = Path(spfem_dist.generators.__file__).parent / SHIPPED
#: A person whom the generator has not seen.
SPEAKER, SIDE, FRAMES = 40, 96, 20


@pytest.fixture(scope="module")
def generator():
    return load_generator(SHIPPED)


@pytest.fixture(scope="module")
def head():
    """A rendered head that speaks calmly: frames and landmarks."""
    corpus = HeadsCorpus(identities=SPEAKER + 1, sentences=1, size=SIDE)
    raw = corpus.render(corpus.clip(SPEAKER, 0, Emotion.NEUTRAL))
    return raw.frames[:FRAMES], raw.landmarks[:FRAMES]


@pytest.fixture(scope="module")
def face(generator, head):
    points = head[1] * np.float32(generator.size / SIDE)
    return Face(points, np.ones(len(points), bool), generator.size, generator.topology)


def test_it_is_small_and_says_where_it_comes_from():
    files = [file for file in FOLDER.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8e6, "bytes"
    card = (FOLDER / "README.md").read_text()
    for part in (
        "python recipes/heads.py --pretraining-only",
        "seed 0",
        "rendered by this project",
        "Apache-2.0",
        "people who agreed",
    ):
        assert part in card
    for file in ("README.md", "config.json"):
        assert not re.search(r"/(home|tmp|root|work|Users)/", (FOLDER / file).read_text())


def test_every_emotion_moves_the_face_in_its_own_way(generator, face):
    shifts = {}
    for emotion in SEVEN:
        target = generator.drive(face, emotion).target
        shifts[emotion] = (
            converted(target, generator.topology, "ibug68") - converted(face.landmarks, "mesh478", "ibug68")
        )[..., 1]
    corners = {e: s[:, [48, 54]].mean() for e, s in shifts.items()}
    brows = {e: s[:, 17:27].mean() for e, s in shifts.items()}
    assert corners[Emotion.HAPPY] < -0.3 < 0.1 < corners[Emotion.SAD], "pixels of 64: up for happy, down for sad"
    assert brows[Emotion.SURPRISED] < -0.5 < 0.1 < brows[Emotion.ANGRY], (
        "pixels of 64: up for surprised, down for angry"
    )


def test_the_flow_is_the_same_at_any_resolution(generator, head, face):
    motion, size = generator.drive(face, Emotion.HAPPY), generator.size
    crops = np.zeros((4, size, size, 3), np.uint8)
    own, fine = (generator.render(crops, motion, flow_side=side).flow for side in (None, 4 * size))
    assert fine.shape == (4, 4 * size, 4 * size, 2)
    middle = fine.reshape(4, size, 4, size, 4, 2).mean((2, 4))
    length = np.linalg.norm(own, axis=-1)
    moved = length > 0.002
    assert moved.mean() > 0.1
    # At the mesh's edge, and on the line between the lips, a large pixel lies on one side or the other.
    assert np.median(np.linalg.norm(middle - own, axis=-1)[moved]) < 0.1 * np.median(length[moved])


def test_a_film_is_edited_by_it(tmp_path, head):
    frames, landmarks = head
    source = film(tmp_path / "talk.mp4", frames)
    np.save(tmp_path / "talk.npy", landmarks)
    request = EditRequest(
        source, tmp_path / "out.mp4", SHIPPED, emotion="happy", faces="aligned", landmarks=tmp_path / "talk.npy"
    )
    run(request, load_generator)
    assert sound_packets(request.out) == sound_packets(source)
    before, after = (np.stack(shown(path)[1]).astype(int) for path in (source, request.out))
    change = np.abs(after - before).mean((0, 3))
    mouth = converted(landmarks, "mesh478", "ibug68")[:, 48:68].mean((0, 1)).astype(int)
    around = change[mouth[1] - 8 : mouth[1] + 8, mouth[0] - 12 : mouth[0] + 12].mean()
    assert around > 2 + change[:4].mean(), "grey levels: the mouth moves, the background is only encoded again"
