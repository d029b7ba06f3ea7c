"""Batches: the same samples for every world size, exact resume, honest errors, bounded background work."""

from __future__ import annotations

import threading
from dataclasses import fields
from itertools import chain, islice

import numpy as np
import pytest
import torch
from coded_shards import Small, make_group, read_code, write_shards

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.records import Batch, Seeds
from spfem_dist.shares import share_of
from spfem_dist.streaming.encoded import UnusableDecoder
from spfem_dist.streaming.loader import Loader, Source, fixed_batches, whole_recordings
from spfem_dist.streaming.reader import TooMuchDamaged
from spfem_dist.streaming.views import CONTENT, EMOTION, PERSONAL

G = 8


def batches_of(small, view, world, micro, steps=3, start=0, seed=3, **changes):
    """The batches of all ranks, put together step by step: one flat list of (sample, field -> tensor)."""
    per_rank = []
    for rank in range(world):
        with Loader(small.data(**changes), view, seed, rank, world, G, micro, start) as loader:
            per_rank.append([batch for batch, _ in islice(loader, steps * loader.share.steps)])
    accumulation = len(per_rank[0]) // steps
    return [
        batch
        for step in range(steps)
        for rank in range(world)
        for batch in per_rank[rank][step * accumulation : (step + 1) * accumulation]
    ]


def concatenated(batches: list[Batch]) -> dict[str, torch.Tensor | list[str]]:
    joined: dict[str, torch.Tensor | list[str]] = {}
    for f in fields(Batch):
        values = [getattr(b, f.name) for b in batches]
        if values[0] is None:  # landmarks, which nobody asked for
            continue
        joined[f.name] = (
            torch.cat(values)
            if isinstance(values[0], torch.Tensor)
            else list(chain.from_iterable(map(_plainly, values)))
        )
    return joined


def _plainly(value):
    return value.numbers if isinstance(value, Seeds) else value


def assert_equal(a: dict, b: dict) -> None:
    for name, value in a.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, b[name]), name
        else:
            assert value == b[name], name


@pytest.mark.parametrize("view", [CONTENT, PERSONAL])
def test_samples_do_not_depend_on_world_size_accumulation_or_threads(small, view):
    one = concatenated(batches_of(small, view, world=1, micro=None, steps=2))
    assert one["sample"].tolist() == list(range(2 * G))
    for world, micro, threads in ((2, None, 1), (4, 1, 3), (1, 2, 2), (3, None, 2), (5, 2, 1)):
        assert_equal(one, concatenated(batches_of(small, view, world, micro, steps=2, threads=threads)))


def test_samples_do_not_depend_on_memory_or_prefetch(small):
    one = concatenated(batches_of(small, CONTENT, 1, 2))
    assert_equal(one, concatenated(batches_of(small, CONTENT, 1, 2, decoded_cache_mb=0)))
    assert_equal(one, concatenated(batches_of(small, CONTENT, 1, 2, prefetch=0)))


def test_resume_repeats_the_same_batches_also_with_another_world_size(small):
    steps = batches_of(small, CONTENT, 1, None, steps=4)
    resumed = batches_of(small, CONTENT, 2, None, steps=2, start=2 * G)
    assert_equal(concatenated(steps[2:]), concatenated(resumed))


def test_another_seed_gives_other_samples(small):
    a, b = (concatenated(batches_of(small, CONTENT, 1, None, seed=seed)) for seed in (3, 4))
    assert a["seed"] != b["seed"]
    assert a["keys"] != b["keys"]


def test_a_content_batch_holds_the_frames_it_names(small):
    number = {group.key: 8 * g for g, group in enumerate(small.groups)}
    batch = batches_of(small, CONTENT, 1, None, steps=1)[0]
    assert batch.frames.shape == (G, 2, 4, 3, 32, 32)
    assert batch.frames.dtype == torch.uint8
    assert batch.speech.shape == (G, 2, 4, 5, 8)
    for b, key in enumerate(batch.keys):
        for r in range(2):
            emotion = list(Emotion)[batch.emotion[b, r]]
            for k in range(4):
                code = read_code(batch.frames[b, r, k].permute(1, 2, 0).numpy())
                assert code == (number[key] + SEVEN.index(emotion), batch.position[b, r, k])
                assert batch.speech[b, r, k, 2, 0] == batch.position[b, r, k]
    assert batch.valid.all()


def test_an_emotion_batch_has_seven_rows_and_pads_what_is_missing(small):
    batch = batches_of(small, EMOTION, 1, None, steps=1)[0]
    assert batch.frames.shape == (G, 7, 2, 3, 32, 32)
    for b, key in enumerate(batch.keys):
        recorded = {r.emotion for g in small.groups if g.key == key for r in g.recordings}
        for r, emotion in enumerate(SEVEN):
            assert list(Emotion)[batch.emotion[b, r]] == emotion
            assert batch.valid[b, r].all() == (emotion in recorded)
            assert bool(batch.frames[b, r].any()) == (emotion in recorded)


def test_a_personal_batch_has_a_portrait_out_of_another_sentence_of_the_speaker(small):
    batches = concatenated(batches_of(small, PERSONAL, 1, None, steps=3))
    neutral = {8 * g: group for g, group in enumerate(small.groups)}
    others = set()
    for b, key in enumerate(batches["keys"]):
        if key.startswith("S99"):  # says one sentence alone
            assert not batches["valid"][b, 7:].any()
            assert not batches["frames"][b, 7:].any()
            continue
        assert batches["valid"][b, 7:].all()
        codes = [read_code(f.permute(1, 2, 0).numpy()) for f in batches["frames"][b, 7:].flatten(0, 1)]
        assert [frame for _, frame in codes] == batches["position"][b, 7:].flatten().tolist()
        assert len(set(codes)) == 4
        (number,) = {number for number, _ in codes}
        assert neutral[number].speaker == batches["speakers"][b]
        assert neutral[number].key != key
        others.add((key, neutral[number].key))
    assert {b[:3] for _, b in others} >= {"S00", "S01", "S02"}


def test_a_damaged_companion_leaves_the_sample_without_a_portrait(copy_of_small):
    broken = copy_of_small()
    with open(broken.root / "shard-000000.tar", "r+b") as file:
        file.write(b"\xff" * 512)  # the header of the first member of group S00_000, the one beside S00_001
    batches = concatenated(batches_of(broken, PERSONAL, 1, None, steps=3, bad_share=0.1))
    portrayed = {key: bool(batches["valid"][b, 7:].any()) for b, key in enumerate(batches["keys"])}
    assert "S00_000" not in portrayed
    assert not portrayed["S00_001"]
    assert {key for key, known in portrayed.items() if not known} <= {"S00_001", "S99_000"}


def test_the_decoder_does_not_change_which_frames_come(tmp_path):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed (pip install 'spfem-dist[dev]')")
    groups = [make_group("S00", f"{n:03d}", SEVEN[:3], 8 * n, codec="vp9") for n in range(4)]
    vp9 = Small(write_shards(tmp_path, [groups]), groups)
    ours, dali, kept = (
        batches_of(vp9, CONTENT, 1, None, steps=1, decoder=decoder, decoded_cache_mb=memory)[0]
        for decoder, memory in (("pyav", 64), ("dali-cpu", 0), ("dali-cpu", 64))
    )
    assert torch.equal(dali.frames, kept.frames)
    assert torch.equal(ours.position, dali.position)
    assert (ours.frames.float() - dali.frames.float()).abs().mean() < 2.5


def test_a_decoder_that_cannot_read_the_shards_ends_the_run_with_the_fix(small):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed (pip install 'spfem-dist[dev]')")
    with (
        Loader(small.data(decoder="dali-cpu"), CONTENT, 0, 0, 1, 4) as loader,
        pytest.raises(UnusableDecoder, match=r"shard-.*codec is h264.*data\.decoder pyav"),
    ):
        next(iter(loader))
    assert loader.reader.bad == []


def test_frames_are_resized_to_the_runs_size(small):
    batch = batches_of(small, CONTENT, 1, None, steps=1, size=16)[0]
    assert batch.frames.shape[-2:] == (16, 16)
    assert read_code(batch.frames[0, 0, 0].permute(1, 2, 0).numpy())[1] == batch.position[0, 0, 0]


def test_the_split_and_the_view_decide_which_groups_come(small):
    data = small.data()
    with Loader(data, CONTENT, 0, 0, 1, 4, accept=lambda entry: entry.speaker == "S00") as loader:
        assert {key for batch, _ in islice(loader, 6) for key in batch.keys} == {"S00_000", "S00_001", "S00_002"}
        assert loader.order.coverage.refused_by_split == 9
    with Loader(data, CONTENT, 0, 0, 1, 4) as loader:
        assert loader.order.coverage.refused_by_view == 1  # the group of one emotion
    with pytest.raises(ValueError, match=r"outside the split.*data\.split"):
        Loader(data, CONTENT, 0, 0, 1, 4, accept=lambda entry: False)


def test_waiting_is_measured_and_threads_end(small):
    before = threading.active_count()
    with Loader(small.data(), CONTENT, 0, 0, 1, 4) as loader:
        waits = [wait for _, wait in islice(loader, 3)]
    assert all(wait >= 0 for wait in waits)
    assert waits[0] > 0
    assert threading.active_count() == before


def test_the_loader_stops_where_it_is_told(small):
    with Loader(small.data(), CONTENT, 0, 0, 1, G, stop_sample=2 * G + 1) as loader:
        assert sum(len(batch) for batch, _ in loader) == 2 * G


def test_an_error_in_the_background_reaches_the_consumer(copy_of_small):
    broken = copy_of_small()
    with Loader(broken.data(), CONTENT, 0, 0, 1, 4, source=Source(broken.data())) as loader:
        for shard in broken.root.glob("*.tar"):
            shard.unlink()
        with pytest.raises(FileNotFoundError, match=r"shard-\d+\.tar is listed .* missing"):
            next(iter(loader))


def test_a_damaged_group_is_counted_and_substituted_the_same_for_any_world_size(copy_of_small):
    broken = copy_of_small()
    with open(broken.root / "shard-000001.tar", "r+b") as file:
        file.write(b"\xff" * 512)  # the header of the first member of group S00_002
    with Loader(broken.data(bad_share=0.1), CONTENT, 3, 0, 1, G) as loader:
        one = concatenated([batch for batch, _ in islice(loader, 6)])
        assert [(event.shard, event.group) for event in loader.reader.bad] == [("shard-000001.tar", "S00_002")]
        assert "damaged tar header" in loader.reader.bad[0].reason
    assert "S00_002" not in one["keys"]
    assert_equal(one, concatenated(batches_of(broken, CONTENT, 2, 2, steps=6, bad_share=0.1)))


def test_a_broken_video_fails_only_the_samples_that_need_it_whatever_the_memory(copy_of_small):
    broken = copy_of_small()
    tar = broken.root / "shard-000000.tar"
    video = broken.groups[0].recordings[0].video
    content = tar.read_bytes()
    assert content.count(video) == 1
    tar.write_bytes(content.replace(video, video[:40] + bytes(len(video) - 40)))
    runs = []
    for world, memory in ((1, 64), (1, 0), (2, 64)):
        batches = batches_of(broken, CONTENT, world, None, steps=4, decoded_cache_mb=memory, bad_share=0.1)
        runs.append(concatenated(batches))
    assert_equal(runs[0], runs[1])
    assert_equal(runs[0], runs[2])
    assert runs[0]["sample"].tolist() == list(range(4 * G))


def test_too_many_damaged_groups_stop_the_run(copy_of_small):
    broken = copy_of_small()
    for n in range(3):
        with open(broken.root / f"shard-{n:06d}.tar", "r+b") as file:
            file.write(b"\xff" * 512)
    with (
        Loader(broken.data(bad_share=0.1), CONTENT, 0, 0, 1, 4) as loader,
        pytest.raises(TooMuchDamaged, match=r"[23] of 11 utterance groups .* data\.bad_share 0\.1"),
    ):
        list(islice(loader, 12))


def test_validation_batches_are_always_the_same_and_shared_by_rank(small):
    data = small.data()
    one = concatenated(fixed_batches(data, CONTENT, 5, share_of(10, 0, 1, 4)))
    assert_equal(one, concatenated(fixed_batches(data, CONTENT, 5, share_of(10, 0, 1, 3))))
    shared = [b for rank in range(3) for b in fixed_batches(data, CONTENT, 5, share_of(10, rank, 3, 4))]
    assert_equal(one, concatenated(shared))
    assert len(set(one["keys"])) == 10  # no group twice before all came once


def test_evaluation_reads_whole_recordings_with_their_speech(small):
    seen = 0
    for group, recording, batch in whole_recordings(small.data(), lambda entry: entry.speaker == "S00"):
        assert batch.frames.shape == (1, 1, recording.frames, 3, 32, 32)
        assert batch.position[0, 0].tolist() == list(range(recording.frames))
        assert np.array_equal(batch.speech[0, 0, :, 2].numpy(), recording.features)
        assert recording.speech
        assert batch.keys == [group.key]
        seen += 1
    assert seen == 17


def test_a_rank_that_there_is_not_is_refused(small):
    with pytest.raises(ValueError, match="rank 2"):
        Loader(small.data(), CONTENT, 0, 2, 2, 8)
