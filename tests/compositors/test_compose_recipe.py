"""`recipes/compose.py` as a user types it: it trains in two jobs, goes on where it was killed, is exported, and edits a film."""

import signal

import numpy as np
import pytest
import torch
from compose import Composition
from documented import words_of
from doors import command, well
from safetensors.torch import load_file
from toy_generator import Brightener, film, shown, talking_head
from toy_stage2 import killed_after_step_five, losses, toy_of

from spfem_dist.compositors.dgad import Settings, Stage
from spfem_dist.compositors.load import load_compositor
from spfem_dist.config import Data
from spfem_dist.editing.compose import Composed, Composing
from spfem_dist.generators import load
from spfem_dist.generators.generator import Motion
from spfem_dist.generators.load import SHIPPED_FOLDER

SIZE = 32
LOCAL, RAY = "python recipes/compose.py --local", "python recipes/compose.py"
EDIT = "spfem edit talk.mp4 --emotion happy --compose runs/compose"
#: Four and six steps, every loss logged; each checkpoint is there before the next step.
BRIEF = ["--tracking.uri", "", "--tracking.log-every-steps", "1", "--tracking.pictures-every-steps", "0"]
BRIEF += ["--validation.every-steps", "3", "--validation.samples", "2", "--checkpoint.background", "False"]
BRIEF += ["--pretraining.steps", "4", "--dgad.steps", "6", "--checkpoint.every-steps", "3"]
BRIEF += ["--pretraining.global-batch", "4", "--dgad.global-batch", "4", "--data.size", str(SIZE), "--name", "r"]
#: In single precision rounding grows with every step.
EXACT = ["--zero.precision", "fp64"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The flags that name a corpus of four speakers."""
    toy = toy_of(tmp_path_factory)
    return ["--data.shards", toy.shards, "--data.split", toy.split]


def train(places, storage, *more, line=LOCAL, **how):
    return command(*words_of(line, {}, *BRIEF, *places, "--checkpoint.storage", storage, *more), timeout=500, **how)


@pytest.fixture(scope="module")
def trained(places, tmp_path_factory):
    """Storage of the finished run `r`, killed in its second job and started again; and what the second start said."""
    storage = tmp_path_factory.mktemp("trained")
    assert train(places, storage, before=killed_after_step_five).code == -signal.SIGKILL
    return storage, well(train(places, storage)).said


def test_a_killed_run_started_again_repeats_the_losses_exactly(places, trained, tmp_path):
    storage, said = trained
    assert "at step 3" in said
    well(train(places, tmp_path))
    for name in ("pretraining", "dgad"):
        assert losses(storage, name) == losses(tmp_path, name)


def test_the_geometry_network_stands_still_in_the_second_job(trained):
    first, second = (
        load_file(trained[0] / "r" / name / "model" / "model.safetensors") for name in ("pretraining", "dgad")
    )
    assert first
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert any(second[name].abs().max() > 0 for name in second if name.startswith("appearance.exits"))


@pytest.mark.nightly
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_workers_repeat_the_losses_of_one_process(places, stage, tmp_path):
    well(train(places, tmp_path / "one", *EXACT))
    well(train(places, tmp_path / "two", *EXACT, "--zero.stage", stage, line=RAY, workers=2))
    for name in ("pretraining", "dgad"):
        assert losses(tmp_path / "two", name) == pytest.approx(losses(tmp_path / "one", name), abs=1e-4)


def test_its_dry_run_says_what_would_happen(places, tmp_path):
    words = words_of("python recipes/compose.py --dry-run", {}, *BRIEF, *places, "--checkpoint.storage", tmp_path)
    said = well(command(*words)).said
    for part in ("pretraining", "dgad", "trained parameters", "4 of 12 groups used", "ready: nothing was trained"):
        assert part in said, part


def run_on(places, storage, **of_dgad) -> Composition:
    """The recipe's run as a configuration, for tests within this process."""
    run = Composition(name="r", data=Data(shards=str(places[1]), split=str(places[3]), size=SIZE))
    run.checkpoint.storage = str(storage)
    return run.model_copy(update={"dgad": Settings(**of_dgad)})


def test_what_cannot_be_trained_is_said_before_anything_starts(places, tmp_path):
    run = run_on(places, tmp_path)
    run.data.size = 36
    with pytest.raises(ValueError, match=r"data.size is 36.* multiples of 8: give --data.size 32"):
        Stage().check(run, "dgad")
    run = run_on(places, tmp_path, noise_steps=100)
    with pytest.raises(ValueError, match=r"--dgad.noise_steps is 100, --pretraining.noise_steps is 200"):
        Stage().check(run, "dgad")
    run = run_on(places, tmp_path)
    run.pretraining.enabled = False
    with pytest.raises(ValueError, match=r"goes on from the job pretraining, .*: enable it"):
        Stage().check(run, "dgad")
    run = run_on(places, tmp_path, network="paper", weights=str(tmp_path), clip=str(tmp_path))
    run.data.size = 64
    with pytest.raises(ValueError, match=r"weights \(autoencoder\): there is no .*vae/config.json"):
        Stage().check(run, "dgad")
    run = run_on(places, tmp_path, network="paper")
    run.data.size = 64
    with pytest.raises(ValueError, match="network paper needs weights"):
        Stage().check(run, "dgad")
    for wrong, phrase in (
        ({"form": "released"}, "form released cannot be trained"),
        ({"sampling_steps": 300}, "sampling_steps 300 are more than noise_steps 200"),
    ):
        with pytest.raises(ValueError, match=phrase):
            Settings(**wrong)


# --- what it leaves behind ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    well(command("spfem", "export", trained[0] / "r", "--out", folder))
    return folder


def test_the_exported_compositor_draws_what_the_runs_own_does(trained, exported):
    assert "puts an edited head back into its frame" in (exported / "README.md").read_text()
    rng = np.random.default_rng(0)
    scenes, heads = rng.integers(0, 256, (2, 3, SIZE, SIZE, 3), dtype=np.uint8)
    scenes[2], heads[2] = scenes[0], heads[0]
    masks = np.zeros((3, SIZE, SIZE), bool)
    masks[:, 8:24, 6:26] = True
    own, handed_on = (
        load_compositor(place).compose(scenes, masks, heads, masks) for place in (trained[0] / "r", exported)
    )
    assert np.array_equal(own, handed_on)
    assert np.array_equal(own[~masks], scenes[~masks]), "outside the hole"
    assert np.abs(own[0].astype(int) - own[2]).max() <= 1, "equal frames of a clip are filled alike"
    behind = scenes.copy()
    behind[masks] = 255 - behind[masks]
    assert np.array_equal(load_compositor(exported).compose(behind, masks, heads, masks)[masks], own[masks])


def toys_of_any_size(location) -> Brightener:
    """Stands for `load_generator`: `toy-32` is a toy of crops of 32 pixels."""
    return Brightener(size=int(location.split("-")[-1]), topology="ibug68")


def toys_are_loaded():
    """Called in the process of a command, before it."""
    load.load_generator = toys_of_any_size


def test_an_edited_head_is_put_back_into_a_film(trained, tmp_path):
    head, out = talking_head(frames=8), tmp_path / "out.mp4"
    np.save(tmp_path / "talk.npy", head.landmarks)
    places = {"talk.mp4": film(tmp_path / "talk.mp4", head.frames), "runs/compose": trained[0] / "r"}
    flags = ["--landmarks", tmp_path / "talk.npy", "--generator", f"toy-{SIZE}", "--out", out]
    well(command(*words_of(EDIT, places, *flags), before=toys_are_loaded))
    before, after = (np.stack(shown(path)[1]).astype(int) for path in (tmp_path / "talk.mp4", out))
    changed = np.abs(before - after).mean((0, 3))
    assert changed.max() > 10, "grey levels, where the face is"
    assert changed[:4].max() < 8, "the picture's edge stays as it is"


@pytest.mark.parametrize(
    ("compositor", "generator", "phrase"),
    [
        ("r", "toy-64", "--compose draws 32 x 32 pixels, and the generator's crops have 64"),
        ("r/pretraining/model", "toy-32", "--compose: .* holds the first of two jobs alone"),
        (
            SHIPPED_FOLDER,
            "toy-32",
            "--compose: no compositor in .*, but a generator: give the folder of a run of recipes/",
        ),
        ("nowhere", "toy-32", "--compose: no compositor in .*: give the folder"),
    ],
)
def test_a_compositor_that_does_not_fit_is_refused_in_words(compositor, generator, phrase, trained):
    with pytest.raises((FileNotFoundError, ValueError), match=phrase):
        Composing(toys_of_any_size, str(trained[0] / compositor), 1.0)(generator)


def test_paint_is_a_share_of_what_the_generator_paints():
    """Without paint this toy changes nothing, and the head that is put back is the frame's own."""
    compositor = Remembering()
    frames = talking_head(size=SIZE, frames=4).frames
    marks = talking_head(size=SIZE, frames=4).landmarks.astype(np.float32)
    for paint in (0.0, 0.5, 1.0):
        generator = Composed(toys_of_any_size(f"toy-{SIZE}"), compositor, paint)
        edit = generator.render(frames, Motion(marks, marks))
        np.testing.assert_array_equal(edit.crops(frames), frames)
    heads = [np.abs(shown.astype(int) - frames).max() for shown in compositor.heads]
    assert heads[0] == 0
    assert heads[2] == pytest.approx(2 * heads[1], abs=1)
    assert heads[2] > 30


class Remembering:
    """Keeps the heads that it is shown, and leaves the scene as it is."""

    size, topology, grow = SIZE, "ibug68", 0.06

    def __init__(self):
        self.heads = []

    def compose(self, scenes, masks, heads, covers):
        assert masks.any((1, 2)).all()
        self.heads.append(heads)
        return scenes
