"""Views: matched frames apart from each other, emotion sets in the papers' order, masks that tell the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coded_shards import make_group

from spfem_dist.config import Data
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.streaming.views import (
    CONTENT,
    EMOTION,
    Unservable,
    collate,
    content_view,
    emotion_view,
    personal_view,
    plain_view,
    resize,
    speech_window,
    warp_matches,
    windows_view,
)

DATA = Data(frames_per_recording=6, minimum_gap=5, size=32)


@pytest.fixture(scope="module")
def group():
    return make_group("S00", "000", SEVEN[:4], 0, frames=40)


def draws(choose, group, data=DATA, count=60):
    return [choose(group, np.random.default_rng(n), data) for n in range(count)]


def test_a_draw_depends_on_the_generator_alone(group):
    for choose in (content_view, emotion_view):
        a, b = (choose(group, np.random.default_rng(7), DATA) for _ in range(2))
        assert [r and r.name for r in a.recordings] == [r and r.name for r in b.recordings]
        assert np.array_equal(a.positions, b.positions)


def test_content_frames_are_time_warp_matches_and_apart(group):
    for choice in draws(content_view, group):
        first, second = choice.recordings
        assert first.emotion != second.emotion
        matches = warp_matches(group, first.name, second.name)
        assert np.array_equal(matches[choice.positions[0]], choice.positions[1])
        assert np.diff(choice.positions[0]).min() >= 5
        assert choice.valid.all()


def test_every_ordered_pair_of_emotions_comes_equally_often(group):
    pairs = [tuple(r.name for r in c.recordings) for c in draws(content_view, group, count=600)]
    counts = np.unique(pairs, axis=0, return_counts=True)[1]
    assert len(counts) == 12
    assert counts.min() > 25  # 50 expected


def test_every_frame_of_a_clip_can_come(group):
    seen = {
        int(p) for c in draws(content_view, group, count=400) if c.recordings[0].frames == 40 for p in c.positions[0]
    }
    assert seen == set(range(40))


def test_of_several_matches_the_middle_one_is_taken():
    group = make_group("S00", "000", SEVEN[:2], 0, frames=5)
    a, b = (r.name for r in group.recordings)
    group.warps[(a, b)] = np.array([[0, 1, 1, 1, 2, 4], [0, 1, 2, 3, 4, 7]], np.int32)
    assert warp_matches(group, a, b).tolist() == [0, 2, 4, -1, 7]
    assert warp_matches(group, b, a).tolist() == [0, 1, 1, 1, 2, -1, -1, 4]


def test_short_clips_are_as_spread_as_they_can_be():
    group = make_group("S00", "000", SEVEN[:2], 0, frames=12)
    for choice in draws(content_view, group, count=20):
        assert np.diff(choice.positions[0]).min() >= 2
        assert len(set(choice.positions[0])) == 6
    tiny = make_group("S00", "000", SEVEN[:2], 0, frames=4)
    for choice in draws(content_view, tiny, count=20):
        if choice.recordings[0].frames == 4:
            assert choice.valid.sum(1).tolist() == [4, 4]  # repeats are marked


def test_frames_without_a_face_come_last_and_marked():
    group = make_group("S00", "000", SEVEN[:2], 0, frames=40)
    group.recordings[0].valid[5:] = False
    for choice in draws(content_view, group, count=20):
        row = 0 if choice.recordings[0].name.startswith("neutral") else 1
        truth = choice.recordings[row].valid[choice.positions[row]]
        assert np.array_equal(choice.valid[row], truth & choice.valid[row])
        assert 2 <= choice.valid.sum() / 2 <= 6
        assert np.array_equal(choice.valid[0], choice.valid[1])
    group.recordings[0].valid[:] = False
    with pytest.raises(Unservable, match="share 0 frames"):
        content_view(group, np.random.default_rng(0), DATA)


def test_matches_that_fall_together_are_avoided():
    group = make_group("S00", "000", SEVEN[:2], 0, frames=60)
    a, b = (r.name for r in group.recordings)
    rows = np.arange(60)
    # A pause: frames 20 to 39 of a are all frame 20 of b.
    group.warps[(a, b)] = np.stack([rows, np.where(rows < 20, rows, np.maximum(20, rows - 19))]).astype(np.int32)
    data = Data(frames_per_recording=4, minimum_gap=5, size=32)
    forward = [c for c in draws(content_view, group, data, 80) if c.recordings[0].name == a]
    same = np.mean([np.diff(c.positions[1]).min() == 0 for c in forward])
    assert same < 0.05


def test_pairs_above_the_warp_cost_are_not_drawn(group):
    group = make_group("S00", "000", SEVEN[:3], 0, frames=40)
    names = [r.name for r in group.recordings]
    group.warp_costs[(names[0], names[1])] = 0.1
    data = Data(frames_per_recording=4, maximum_warp_cost=0.2)
    found = {frozenset(r.name for r in c.recordings) for c in draws(content_view, group, data)}
    assert found == {frozenset(names[:2])}
    with pytest.raises(Unservable, match=r"cost <= 0\.05"):
        content_view(group, np.random.default_rng(0), Data(maximum_warp_cost=0.05))


def test_emotion_sets_follow_the_order_of_the_papers_and_pad_with_false():
    group = make_group("S00", "000", (Emotion.SAD, Emotion.NEUTRAL, Emotion.CONTEMPT), 0)
    for choice in draws(emotion_view, group, count=20):
        assert choice.emotions == SEVEN
        present = [r is not None for r in choice.recordings]
        assert present == [e in (Emotion.SAD, Emotion.NEUTRAL) for e in SEVEN]
        assert np.array_equal(choice.valid.all(1), present)
        assert np.array_equal(choice.valid.any(1), present)
        for row in np.flatnonzero(present):
            assert choice.positions[row, 0] != choice.positions[row, 1]


def test_a_portrait_is_four_neutral_frames_of_one_recording_of_the_companion():
    here, other = make_group("S00", "000", SEVEN, 0), make_group("S00", "001", SEVEN[:3], 8)
    for n in range(20):
        choice = personal_view(here, np.random.default_rng(n), DATA, other)
        assert choice.recordings[:7] == tuple(here.recordings)
        assert choice.recordings[7:] == (other.recordings[0],) * 2
        assert choice.beside == 2
        assert len(set(choice.positions[7:].flatten().tolist())) == 4
    other.recordings[0].valid[1:] = False
    choice = personal_view(here, np.random.default_rng(0), DATA, other)
    assert choice.positions[7:].tolist() == [[0, 0], [0, 0]]
    for nobody in (None, make_group("S00", "001", SEVEN[1:3], 8)):
        choice = personal_view(here, np.random.default_rng(0), DATA, nobody)
        assert choice.recordings[7:] == (None, None)
        assert not choice.valid[7:].any()


def test_levels_and_takes_are_drawn_at_random():
    group = make_group("S00", "000", (Emotion.HAPPY, Emotion.SAD), 0)
    group.recordings[1].emotion = Emotion.HAPPY
    names = {c.recordings[4].name for c in draws(emotion_view, group)}
    assert len(names) == 2


def test_windows_are_consecutive_frames_and_their_matches(group):
    view = windows_view(9)
    for choice in draws(view.choose, group):
        first, second = choice.recordings
        assert first.emotion != second.emotion
        assert choice.positions.shape == (2, 9)
        assert (np.diff(choice.positions[0]) == 1).all()
        assert (np.diff(choice.positions[1]) >= 0).all()
        assert choice.positions[1].max() < second.frames
        assert (
            np.abs(warp_matches(group, first.name, second.name)[choice.positions[0]] - choice.positions[1]).max() <= 1
        )
        assert choice.valid.all()


def test_between_the_steps_of_a_time_warp_windows_are_interpolated_and_as_published_its_steps_are_taken():
    group = make_group("S00", "000", SEVEN[:2], 0, frames=9)
    a, b = (r.name for r in group.recordings)
    group.warps = {(a, b): np.array([[0, 1, 1, 1, 2, 4], [0, 1, 2, 3, 4, 8]], np.int32)}
    group.warp_costs = {(a, b): 0.0}
    seen = {c.positions[1].tolist()[-1]: c for c in draws(windows_view(5).choose, group) if c.recordings[0].name == a}
    assert seen[8].positions.tolist() == [[0, 1, 2, 3, 4], [0, 2, 4, 6, 8]]
    steps = [c for c in draws(windows_view(6, along_path=True).choose, group) if c.recordings[0].name == a]
    assert steps[0].positions.tolist() == [[0, 1, 1, 1, 2, 4], [0, 1, 2, 3, 4, 8]]


def test_windows_of_short_clips_are_filled_up_and_marked():
    group = make_group("S00", "000", SEVEN[:2], 0, frames=7)
    for choice in draws(windows_view(12).choose, group, count=5):
        shown = choice.valid[0].sum()
        assert 5 <= shown <= 11
        assert choice.valid[:, :shown].all()
        assert not choice.valid[:, shown:].any()


def test_windows_avoid_frames_without_a_face():
    group = make_group("S00", "000", SEVEN[:2], 0, frames=30)
    for recording in group.recordings:
        recording.valid[:12] = False
    for choice in draws(windows_view(6).choose, group, count=20):
        assert choice.valid.all()
        assert choice.positions[0].min() >= 12


def test_views_know_from_the_index_what_they_can_be_drawn_from():
    from spfem_dist.shard_format import GroupEntry

    def entry(*emotions):
        recordings = [{"name": f"{e}-1-1", "emotion": e, "level": 1, "take": 1, "frames": 9} for e in emotions]
        return GroupEntry(key="a_b", speaker="a", sentence="b", offset=0, bytes=512, recordings=recordings)

    assert CONTENT.serves(entry("happy", "sad"))
    assert not CONTENT.serves(entry("happy"))
    assert EMOTION.serves(entry("happy"))
    assert not EMOTION.serves(entry("contempt", "calm"))


def test_speech_windows_repeat_the_edges():
    features = np.arange(6, dtype=np.float32)[:, None]
    window = speech_window(features, np.array([0, 3, 5]), 5)
    assert window[..., 0].tolist() == [[0, 0, 0, 1, 2], [1, 2, 3, 4, 5], [3, 4, 5, 5, 5]]


def test_whole_recordings_keep_every_frame(group):
    choice = plain_view(group.recordings[1])
    assert choice.positions.tolist() == [list(range(group.recordings[1].frames))]


def test_shrinking_averages_areas():
    frames = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    frames[:, :2, :2] = 200
    frames[:, 0, 0] = 100
    shrunk = resize(frames, 2)
    assert shrunk.shape == (2, 2, 2, 3)
    assert shrunk[0, :, :, 0].tolist() == [[175, 0], [0, 0]]
    assert resize(frames, 4) is frames


def test_padding_becomes_black_and_silent():
    group = make_group("S00", "000", SEVEN[:1], 0)
    choice = emotion_view(group, np.random.default_rng(0), DATA)
    white = torch.full((2, 32, 32, 3), 255, dtype=torch.uint8)
    batch = collate([choice], [[white] + [None] * 6], DATA, [3], [4], ["S00_000"], ["S00"])
    assert batch.speakers == ["S00"]
    assert batch.frames[0, 0].min() == 255
    assert batch.frames[0, 1:].max() == 0
    assert batch.speech[0, 1:].abs().max() == 0
    assert not batch.valid[0, 1:].any()
    assert batch.sample.tolist() == [3]
    assert batch.seed.numbers == (4,)
