"""STCCL's scores on clips whose truth is known: they tell a metric that sees when from one that sees nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from spfem_dist.emotions import SEVEN
from spfem_dist.evaluation.groups import EvaluationGroup, EvaluationRecording
from spfem_dist.priors.asccl.metric import around_mouth, square
from spfem_dist.priors.stccl_vd import scores

FRAMES, SIDE = 24, 32


class Pixels(nn.Module):
    """A metric on the pictures themselves by time alone, or on nothing."""

    frames = 5

    def __init__(self, blind=False):
        super().__init__()
        self.blind = blind

    def face_maps(self, frames):
        maps = nn.functional.avg_pool2d(frames.flatten(0, 1).float() / 255, 2).unflatten(0, frames.shape[:2])
        return [torch.ones_like(maps) if self.blind else maps]

    def in_space(self, level, maps, places):
        return None

    def in_time(self, level, maps, places):
        found = maps[..., places[:, 0], places[:, 1]].diff(dim=1)  # [N, T - 1, C, P]
        return nn.functional.normalize(found.flatten(1, 2).transpose(1, 2) + 1e-6, dim=-1)

    def grid(self, side, along, window="face"):
        places = square(0, side)
        return places[around_mouth(places, side)] if window == "mouth" else places


def recording(number: int, speaker: int) -> EvaluationRecording:
    """A textured face whose mouth's texture turns with time, as fast in every emotion."""
    rng = np.random.default_rng(speaker)
    face, mouth = rng.integers(0, 255, (SIDE, SIDE, 3)), rng.integers(0, 255, (FRAMES, 8, 12, 3))
    frames = np.repeat(face[None], FRAMES, 0)
    frames[:, 20:28, 10:22] = mouth
    return EvaluationRecording(
        f"{SEVEN[number].value}-1-1",
        SEVEN[number],
        (frames // 2 + 20 * number).astype(np.uint8),
        np.zeros((FRAMES, 4), np.float32),
        np.ones(FRAMES, bool),
        phase=np.linspace(0, 1, FRAMES),
    )


GROUPS = [EvaluationGroup(f"S{s}_00", f"S{s}", "00", [recording(n, s) for n in (0, 1, 2)]) for s in (1, 2)]


@pytest.fixture(scope="module")
def seeing():
    return scores.score(Pixels(), GROUPS, [])


def test_a_metric_that_sees_the_mouth_knows_the_window(seeing):
    for name in ("right_window_mouth", "right_window_mouth_2", "right_window_face_5", "time_mouth"):
        assert seeing[f"stccl_vd/{name}"].value > 0.95
    assert "stccl_vd/space_face" not in seeing


def test_a_blind_metric_is_at_chance():
    assert scores.score(Pixels(blind=True), GROUPS, [])["stccl_vd/right_window_face"].value == pytest.approx(0.5)


def test_every_figure_has_a_meaning_and_an_interval_over_clips(seeing):
    assert {f"stccl_vd/window_{SEVEN[n].value}" for n in (1, 2)} <= set(seeing)
    assert seeing["stccl_vd/right_window_face"].clips == 4
    assert all(f.low - 1e-9 <= f.value <= f.high + 1e-9 for f in seeing.values())
    assert set(seeing) <= set(scores.MEANINGS)


def test_windows_without_a_found_face_are_neither_asked_nor_offered():
    hidden = EvaluationGroup("S1_00", "S1", "00", [recording(n, 1) for n in (0, 1)])
    for clip in hidden.recordings:
        clip.valid[::9] = False
        clip.frames[::9] = 0
    assert scores.score(Pixels(), [hidden], [])["stccl_vd/right_window_mouth"].value > 0.95
