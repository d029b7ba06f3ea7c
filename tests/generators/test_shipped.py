"""The generator that comes with the package: small, complete, and at work without anything that was trained here."""

import re
from pathlib import Path

import numpy as np
import pytest
from toy_generator import film, shown, sound_packets, talking_head

import spfem_dist.generators
from spfem_dist.editing.job import run
from spfem_dist.editing.request import EditRequest
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.generator import Face
from spfem_dist.generators.load import SHIPPED, load_generator

FOLDER = Path(spfem_dist.generators.__file__).parent / SHIPPED


@pytest.fixture(scope="module")
def generator():
    return load_generator(SHIPPED)


def test_it_is_small_and_says_where_it_comes_from():
    files = [file for file in FOLDER.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8e6, "bytes"
    card = (FOLDER / "README.md").read_text()
    for part in ("make demo", "seed 0", "rendered by this project", "Apache-2.0", "people who agreed"):
        assert part in card
    for file in ("README.md", "config.json"):
        assert not re.search(r"/(home|tmp|root|work|Users)/", (FOLDER / file).read_text())


def test_every_emotion_moves_the_face_in_its_own_way(generator):
    head = talking_head()
    points = head.landmarks.astype(np.float32) * (generator.size / head.frames.shape[1])
    face = Face(points, np.ones(len(points), bool), generator.size, generator.topology)
    shifts = {e: generator.drive(face, e).target - points for e in SEVEN if e is not Emotion.NEUTRAL}
    corners = {e: s[:, [48, 54], 1].mean() for e, s in shifts.items()}
    brows = {e: s[:, 17:27, 1].mean() for e, s in shifts.items()}
    assert corners[Emotion.HAPPY] < -0.5 < 0.2 < corners[Emotion.SAD], "pixels: up for happy, down for sad"
    assert brows[Emotion.SURPRISED] < -1 < 0.2 < brows[Emotion.ANGRY], "pixels: up for surprised, down for angry"


def test_the_flow_is_the_same_at_any_resolution(generator):
    head, size = talking_head(size=64), generator.size
    face = Face(head.landmarks.astype(np.float32), np.ones(len(head.landmarks), bool), size, generator.topology)
    motion = generator.drive(face, Emotion.HAPPY)
    own, fine = (generator.render(head.frames[:4], motion, flow_side=side).flow for side in (None, 4 * size))
    assert fine.shape == (4, 4 * size, 4 * size, 2)
    middle = fine.reshape(4, size, 4, size, 4, 2).mean((2, 4))
    length = np.linalg.norm(own, axis=-1)
    moved = length > 0.002
    assert moved.mean() > 0.1
    # At the mesh's edge, and on the line between the lips, a large pixel lies on one side or the other.
    assert np.median(np.linalg.norm(middle - own, axis=-1)[moved]) < 0.1 * np.median(length[moved])


def test_a_film_is_edited_by_it_without_a_word_about_where_to(tmp_path):
    source = film(tmp_path / "talk.mp4", talking_head().frames)
    np.save(tmp_path / "talk.npy", talking_head().landmarks)
    request = EditRequest(
        source, tmp_path / "out.mp4", SHIPPED, emotion="happy", faces="aligned", landmarks=tmp_path / "talk.npy"
    )
    run(request, load_generator)
    assert sound_packets(request.out) == sound_packets(source)
    before, after = (np.stack(shown(path)[1]).astype(int) for path in (source, request.out))
    change = np.abs(after - before).mean((0, 3))
    assert change[70:110, 40:90].mean() > 2, "grey levels around the mouth"
    assert change[:6].mean() < 3, "grey levels of the background, which is encoded again"
