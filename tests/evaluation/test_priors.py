"""The scores tell a prior that looks from one that only listens, on groups made by rule."""

import numpy as np
import pytest
import torch
from torch import nn

from spfem_dist.emotions import SEVEN
from spfem_dist.evaluation.groups import (
    EvaluationGroup,
    EvaluationRecording,
    every_pair,
    frames_tensor,
    probe_rows,
    speech_windows,
    unit,
)
from spfem_dist.evaluation.priors import evaluate_priors, score_corpus
from spfem_dist.priors.ccrl import scores as ccrl
from spfem_dist.priors.cerl import scores as cerl

FRAMES, CODES = 30, 6


def group(speaker: int, sentence: int, *, phase: bool = True) -> EvaluationGroup:
    """Three emotions of a sentence. Each frame's pixels and speech show the same smooth code of its phase; the top row of
    pixels shows the emotion, the next the speaker."""
    knots = np.random.default_rng(100 + sentence).uniform(0.1, 0.9, (9, CODES))
    recordings = []
    for number, emotion in enumerate(SEVEN[:3]):
        clock = np.linspace(0, 1, FRAMES) ** (1.0 + 0.15 * number)
        code = np.stack([np.interp(clock, np.linspace(0, 1, len(knots)), curve) for curve in knots.T], 1)
        frames = np.zeros((FRAMES, 8, 8, 3), np.uint8)
        frames[:, 2 : 2 + CODES, :, :] = (255 * code)[:, :, None, None].astype(np.uint8)
        frames[:, 0, number] = 255
        frames[:, 1, speaker % 8] = 255
        recordings.append(
            EvaluationRecording(
                f"{emotion}-1-1",
                emotion,
                frames,
                np.tile(code, (1, 2)).astype(np.float32),
                np.ones(FRAMES, bool),
                mouth=code[:, :3],
                opening=code[:, 0],
                phase=clock if phase else None,
            )
        )
    path = np.stack([np.arange(FRAMES)] * 2)
    warps = {(recordings[0].name, r.name): path for r in recordings[1:]}
    return EvaluationGroup(f"S{speaker}_{sentence}", f"S{speaker}", f"{sentence}", recordings, warps)


TEST = [group(s, t) for s in (0, 1) for t in (0, 1)]
TRAIN = [group(s, t) for s in (2, 3, 4) for t in (2, 3, 4)]


class Oracle(nn.Module):
    """Embeds what it is told to: pixels rows (`sees`), the middle row of the speech (`hears`)."""

    def __init__(self, sees: slice | None, hears: bool, shows_emotion: bool = False):
        super().__init__()
        self.shows_emotion = shows_emotion
        self.sees, self.hears = sees, hears

    def embed(self, frames, speech):
        parts = [torch.full((len(frames), 1), 0.2)]
        if self.sees is not None:
            rows = frames[:, 0, self.sees].float() / 255
            parts.append(rows.flatten(1) - rows.mean() if self.shows_emotion else rows[:, :, -1] - 0.5)
        if self.hears and speech is not None:
            parts.append(speech[:, speech.shape[1] // 2, :CODES] - 0.5)
        return nn.functional.normalize(torch.cat(parts, 1), dim=1)

    def priors(self):
        faces = torch.zeros(7, 3, 8, 8, dtype=torch.uint8)
        for i in range(7):
            faces[i, :, 0, i] = 255
        return self.embed(faces, None)


def values(figures):
    return {name: figure.value for name, figure in figures.items()}


def test_a_prior_that_looks_finds_the_frame_under_the_same_speech():
    found = values(ccrl.score(Oracle(slice(2, 8), hears=True), TEST, TRAIN))
    assert found["content/same_speech_auc"] > 0.95
    assert found["content/same_speech_top1"] > 0.8
    assert found["content/wrong_speech_top1"] > 0.8
    assert found["content/viseme_r2"] > 0.9
    assert found["content/viseme_r2_without_speech"] > 0.9


def test_a_prior_that_only_listens_shows_its_shortcut():
    found = values(ccrl.score(Oracle(None, hears=True), TEST, TRAIN))
    assert found["content/own_speech_top1"] > 0.8
    assert found["content/speech_only_top1"] == pytest.approx(found["content/own_speech_top1"])
    assert found["content/same_speech_auc"] == pytest.approx(0.5, abs=0.02)
    assert found["content/same_speech_top1"] < 0.3
    assert found["content/viseme_r2_without_speech"] < 0.1


def test_the_trivial_baselines_stand_beside_it():
    found = values(ccrl.score(Oracle(slice(2, 8), hears=True), TEST, TRAIN))
    assert found["content/unlearned_speech_top1"] > 0.8
    assert 0.2 < found["content/position_only_top1"] <= 1
    assert 3 / FRAMES < found["content/chance_top1"] < 5 / FRAMES


def test_every_figure_has_an_interval_around_it():
    figures = evaluate_priors({"ccrl": Oracle(slice(2, 8), hears=True)}, TEST, TRAIN)
    assert all(f.low - 1e-9 <= f.value <= f.high + 1e-9 and f.clips >= 1 for f in figures.values())


def test_the_truth_decides_the_match_and_the_warp_stands_in_for_it():
    known = values(score_corpus(TEST))
    assert known["corpus/dtw_mean_error_frames"] > 0.3
    assert 0 < known["corpus/dtw_within_2"] < 1, "the diagonal path is not the true one"
    assert known["corpus/linear_stretch_within_2"] == pytest.approx(known["corpus/dtw_within_2"])
    unknown = [group(s, t, phase=False) for s in (0, 1) for t in (0, 1)]
    assert score_corpus(unknown) == {}
    by_warp = values(ccrl.score(Oracle(slice(2, 8), hears=False), unknown, TRAIN))
    by_truth = values(ccrl.score(Oracle(slice(2, 8), hears=False), TEST, TRAIN))
    assert by_warp["content/position_only_top1"] == 1.0, "the diagonal path makes mere position perfect"
    assert by_truth["content/position_only_top1"] < 1.0


def test_emotion_is_read_from_a_prior_that_shows_it_and_not_from_one_that_does_not():
    shows = Oracle(slice(0, 1), hears=False, shows_emotion=True)
    rows = [probe_rows(shows, groups, 2, 5, "cpu") for groups in (TRAIN, TEST)]
    assert ccrl.content_probes(*rows)["content/emotion_probe"].value > 0.9
    hides = [probe_rows(Oracle(slice(2, 8), hears=True), groups, 2, 5, "cpu") for groups in (TRAIN, TEST)]
    assert ccrl.content_probes(*hides)["content/emotion_probe"].value < 0.5


def test_the_identity_probe_reads_an_unheard_sentence():
    shows = Oracle(slice(1, 2), hears=False, shows_emotion=True)
    rows = [probe_rows(shows, groups, 2, 5, "cpu") for groups in (TRAIN, TEST)]
    assert ccrl.content_probes(*rows)["content/identity_probe"].value > 0.9


def test_emotion_priors_name_the_emotion_and_hide_the_mouth():
    prior = Oracle(slice(0, 1), hears=False, shows_emotion=True)
    found = values(cerl.score(prior, TEST, TRAIN))
    assert found["emotion/accuracy"] == 1.0
    assert found["emotion/worst_class"] == 1.0
    assert {f"emotion/accuracy_{e}" for e in SEVEN[:3]} <= set(found)
    assert found["emotion/mouth_opening_r2"] < 0.1


def test_recordings_without_a_found_face_are_not_scored():
    blind = group(0, 0)
    for r in blind.recordings[1:]:
        r.frames[:] = 0
        r.valid[:] = False
    rows = probe_rows(Oracle(slice(2, 8), hears=False), [blind], 1, 5, "cpu")
    assert set(rows.emotion) == {SEVEN[0].value}


def test_windows_repeat_the_ends():
    windows = speech_windows(np.arange(5.0)[:, None], 3)
    assert windows[..., 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]


def test_pairs_are_the_same_with_and_without_a_shared_table():
    prior = Oracle(slice(2, 8), hears=True)
    faces, speech = (
        frames_tensor(TEST[0].recordings[0].frames, "cpu"),
        speech_windows(TEST[0].recordings[1].features, 5),
    )
    table = every_pair(prior, faces, speech[:4], "cpu")
    np.testing.assert_allclose(table[3], unit(prior, faces, np.repeat(speech[3:4], FRAMES, 0), "cpu"), atol=1e-6)
