"""The rendered corpus: deterministic, its factors independent, its truth consistent with its pictures and speech."""

from __future__ import annotations

import hashlib
import multiprocessing

import cv2
import numpy as np
import pytest

from spfem_dist.corpora.synthetic import SyntheticCorpus, synthetic_split
from spfem_dist.emotions import SEVEN, Emotion


@pytest.fixture(scope="module")
def corpus() -> SyntheticCorpus:
    return SyntheticCorpus.small(identities=4, sentences=3)


def _digest(arguments: dict, clip_number: int) -> str:
    corpus = SyntheticCorpus(**arguments)
    recording = corpus.render(corpus.clips()[clip_number])
    parts = [recording.frames, recording.speech, recording.landmarks, *recording.truth.values()]
    return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()


def test_another_process_renders_identical_arrays():
    arguments = {"identities": 3, "sentences": 2, "size": 48}
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        there = pool.apply(_digest, (arguments, 17))
    assert there == _digest(arguments, 17)


def test_the_seed_decides_everything(corpus):
    clip = corpus.clip(1, 1, Emotion.HAPPY)
    other = SyntheticCorpus.small(seed=1).render(clip)
    first = corpus.render(clip)
    assert len(first.frames) != len(other.frames) or not np.array_equal(first.frames, other.frames)


def test_rendering_order_and_corpus_size_do_not_matter(corpus):
    clip = corpus.clip(2, 1, Emotion.SAD)
    alone = SyntheticCorpus.small(identities=3, sentences=2).render(clip)
    corpus.render(corpus.clip(0, 0, Emotion.FEAR))
    np.testing.assert_array_equal(alone.frames, corpus.render(clip).frames)
    np.testing.assert_array_equal(alone.speech, corpus.render(clip).speech)


def test_the_frame_size_changes_resolution_only():
    small, large = (SyntheticCorpus.small(size=s) for s in (64, 128))
    clip = small.clip(0, 0, Emotion.ANGRY)
    a, b = small.render(clip), large.render(clip)
    np.testing.assert_array_equal(a.speech, b.speech)
    np.testing.assert_allclose(a.landmarks * 2, b.landmarks, atol=1e-3)
    halved = b.frames.reshape(len(b.frames), 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(halved - a.frames).mean() < 8


def test_a_recording_has_one_row_of_everything_per_frame(corpus):
    for clip in corpus.clips()[::11]:
        recording = corpus.render(clip)
        steps = len(recording.frames)
        assert recording.frames.dtype == np.uint8
        assert recording.frames.shape == (steps, 64, 64, 3)
        assert recording.landmarks.shape == (steps, 68, 2)
        assert recording.landmarks.dtype == np.float32
        assert recording.truth["visemes"].shape == (steps, 4)
        assert recording.truth["phase"].shape == recording.truth["opening"].shape == (steps,)
        assert recording.valid.all()
        assert recording.valid.shape == (steps,)
        assert recording.speech.dtype == np.float32
        assert len(recording.speech) == round(steps / recording.fps * 16_000)
        for values in (recording.landmarks, recording.speech, *recording.truth.values()):
            assert np.isfinite(values).all()
        assert np.abs(recording.speech).max() <= 1
        assert recording.landmarks.min() > -8
        assert recording.landmarks.max() < 72
        assert recording.truth["visemes"].min() >= 0
        assert recording.truth["visemes"].max() <= 1


def test_the_target_in_the_own_emotion_is_the_recording(corpus):
    clip = corpus.clip(1, 2, Emotion.DISGUSTED)
    np.testing.assert_array_equal(corpus.target(clip, Emotion.DISGUSTED).frames, corpus.render(clip).frames)


@pytest.mark.parametrize("emotion", [Emotion.HAPPY, Emotion.ANGRY, Emotion.SURPRISED])
def test_the_target_changes_the_face_and_nothing_around_it(corpus, emotion):
    clip = corpus.clip(0, 1, Emotion.NEUTRAL)
    source, target = corpus.render(clip), corpus.target(clip, emotion)
    np.testing.assert_array_equal(source.speech, target.speech)
    np.testing.assert_array_equal(source.truth["visemes"], target.truth["visemes"])
    np.testing.assert_array_equal(source.truth["phase"], target.truth["phase"])
    changed = (source.frames != target.frames).any(-1)
    assert changed.any((1, 2)).all(), "some frame shows no other expression"
    rows, columns = np.mgrid[:64, :64]
    for step in range(0, len(changed), 5):
        jaw = np.concatenate([source.landmarks[step, :17], target.landmarks[step, :17]])
        low, high = jaw.min(0) - 3, jaw.max(0) + 3
        around = (columns < low[0]) | (columns > high[0]) | (rows > high[1])
        assert around.sum() > 300
        assert not changed[step][around].any()
    still = [*range(27, 31)]  # the bridge of the nose shows the pose
    np.testing.assert_array_equal(source.landmarks[:, still], target.landmarks[:, still])


def test_backgrounds_differ_between_recordings_of_one_person(corpus):
    corners = [
        corpus.render(corpus.clip(0, s, e)).frames[:, :6, :6].mean((0, 1, 2)) for s in range(3) for e in SEVEN[:3]
    ]
    assert np.std(corners, axis=0).min() > 15


def test_landmarks_open_with_the_true_opening(corpus):
    drawn, true = [], []
    for clip in corpus.clips()[::9]:
        recording = corpus.render(clip)
        points = recording.landmarks
        eyes = np.linalg.norm(points[:, 45] - points[:, 36], axis=1)
        drawn.append(np.linalg.norm(points[:, 66] - points[:, 62], axis=1) / eyes)
        true.append(recording.truth["opening"])
    assert np.corrcoef(np.concatenate(drawn), np.concatenate(true))[0, 1] > 0.9


def _mouths(corpus: SyntheticCorpus, speaker: int, sentence: int) -> tuple[np.ndarray, np.ndarray]:
    """Mouths of all emotions, turned upright and standardised [T, 20 x 24 x 3], and their visemes [T, 4]."""
    pictures, visemes = [], []
    for emotion in SEVEN:
        recording = corpus.render(corpus.clip(speaker, sentence, emotion))
        visemes.append(recording.truth["visemes"])
        for frame, points in zip(recording.frames, recording.landmarks, strict=True):
            foot, eyes = points[33].astype(float), points[45] - points[36]
            turn = cv2.getRotationMatrix2D((foot[0], foot[1]), float(np.degrees(np.arctan2(eyes[1], eyes[0]))), 1)
            turn[:, 2] += np.array((12, 2)) - foot
            mouth = cv2.warpAffine(frame, turn, (24, 20)).astype(float)
            pictures.append(((mouth - mouth.mean((0, 1))) / mouth.std()).ravel())
    return np.stack(pictures), np.concatenate(visemes)


def test_pictures_of_64_pixels_alone_tell_the_visemes_of_another_sentence():
    """Kernel ridge regression on one person's mouths, learnt on four sentences and read on the fifth, all emotions."""
    corpus = SyntheticCorpus.small(identities=2, sentences=5)
    seen = [_mouths(corpus, 1, s) for s in range(4)]
    pictures, visemes = np.concatenate([p for p, _ in seen]), np.concatenate([v for _, v in seen])
    unseen, true = _mouths(corpus, 1, 4)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
        return np.exp(-squares / (2 * a.shape[1]))

    weights = np.linalg.solve(kernel(pictures, pictures) + 0.1 * np.eye(len(pictures)), visemes - visemes.mean(0))
    read = kernel(unseen, pictures) @ weights + visemes.mean(0)
    explained = 1 - ((read - true) ** 2).mean(0) / true.var(0)
    assert explained[0] > 0.75, "opening"
    assert explained.mean() > 0.6
    assert explained.min() > 0.3


def test_emotion_does_not_give_the_opening_away():
    corpus = SyntheticCorpus.small(identities=6, sentences=4, size=32)
    openings = {e: [] for e in SEVEN}
    for clip in corpus.clips():
        openings[clip.emotion].append(corpus.truth(clip)["opening"])
    joined = {e: np.concatenate(v) for e, v in openings.items()}
    every = np.concatenate(list(joined.values()))
    within = sum(((v - v.mean()) ** 2).sum() for v in joined.values())
    assert 1 - within / ((every - every.mean()) ** 2).sum() < 0.05


def test_sentences_are_distinct_and_share_their_visemes():
    from spfem_dist.corpora._speech.script import SILENCE, sentences

    spoken = sentences(0, 14)
    assert len(set(spoken)) == 14
    sounds = [[p for p in s if p != SILENCE] for s in spoken]
    assert all(10 <= len(s) <= 14 for s in sounds)
    for a in range(14):
        for b in range(a):
            assert len(set(sounds[a]) & set(sounds[b])) >= 2


def test_the_split_keeps_speakers_and_sentences_apart():
    parts = synthetic_split()
    corpus = SyntheticCorpus()
    assert {p: (len(v["speakers"]), len(v["sentences"])) for p, v in parts.items()} == {
        "train": (18, 9),
        "validation": (2, 2),
        "test": (6, 3),
    }
    for who in ("speakers", "sentences"):
        names = [n for part in parts.values() for n in part[who]]
        assert len(names) == len(set(names))
    assert len(corpus.clips()) == (18 * 9 + 2 * 2 + 6 * 3) * 7
    assert {c.speaker for c in corpus.clips("test")} == set(parts["test"]["speakers"])


def test_a_crossed_corpus_has_every_speaker_with_every_sentence(corpus):
    clips = corpus.clips()
    assert len(clips) == 4 * 3 * 7
    assert len({c.group for c in clips}) == 12
    assert all("." not in c.recording and "." not in c.group for c in clips)


def test_wrong_arguments_are_refused_with_the_fix(corpus):
    with pytest.raises(ValueError, match="32 to 512"):
        SyntheticCorpus(size=8)
    with pytest.raises(ValueError, match="at least one"):
        SyntheticCorpus(identities=0)
    with pytest.raises(ValueError, match="5 to 100"):
        SyntheticCorpus(fps=0)
    with pytest.raises(ValueError, match="crossed"):
        corpus.clips("train")
    with pytest.raises(ValueError, match="not in this corpus"):
        corpus.render(corpus.clip(9, 0, Emotion.HAPPY))
    with pytest.raises(ValueError, match="unknown part"):
        SyntheticCorpus().clips("dev")
