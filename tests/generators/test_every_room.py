"""What every generator does alike: it trains, goes on where it was killed, is exported with its card, and edits a film."""

import json
import signal

import numpy as np
import pytest
from doors import command, well
from generator_rooms import ROOMS
from toy_generator import film, shown, talking_head
from toy_stage2 import killed_after_step_five, losses

from spfem_dist.emotions import Emotion
from spfem_dist.generators.generator import Face, find
from spfem_dist.generators.load import load_generator
from spfem_dist.rooms import kinds

EVERY = pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.kind)


def every_night(by_day: str):
    """All rooms, each at night but one: the code that is tried is the same for all, and no room's own."""
    rooms = [pytest.param(room, marks=[pytest.mark.nightly] * (room.kind != by_day)) for room in ROOMS]
    return pytest.mark.parametrize("room", rooms, ids=lambda room: room.kind)


#: In single precision rounding grows with every step of networks that train against each other, whoever trains them.
EXACT = ["--zero.precision", "fp64", "--validation.every-steps", "3"]
SIZE = 32


def test_no_generator_is_left_out():
    assert kinds("generators") == sorted(room.kind for room in ROOMS)


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """Gives the storage of a room's finished run, trained when it is first asked for."""
    storages = {}

    def storage_of(room):
        if room.kind not in storages:
            storages[room.kind] = tmp_path_factory.mktemp(room.kind)
            well(room.train(toy, storages[room.kind], "--checkpoint.every-steps", "3"))
        return storages[room.kind]

    return storage_of


@EVERY
def test_priors_guide_it_and_their_weights_are_kept(room, trained):
    names = {name for _, name in losses(trained(room), room.kind)}
    assert {"train/guidance/ccrl/content", "train/guidance/cerl/emotion"} <= names
    facts = json.loads((trained(room) / "r" / room.kind / "model" / "config.json").read_text())["facts"]
    assert set(facts["priors"]) == set(facts["guidance"]) == {"ccrl", "cerl"}


@every_night("icface")
def test_a_killed_run_started_again_repeats_the_losses_exactly(room, toy, trained, tmp_path):
    saves = ["--checkpoint.every-steps", "3"]
    assert room.train(toy, tmp_path, *saves, before=killed_after_step_five).code == -signal.SIGKILL
    again = well(room.train(toy, tmp_path, *saves))
    assert "at step 3" in again.said
    assert losses(tmp_path, room.kind) == losses(trained(room), room.kind)


@pytest.mark.nightly
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("room", [room for room in ROOMS if room.kind != "ned"], ids=lambda room: room.kind)
def test_two_workers_repeat_the_losses_of_one_process(room, stage, toy, tmp_path):
    """NED's own test says it with its pre-training."""
    alone, together = tmp_path / "one", tmp_path / "two"
    penalty = [f"--{room.kind}.gradient-penalty", "0"] if stage == 3 else []
    well(room.train(toy, alone, *EXACT, *penalty))
    well(room.train(toy, together, *EXACT, *penalty, "--zero.stage", str(stage), workers=2))
    assert losses(together, room.kind) == pytest.approx(losses(alone, room.kind), abs=1e-4)


@EVERY
def test_its_dry_run_says_what_would_happen(room, toy, tmp_path):
    said = well(command(*(w if w != "--local" else "--dry-run" for w in room.words(toy, tmp_path)))).said
    for part in ("trained parameters", "GFLOP/sample", "4 of 12 groups used", "ready: nothing was trained"):
        assert part in said, part


@every_night("ned")
def test_a_guided_run_goes_on_from_its_pretraining(room, toy, tmp_path):
    before = ["--pretraining.enabled", "True", "--pretraining.steps", "2", "--pretraining.global-batch", "4"]
    well(room.train(toy, tmp_path, *before, f"--{room.kind}.steps", "1", "--validation.every-steps", "0"))
    first, second = ((tmp_path / "r" / job / "model") for job in ("pretraining", room.kind))
    assert load_generator(first).size == load_generator(second).size == SIZE
    done = room.train(toy, tmp_path / "other", "--pretrained", tmp_path / "r", "--data.size", "64")
    assert done.code == 1
    assert "was trained on faces of 32 pixels, data.size is 64" in done.said


# --- what it leaves behind ----------------------------------------------------------------------------------------


@EVERY
def test_it_is_exported_with_the_card_of_its_room_and_edits_a_film(room, trained, tmp_path):
    well(command("spfem", "export", trained(room) / "r", "--out", tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert find(room.kind).CARD.title in card
    head = talking_head(frames=8)
    clip = film(tmp_path / "talk.mp4", head.frames)
    np.save(tmp_path / "talk.npy", head.landmarks)
    words = ["spfem", "edit", clip, "--emotion", "happy", "--out", tmp_path / "out.mp4"]
    words += ["--landmarks", tmp_path / "talk.npy", "--generator", tmp_path / "model"]
    well(command(*words))
    before, after = (np.stack(shown(path)[1]).astype(int) for path in (clip, tmp_path / "out.mp4"))
    assert before.shape == after.shape
    changed = np.abs(before - after).mean((0, 3))
    assert changed.max() > 10, "grey levels, where the face is"
    assert changed[:4].max() < 8, "the picture's edge stays as it is"


@pytest.fixture(scope="module")
def head():
    return talking_head(speaker=2, size=SIZE, frames=14)


def face_of(raw, frames=14) -> Face:
    return Face(raw.landmarks[:frames].astype(np.float32), np.ones(frames, bool), SIZE, "ibug68")


@EVERY
def test_it_is_driven_by_an_emotion_a_reference_or_both(room, trained, head):
    generator, reference = load_generator(trained(room) / "r"), face_of(talking_head(speaker=1, size=SIZE))
    moved = []
    for asked in (
        {"emotion": Emotion.HAPPY},
        {"reference": reference},
        {"emotion": Emotion.SAD, "reference": reference},
    ):
        motion = generator.drive(face_of(head), **asked)
        assert motion.source.shape == motion.target.shape == (14, 68, 2)
        assert np.isfinite(motion.target).all()
        moved.append(motion.target)
    assert not np.allclose(moved[0], moved[1])
    still = generator.drive(face_of(head), Emotion.HAPPY, strength=0.0)
    np.testing.assert_allclose(still.target, still.source, atol=1e-3)


@EVERY
def test_a_clip_may_be_rendered_in_parts_and_the_surroundings_stay(room, trained, head):
    generator, frames = load_generator(trained(room) / "r"), head.frames[:6]
    motion = generator.drive(face_of(head), Emotion.ANGRY)
    edit = generator.render(frames, motion)
    whole = edit.crops(frames)
    part = generator.render(frames[4:], motion, first=4).crops(frames[4:])
    assert np.abs(whole[4:].astype(int) - part.astype(int)).max() <= 1
    assert np.array_equal(whole[edit.mask == 0], frames[edit.mask == 0])
    assert (edit.mask == 0).mean() > 0.2


@EVERY
@pytest.mark.parametrize(
    ("asked", "phrase"),
    [
        ({}, "needs an emotion, a reference clip, or both"),
        ({"emotion": Emotion.CALM}, "calm: this generator knows neutral, angry"),
    ],
)
def test_a_wish_that_cannot_be_granted_is_refused(room, asked, phrase, trained, head):
    with pytest.raises(ValueError, match=phrase):
        load_generator(trained(room) / "r").drive(face_of(head), **asked)


@EVERY
def test_landmarks_of_another_kind_and_clips_of_two_frames_are_refused(room, trained, head):
    generator = load_generator(trained(room) / "r")
    mesh = Face(np.zeros((14, 468, 2), np.float32), np.ones(14, bool), SIZE, "mesh468")
    with pytest.raises(ValueError, match="the source has mesh468 landmarks, this generator was trained on ibug68"):
        generator.drive(mesh, Emotion.HAPPY)
    with pytest.raises(ValueError, match="the source has 2 frames; at least 3 are needed: give a longer clip"):
        generator.drive(face_of(head, 2), Emotion.HAPPY)
