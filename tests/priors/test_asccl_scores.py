"""ASCCL's scores on clips whose truth is known: they tell a metric that sees the mouth from one that sees nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from spfem_dist.emotions import SEVEN
from spfem_dist.evaluation.groups import EvaluationGroup, EvaluationRecording
from spfem_dist.priors.asccl import scores
from spfem_dist.priors.asccl.metric import around_mouth, square

FRAMES, SIDE = 24, 32


class Pixels(nn.Module):
    """A metric on the pictures themselves, or on nothing."""

    def __init__(self, blind=False):
        super().__init__()
        self.blind = blind

    def face_maps(self, frames):
        maps = nn.functional.avg_pool2d(frames.float() / 255, 2)
        return [torch.ones_like(maps) if self.blind else maps]

    def code(self, level, found):
        return nn.functional.normalize(found + 1e-6, dim=-1)

    def centres(self, side, window="face"):
        places = square(1, side - 2)
        return places[around_mouth(places, side)] if window == "mouth" else places


def recording(number: int, speaker: int) -> EvaluationRecording:
    """A textured face whose mouth's texture turns with time, as fast in every emotion."""
    rng = np.random.default_rng(speaker)
    face, mouth = rng.integers(0, 255, (SIDE, SIDE, 3)), rng.integers(0, 255, (FRAMES, 8, 12, 3))
    frames = np.repeat(face[None], FRAMES, 0)
    frames[:, 20:28, 10:22] = mouth
    phase = np.linspace(0, 1, FRAMES)
    return EvaluationRecording(
        f"{SEVEN[number].value}-1-1",
        SEVEN[number],
        (frames // 2 + 20 * number).astype(np.uint8),
        np.zeros((FRAMES, 4), np.float32),
        np.ones(FRAMES, bool),
        phase=phase,
    )


GROUPS = [EvaluationGroup(f"S{s}_00", f"S{s}", "00", [recording(n, s) for n in (0, 1, 2)]) for s in (1, 2)]


@pytest.fixture(scope="module")
def seeing():
    return scores.score(Pixels(), GROUPS, [])


def test_a_metric_that_sees_the_mouth_knows_the_moment_and_the_place(seeing):
    assert seeing["asccl/right_frame_mouth"].value > 0.95
    assert seeing["asccl/right_frame_face"].value > 0.95
    assert seeing["asccl/place_top1"].value > 0.9


def test_a_blind_metric_is_at_chance():
    blind = scores.score(Pixels(blind=True), GROUPS, [])
    assert blind["asccl/right_frame_mouth"].value == pytest.approx(0.5)
    assert blind["asccl/place_top1"].value < 0.1


def test_every_emotion_has_a_figure_and_every_figure_an_interval_over_clips(seeing):
    assert {f"asccl/mouth_{SEVEN[n].value}" for n in (1, 2)} <= set(seeing)
    assert seeing["asccl/right_frame_mouth"].clips == 4
    assert all(f.low - 1e-9 <= f.value <= f.high + 1e-9 for f in seeing.values())
    assert set(seeing) <= set(scores.MEANINGS)


def test_frames_without_a_found_face_are_neither_asked_nor_offered():
    hidden = EvaluationGroup("S1_00", "S1", "00", [recording(n, 1) for n in (0, 1)])
    for clip in hidden.recordings:
        clip.valid[::2] = False
        clip.frames[::2] = 0
    assert scores.score(Pixels(), [hidden], [])["asccl/right_frame_mouth"].value > 0.95
