"""The rendered heads: deterministic, their units move what they name, their truth agrees with their pixels."""

from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from doors import command, well
from prepared import groups_of
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from spfem_dist.corpora import rendered
from spfem_dist.corpora._speech.script import SILENCE
from spfem_dist.corpora.heads import HeadsCorpus
from spfem_dist.corpora.heads.acting import EMOTIONS, VISEMES, Units
from spfem_dist.corpora.heads.scene import LABELS
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.head import asset
from spfem_dist.head.asset import head
from spfem_dist.prepare.faces import AlignedFinder, MeshFinder
from spfem_dist.prepare.landmarks import converted
from spfem_dist.records import Clip
from spfem_dist.shard_format import ShardIndex

UNITS = Units(head().names)
LEFT_CORNER, RIGHT_CORNER = 291, 61  # of the mouth; left is the subject's, on the right of the picture


@pytest.fixture(scope="module")
def corpus() -> HeadsCorpus:
    return HeadsCorpus(identities=6, sentences=2, size=96)


@pytest.fixture(scope="module")
def truths(corpus) -> list[tuple[Clip, dict[str, np.ndarray]]]:
    return [(clip, corpus.truth(clip)) for clip in corpus.clips()]


def _digest(arguments: dict, clip_number: int) -> str:
    corpus = HeadsCorpus(**arguments)
    recording = corpus.render(corpus.clips()[clip_number])
    parts = [recording.frames, recording.speech, recording.landmarks, *recording.truth.values()]
    return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()


def test_another_process_renders_identical_arrays():
    arguments = {"identities": 2, "sentences": 1, "size": 48}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_digest, (arguments, 9))
    assert there == _digest(arguments, 9)


# --- units ----------------------------------------------------------------------------------------------------------


def moved(**weights: float) -> np.ndarray:
    """How far the mesh's points [478, 3] of the mean head go under units, in eye distances: x right, y up, z to the camera."""
    neutral = head().mean
    points = [head().mesh478(face) for face in (neutral, head().moved(neutral, UNITS.row(weights)[None])[0])]
    return (points[1] - points[0]) / np.linalg.norm(points[0][473] - points[0][468])


def test_there_are_52_units_and_every_programme_is_made_of_them():
    assert len(UNITS.names) == len(set(UNITS.names)) == 52
    for programme in (*EMOTIONS.values(), *VISEMES.values()):
        assert UNITS.row(programme).max() <= 1
    with pytest.raises(KeyError, match="no unit"):
        UNITS.of("mouthSmirk")


def test_the_jaw_opens_the_mouth():
    change = moved(jawOpen=1.0)
    assert change[14, 1] < -0.25, "the lower lip falls"
    assert change[152, 1] < -0.25, "and the chin with it"
    assert abs(change[13, 1]) < 0.08, "the upper lip stays"
    assert np.abs(change[[33, 263, 468, 473]]).max() < 0.01


@pytest.mark.parametrize(
    ("unit", "point", "axis", "sign"),
    [
        ("mouthSmileLeft", LEFT_CORNER, 1, 1),
        ("mouthSmileRight", RIGHT_CORNER, 1, 1),
        ("mouthFrownLeft", LEFT_CORNER, 1, -1),
        ("mouthFrownRight", RIGHT_CORNER, 1, -1),
        ("mouthStretchLeft", LEFT_CORNER, 0, 1),
        ("mouthStretchRight", RIGHT_CORNER, 0, -1),
        ("mouthPucker", LEFT_CORNER, 0, -1),
        ("mouthUpperUpLeft", 270, 1, 1),
        ("mouthLowerDownRight", 91, 1, -1),
        ("browInnerUp", 336, 1, 1),
        ("browOuterUpLeft", 300, 1, 1),
        ("browDownRight", 107, 1, -1),
        ("eyeBlinkLeft", 386, 1, -1),
        ("eyeWideRight", 159, 1, 1),
        ("eyeLookUpLeft", 473, 1, 1),
        ("eyeLookOutLeft", 473, 0, 1),
        ("eyeLookInRight", 468, 0, 1),
        ("noseSneerLeft", 358, 1, 1),
        ("jawLeft", 152, 0, 1),
    ],
)
def test_a_unit_moves_what_it_names(unit, point, axis, sign):
    change = moved(**{unit: 1.0})
    assert sign * change[point, axis] > 0.02
    if unit.endswith(("Left", "Right")) and not unit.startswith("jaw"):
        mirrored = moved(
            **{unit.removesuffix("Left").removesuffix("Right") + ("Right" if unit.endswith("Left") else "Left"): 1.0}
        )
        assert abs(mirrored[point, axis]) < 0.5 * abs(change[point, axis]), "the other side's unit hardly moves it"


# --- recordings -----------------------------------------------------------------------------------------------------


def test_a_recording_has_one_row_of_everything_per_frame(corpus):
    recording = corpus.render(corpus.clip(1, 0, Emotion.ANGRY))
    steps = len(recording.frames)
    assert (recording.frames.shape, recording.frames.dtype) == ((steps, 96, 96, 3), np.uint8)
    assert (recording.landmarks.shape, recording.landmarks.dtype) == ((steps, 478, 2), np.float32)
    shapes = {"visemes": (4,), "phase": (), "opening": (), "units": (52,), "pose": (3,), "ibug68": (68, 2)}
    assert {name: values.shape for name, values in recording.truth.items()} == {
        k: (steps, *v) for k, v in shapes.items()
    }
    assert len(recording.speech) == round(steps / 25 * 16_000)
    for values in (recording.landmarks, recording.speech, *recording.truth.values()):
        assert np.isfinite(values).all()
    assert 0 <= recording.truth["units"].min() <= recording.truth["units"].max() <= 1
    np.testing.assert_allclose(
        recording.truth["ibug68"], converted(recording.landmarks, "mesh478", "ibug68"), atol=1e-3
    )
    for name, values in corpus.truth(corpus.clip(1, 0, Emotion.ANGRY)).items():
        np.testing.assert_array_equal(values, recording.truth[name])


def test_the_frame_size_changes_resolution_only(corpus):
    larger = HeadsCorpus(identities=6, sentences=2, size=192)
    clip = corpus.clip(0, 1, Emotion.HAPPY)
    small, large = corpus.truth(clip), larger.truth(clip)
    np.testing.assert_array_equal(small["units"], large["units"])
    np.testing.assert_allclose(small["ibug68"] * 2, large["ibug68"], atol=1e-2)


def test_the_target_in_the_own_emotion_is_the_recording_and_another_one_changes_the_face_alone(corpus):
    clip = next(
        c for c in corpus.clips() if c.emotion is Emotion.NEUTRAL and not corpus.staged(c, c.emotion)[0].view.quality
    )
    source, target = corpus.render(clip), corpus.target(clip, Emotion.SURPRISED)
    np.testing.assert_array_equal(source.frames, corpus.target(clip, Emotion.NEUTRAL).frames)
    np.testing.assert_array_equal(source.speech, target.speech)
    for name in ("visemes", "phase", "pose"):
        np.testing.assert_array_equal(source.truth[name], target.truth[name])
    still = [168, 6, 197, 195]  # the bridge of the nose shows the pose
    assert np.abs(source.landmarks[:, still] - target.landmarks[:, still]).max() < 0.6
    before, after = (corpus.layers(clip, emotion).mask for emotion in (Emotion.NEUTRAL, Emotion.SURPRISED))
    around = np.isin(before, [0, 9]) & np.isin(after, [0, 9])
    for axis in (1, 2):  # two pixels away from everything else: lens and supersampling reach that far
        for shift in (1, 2, -1, -2):
            around &= np.roll(around, shift, axis)
    assert around.sum() > 50 * len(around)
    changed = (source.frames != target.frames).any(-1)
    assert changed[around].mean() < 0.02
    assert changed[~around].mean() > 0.3


def test_landmarks_lie_where_the_pixels_show_them(corpus):
    """Irises on eyes that are open, the inner lips on mouth or lips, the nose on skin and nearer than all around it."""
    seen, hits = {"eye": 0, "lips": 0}, {"eye": 0, "lips": 0}
    for speaker in range(3):
        clip = corpus.clip(speaker, 1, Emotion.SURPRISED)
        layers, landmarks, truth = corpus.layers(clip), corpus.render(clip).landmarks, corpus.truth(clip)
        masks, blink = layers.mask, truth["units"][:, UNITS.of("eyeBlink")].max(1)
        for step in np.flatnonzero(blink < 0.1)[::6]:
            column, row = np.floor(landmarks[step]).astype(int).T
            for eye in (468, 473):
                seen["eye"] += 1
                hits["eye"] += masks[step, row[eye], column[eye]] == LABELS.index("eye")
            for lip in (0, 17):  # the outer edges of both lips, a little inwards
                inwards = row[lip] + (2 if lip == 0 else -2)
                seen["lips"] += 1
                hits["lips"] += masks[step, inwards, column[lip]] == LABELS.index("lips")
                depth, ear = layers.depth[step], layers.depth[step][masks[step] == LABELS.index("skin")].max()
                assert depth[row[4], column[4]] < ear - 0.5, "the tip of the nose is far in front of other skin"
    assert hits["eye"] >= 0.85 * seen["eye"]
    assert hits["lips"] >= 0.85 * seen["lips"]


def test_layers_agree_with_each_other(corpus):
    layers = corpus.layers(corpus.clip(2, 0, Emotion.NEUTRAL))
    there = layers.mask > 0
    assert (np.isfinite(layers.depth) == there).all()
    lengths = np.linalg.norm(layers.normals, axis=-1)
    np.testing.assert_allclose(lengths[there], 1, atol=1e-4)
    assert not lengths[~there].any()
    assert {1, 2, 3} <= set(np.unique(layers.mask))
    assert 0.5 < there.mean() < 0.98
    # A surface that turns away is seen at a slant: the mean of the skin faces the camera.
    assert layers.normals[layers.mask == 1].mean(0)[2] > 0.4


def test_closed_lips_close_in_every_emotion_and_vowels_open_them(corpus, truths):
    closed, opened = [], []
    for clip, truth in truths:
        sentence = corpus._canons[int(clip.sentence)]
        index = np.clip(np.searchsorted(sentence.starts, truth["phase"], side="right") - 1, 0, len(sentence.sounds) - 1)
        within = (truth["phase"] - sentence.starts[index]) / np.diff(sentence.starts)[index]
        sounds = np.array(sentence.sounds)[index]
        middle = (within > 0.3) & (within < 0.7)
        closed += truth["opening"][middle & np.isin(sounds, ["m", "p"])].tolist()
        opened += truth["opening"][middle & np.isin(sounds, ["a"])].tolist()
    assert len(closed) > 20
    assert np.quantile(closed, 0.9) < 0.5 * np.median(opened)


def test_emotion_hardly_gives_the_opening_away(truths):
    openings = {e: [] for e in SEVEN}
    for clip, truth in truths:
        openings[clip.emotion].append(truth["opening"])
    joined = {e: np.concatenate(v) for e, v in openings.items()}
    every = np.concatenate(list(joined.values()))
    within = sum(((v - v.mean()) ** 2).sum() for v in joined.values())
    # Surprise and anger open the mouth by a third of its range in speech; words do the rest.
    assert 1 - within / ((every - every.mean()) ** 2).sum() < 0.22


def test_emotions_are_told_apart_by_landmarks_of_people_never_seen(truths):
    """A linear rule on the mean shape of a recording against its speaker's neutral ones, learnt on the other speakers."""
    shapes, emotions, speakers = [], [], []
    for clip, truth in truths:
        points = truth["ibug68"].astype(np.float64) @ (1, 1j)
        upright = (points - points[:, [36, 45]].mean(1, keepdims=True)) / (points[:, 45] - points[:, 36])[:, None]
        mean = upright.mean(0)[17:]
        shapes.append(np.concatenate([mean.real, mean.imag]))
        emotions.append(SEVEN.index(clip.emotion))
        speakers.append(clip.speaker)
    shape, emotion, speaker = (np.array(rows) for rows in (shapes, emotions, speakers))
    shape -= np.stack([shape[(speaker == who) & (emotion == 0)].mean(0) for who in speaker])
    right = 0
    for who in np.unique(speaker):
        rule = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(
            shape[speaker != who], emotion[speaker != who]
        )
        right += (rule.predict(shape[speaker == who]) == emotion[speaker == who]).sum()
    assert right / len(shape) > 0.85


def test_the_mesh_finder_finds_rendered_faces_where_they_are(corpus, mesh):
    """Said in docs/prepare.md: how many frames of the rendered corpus have a face for MediaPipe, and how far its points are from the truth."""
    finder = AlignedFinder(MeshFinder())
    found, errors = [], []
    for speaker, emotion in enumerate((Emotion.NEUTRAL, Emotion.HAPPY, Emotion.FEAR, Emotion.SAD)):
        recording = corpus.render(corpus.clip(speaker, 1, emotion))
        track = finder.track(recording.frames[::4])
        true = recording.landmarks[::4]
        found += np.isfinite(track.landmarks).all((1, 2)).tolist()
        apart = np.linalg.norm(true[:, 263] - true[:, 33], axis=-1)[:, None]
        errors.append(
            (np.linalg.norm(track.landmarks - true, axis=-1) / apart)[np.isfinite(track.landmarks).all((1, 2))]
        )
    error = np.concatenate(errors)
    print(f"found in {np.mean(found):.3f} of the frames, error {np.median(error):.4f} of the outer eye distance")
    assert np.mean(found) > 0.97
    assert np.median(error) < 0.06


# --- identities and the room ----------------------------------------------------------------------------------------


def test_the_corpus_is_found_by_its_name_and_has_64_different_people():
    corpus = rendered.corpus("heads")
    assert isinstance(corpus, HeadsCorpus)
    assert corpus.identities == 64
    people = [corpus.person(corpus.clip(speaker, 0, Emotion.NEUTRAL)) for speaker in range(64)]
    shapes = np.stack([p.shape for p in people])
    apart = np.linalg.norm(shapes[:, None] - shapes, axis=-1)[~np.eye(64, dtype=bool)]
    assert apart.min() > 0.5
    assert len({p.style for p in people}) >= 8
    assert 4 <= sum(p.glasses > 0 for p in people) <= 30
    assert {len(corpus.clips(part)) for part in ("train", "validation", "test")} == {44 * 9 * 7, 6 * 2 * 7, 14 * 3 * 7}
    with pytest.raises(ValueError, match="there are heads, synthetic"):
        rendered.corpus("cartoons")


def test_the_asset_is_small_and_read_without_pickles(tmp_path):
    place = Path(asset.__file__).with_name("head.npz")
    assert place.stat().st_size < 2.5e6
    with np.load(place, allow_pickle=False) as stored:
        content = {name: stored[name] for name in stored.files}
    assert not any(values.dtype.hasobject for values in content.values())
    np.savez(tmp_path / "head.npz", **{**content, "format": np.array("spfem-head/0")})
    with (
        np.load(tmp_path / "head.npz", allow_pickle=False) as other,
        pytest.raises(ValueError, match=r"head.npz has format 'spfem-head/0'.*finish.py"),
    ):
        asset.read(other, str(tmp_path / "head.npz"))


def test_every_sound_has_a_viseme():
    from spfem_dist.corpora._speech.script import PHONEMES

    assert set(VISEMES) == set(PHONEMES)
    assert not VISEMES[SILENCE]


def test_heads_are_prepared_into_shards(tmp_path):
    out = tmp_path / "shards"
    small = ["--identities", "1", "--synthetic-sentences", "1", "--size", "64", "--local"]
    well(command("spfem", "prepare", "heads", "--out", out, *small))
    index = ShardIndex.load(out)
    assert (index.corpus, index.landmarks, index.size) == ("heads", "mesh478", 64)
    ((_, group),) = groups_of(out)
    assert {r.emotion for r in group.recordings} == set(SEVEN)
    assert group.recordings[0].truth["units"].shape[1] == 52
    assert len(group.warps) == 21
