"""The corpus is hard enough to prove something: a linear stretch misses, a time warp on speech finds the truth."""

from __future__ import annotations

import itertools

import librosa
import numpy as np
import pytest

from spfem_dist.corpora.synthetic import SyntheticCorpus
from spfem_dist.emotions import SEVEN, Emotion


@pytest.fixture(scope="module")
def corpus() -> SyntheticCorpus:
    return SyntheticCorpus.small(identities=3, sentences=4, size=32)


def _warp_by_speech(a: np.ndarray, b: np.ndarray, frames: tuple[int, int]) -> np.ndarray:
    """Frame of `b` for each frame of `a`, by DTW on MFCC with the mean taken out, one row per video frame."""
    rows = []
    for sound, steps in zip((a, b), frames, strict=True):
        mfcc = librosa.feature.mfcc(y=sound, sr=16_000, n_mfcc=13, hop_length=640, n_fft=1024)[:, :steps]
        rows.append(mfcc - mfcc.mean(1, keepdims=True))
    path = librosa.sequence.dtw(*rows, metric="cityblock")[1]
    return np.array([path[path[:, 0] == t, 1].mean() for t in range(frames[0])])


def test_stretch_misses_and_time_warp_hits(corpus):
    stretch, warped = [], []
    for speaker, sentence in ((0, 0), (1, 1), (2, 2), (0, 3)):
        clips = [corpus.clip(speaker, sentence, e) for e in SEVEN]
        spoken = [(corpus.truth(c)["phase"], corpus.speech(c)) for c in clips]
        for (phase_a, a), (phase_b, b) in itertools.islice(itertools.combinations(spoken, 2), 0, None, 3):
            steps = len(phase_a), len(phase_b)
            true = np.interp(phase_a, phase_b, np.arange(steps[1]))
            stretch.append(np.abs(np.arange(steps[0]) * (steps[1] - 1) / (steps[0] - 1) - true))
            warped.append(np.abs(_warp_by_speech(a, b, steps) - true))
    stretch, warped = np.concatenate(stretch), np.concatenate(warped)
    assert (stretch <= 2).mean() <= 0.70
    assert (warped <= 2).mean() >= 0.95
    assert warped.mean() <= 0.8


def test_the_true_warp_joins_equal_phases(corpus):
    a, b = corpus.clip(0, 0, Emotion.SAD), corpus.clip(0, 0, Emotion.ANGRY)
    path = corpus.warp(a, b)
    one, other = corpus.render(a), corpus.render(b)
    assert path.dtype == np.int32
    assert set(path[0]) == set(range(len(one.frames)))
    assert set(path[1]) == set(range(len(other.frames)))
    steps = np.diff(path, axis=1)
    assert steps.min() >= 0
    assert steps.max() <= 1
    assert (steps.sum(0) > 0).all()
    apart = np.abs(one.truth["visemes"][path[0]] - other.truth["visemes"][path[1]]).mean()
    straight = np.linspace(0, len(other.frames) - 1, len(one.frames)).round().astype(int)
    stretched = np.abs(one.truth["visemes"] - other.truth["visemes"][straight]).mean()
    assert apart < 0.05
    assert apart < stretched / 2


def test_the_warp_back_is_the_warp_turned_round(corpus):
    a, b = corpus.clip(1, 1, Emotion.HAPPY), corpus.clip(1, 1, Emotion.NEUTRAL)
    forth, back = corpus.warp(a, b), corpus.warp(b, a)
    assert {tuple(p) for p in forth.T} == {tuple(p[::-1]) for p in back.T}


def test_different_sentences_have_no_warp(corpus):
    with pytest.raises(ValueError, match="different things"):
        corpus.warp(corpus.clip(0, 0, Emotion.HAPPY), corpus.clip(0, 1, Emotion.HAPPY))


def test_speech_is_in_step_with_the_mouth(corpus):
    """Voiced energy rises with the opening: sound and picture share one clock."""
    found = []
    for sentence in range(4):
        recording = corpus.render(corpus.clip(2, sentence, Emotion.NEUTRAL))
        rows = recording.speech.reshape(len(recording.frames), -1)
        energy = np.log(np.sqrt((rows**2).mean(1)) + 1e-3)
        shifts = [
            np.corrcoef(
                energy[10 : len(energy) - 10], np.roll(recording.truth["visemes"][:, 0], s)[10 : len(energy) - 10]
            )[0, 1]
            for s in range(-8, 9)
        ]
        found.append(shifts)
    best = np.argmax(np.mean(found, axis=0)) - 8
    assert abs(best) <= 1
    assert np.mean(found, axis=0).max() > 0.4


def test_emotion_changes_pitch_energy_and_pace(corpus):
    from spfem_dist.corpora._speech.prosody import PROSODY

    def loudness(emotion: Emotion) -> float:
        return float(np.mean([np.sqrt((corpus.speech(corpus.clip(s, 0, emotion)) ** 2).mean()) for s in range(3)]))

    def frames(emotion: Emotion) -> float:
        return float(
            np.mean([len(corpus.truth(corpus.clip(s, t, emotion))["phase"]) for s in range(3) for t in range(4)])
        )

    assert loudness(Emotion.ANGRY) > 1.3 * loudness(Emotion.SAD)
    assert frames(Emotion.SAD) > frames(Emotion.ANGRY)
    assert PROSODY[Emotion.FEAR].pitch > PROSODY[Emotion.SAD].pitch
