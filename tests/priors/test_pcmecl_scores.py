"""PCMECL's scores on clips whose truth is known: they tell a prior that knows the speaker from one that does not."""

import numpy as np
import pytest
import torch
from torch import nn

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.evaluation.groups import EvaluationGroup, EvaluationRecording
from spfem_dist.priors import pcmecl
from spfem_dist.priors.pcmecl import scores

FRAMES = 6
SPEAKERS = ("S1", "S2", "S3")


class Offsets(nn.Module):
    """Frames carry a number: 20 for each emotion and 4 for each speaker. A prompt is where a speaker's rest, or nobody's, puts it."""

    hears = False
    device = torch.device("cpu")
    settings = pcmecl.Settings(temperature=0.001)

    def embed(self, frames, speech=None):
        return self.at(frames[:, 0, 0, 0].float())

    def at(self, number):
        angle = number / 255
        return torch.stack([angle.cos(), angle.sin()], -1)

    def portrait(self, vectors, counted=None):
        return vectors.mean(1)

    def prompts(self, who=None):
        rest = torch.zeros(1) if who is None else torch.atan2(who[:, 1], who[:, 0]) * 255
        found = self.at(rest[:, None] + 20 * torch.arange(7))
        return found[0] if who is None else found


def groups(style=14, sentences=("00", "01")):
    found = []
    for speaker, name in enumerate(SPEAKERS):
        for sentence in sentences:
            recordings = [
                EvaluationRecording(
                    emotion.value,
                    emotion,
                    np.full((FRAMES, 8, 8, 3), 20 * number + style * speaker, np.uint8),
                    np.zeros((FRAMES, 4), np.float32),
                    np.ones(FRAMES, bool),
                )
                for number, emotion in enumerate(SEVEN)
            ]
            found.append(EvaluationGroup(f"{name}_{sentence}", name, sentence, recordings))
    return found


@pytest.fixture(scope="module")
def styled():
    return scores.score(Offsets(), groups(), [])


def test_own_prompts_are_right_where_nobodys_and_other_speakers_are_not(styled):
    assert styled["pcmecl/accuracy"].value == 1
    assert styled["pcmecl/accuracy_none"].value < 0.6
    assert styled["pcmecl/accuracy_wrong"].value < 0.6
    assert styled["pcmecl/gain_over_none"].low > 0.1
    assert styled["pcmecl/gain_over_wrong"].low > 0.1
    assert styled["pcmecl/surprise_over_none"].high < 0
    assert (
        styled["pcmecl/direction"].value > styled["pcmecl/direction"].value - styled["pcmecl/direction_over_none"].value
    )


def test_where_speakers_do_not_differ_nothing_is_gained():
    plain = scores.score(Offsets(), groups(style=0), [])
    assert plain["pcmecl/accuracy"].value == plain["pcmecl/accuracy_none"].value == 1
    assert plain["pcmecl/gain_over_none"].value == plain["pcmecl/gain_over_wrong"].value == 0


def test_every_figure_has_an_interval_over_clips_and_a_meaning(styled):
    assert styled["pcmecl/accuracy"].clips == len(SPEAKERS) * 2 * 7
    assert styled["pcmecl/direction"].clips == len(SPEAKERS) * 2 * 6
    assert all(f.low - 1e-9 <= f.value <= f.high + 1e-9 for f in styled.values())
    assert set(styled) <= set(scores.MEANINGS)
    assert {f"pcmecl/accuracy_{e}" for e in SEVEN} <= set(styled)


def test_no_clip_is_recognised_by_its_own_portrait():
    assert scores.score(Offsets(), groups(sentences=("00",)), []) == {}
    moved = groups()
    for recording in moved[0].recordings:
        if recording.emotion is Emotion.NEUTRAL:
            recording.frames = (
                recording.frames + 10
            )  # what is said of sentence 00 does not change by its own neutral clip
    before, after = (scores.score(Offsets(), g, [])["pcmecl/accuracy_happy"].value for g in (groups(), moved))
    assert after < before  # that of sentence 01, whose portrait it is, does
    assert after == pytest.approx(before - 1 / 6)


def test_frames_without_a_found_face_are_not_asked(styled):
    hidden = groups()
    for recording in (r for g in hidden for r in g.recordings):
        recording.valid[1::2] = False
        recording.frames[1::2] = 200
    found = scores.score(Offsets(), hidden, [])
    assert {k: f.value for k, f in found.items()} == pytest.approx({k: f.value for k, f in styled.items()}, abs=1e-5)
