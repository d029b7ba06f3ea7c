"""Generators on the head of 52 units: coefficients have names, landmarks follow them, and drawn faces are refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from documented import words_of
from doors import command, well
from generator_rooms import BRIEF, ICFACE, NED, run_of
from rich.console import Console
from toy_stage2 import losses

from spfem_dist.config import Data
from spfem_dist.corpora.heads import HeadsCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.generators.face.model import TrainingClip, learn_face_model
from spfem_dist.generators.face.recordings import FittedRecordings, Recorded, rests_of
from spfem_dist.generators.face.texture import ExpressionTexture
from spfem_dist.generators.face.topology import MESH478
from spfem_dist.generators.face.unit_model import GAZE, SPEECH, STEP, UnitModel, in_words
from spfem_dist.generators.generator import Face as Shown
from spfem_dist.generators.guided import check_agreement
from spfem_dist.generators.icface.head_units import learnt_head_units
from spfem_dist.generators.icface.networks import build_networks as icface_networks
from spfem_dist.generators.icface.pairs import Face as ICfaceFace
from spfem_dist.generators.icface.saved import load as load_icface
from spfem_dist.generators.icface.saved import save as save_icface
from spfem_dist.generators.icface.settings import Pretraining as ICfacePretraining
from spfem_dist.generators.icface.settings import Settings as ICfaceSettings
from spfem_dist.generators.icface.stage import Stage as ICfaceStage
from spfem_dist.generators.load import load_generator
from spfem_dist.generators.ned import objectives
from spfem_dist.generators.ned.motions import Face, Windows
from spfem_dist.generators.ned.networks import build_networks
from spfem_dist.generators.ned.saved import load, save
from spfem_dist.generators.ned.settings import Pretraining, Settings
from spfem_dist.generators.ned.stage import Stage
from spfem_dist.prepare import job
from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.saved import save_tensors

FRAMES, SIZE = 16, 64
ON_HEADS = "--priors runs/heads-stage1 --data.shards shards/heads --data.split heads"
NED_ON_UNITS = f"python recipes/cdrl_stage2.py {ON_HEADS} --pretraining.coefficients units --ned.coefficients units"
ICFACE_ON_UNITS = f"python recipes/icface_stage2.py {ON_HEADS} --pretraining.units head --icface.units head"


@pytest.fixture(scope="module")
def model():
    return UnitModel(MESH478)


@pytest.fixture(scope="module")
def heads():
    """One person, neutral and happy: what is recorded, and the true units, by emotion."""
    corpus = HeadsCorpus(2, 1, size=SIZE, seed=4711, style=0.5)
    found = {}
    for emotion in (Emotion.NEUTRAL, Emotion.HAPPY):
        clip = corpus.clip(1, 0, emotion)
        scene, moved, _ = corpus.staged(clip, emotion)
        points = scene.landmarks(moved)[: 2 * FRAMES : 2].astype(np.float32)
        recorded = Recorded((0, 0), str(emotion), "S01", emotion, points, np.ones(len(points), bool), {})
        found[emotion] = recorded, corpus.truth(clip)["units"][: 2 * FRAMES : 2]
    return found


@pytest.fixture(scope="module")
def fitted(model, heads):
    recordings = [recorded for recorded, _ in heads.values()]
    index = SimpleNamespace(shards=[SimpleNamespace(groups=[SimpleNamespace(key="S01_00")])])
    return FittedRecordings(model, recordings, rests_of(model, recordings), index)


def test_coefficients_are_the_units_of_the_head(fitted, heads):
    for recorded, true in heads.values():
        found = fitted.of(recorded).coefficients * STEP
        assert found.shape == true.shape == (FRAMES, 52)
        assert np.abs(found - true).mean() < 0.045
    smiles = [
        fitted.of(recorded).coefficients[:, fitted.model.names.index("mouthSmileLeft")].mean()
        for recorded, _ in heads.values()
    ]
    assert STEP * (smiles[1] - smiles[0]) > 0.3


def test_a_window_of_a_recording_is_told_as_the_whole_recording_is(fitted, heads):
    recorded, _ = heads[Emotion.HAPPY]
    frames = np.array([3, 4, 5, 5])
    found = fitted.window("S01_00", frames, recorded.landmarks[frames], None)
    np.testing.assert_array_equal(found.coefficients, fitted.of(recorded).coefficients[frames])
    other = fitted.window("S01_00", frames, recorded.landmarks[frames] + 1, None)
    assert not np.array_equal(other.coefficients, found.coefficients), "of no recording: fitted alone"
    assert other.seen["rest"].shape == (4, 478, 3)


def test_landmarks_follow_coefficients_and_gradients_come_back(model, fitted, heads):
    recorded, _ = heads[Emotion.NEUTRAL]
    fit = fitted.of(recorded)
    np.testing.assert_allclose(model.moved(recorded.landmarks, fit, fit.coefficients), recorded.landmarks, atol=1e-4)
    opened = fit.coefficients.copy()
    opened[:, model.names.index("jawOpen")] += 1
    moved = model.moved(recorded.landmarks, fit, opened)
    assert (moved[:, 14, 1] - recorded.landmarks[:, 14, 1]).min() > 0.5, "pixels, down"
    seen = {name: torch.from_numpy(value) for name, value in fit.seen.items()}
    before, after = torch.from_numpy(fit.coefficients), torch.from_numpy(opened).requires_grad_()
    shift = model.shifting("cpu")(before, after, seen)
    np.testing.assert_allclose(shift.detach().numpy(), moved - recorded.landmarks, atol=1e-4)
    shift[:, 14, 1].sum().backward()
    assert after.grad[:, model.names.index("jawOpen")].min() > 0
    assert after.grad[:, model.names.index("browInnerUp")].abs().max() < 1e-3, "a brow moves no lip"


def test_a_linear_model_moves_landmarks_on_a_device_as_on_the_host(heads):
    clips = [TrainingClip("S01", emotion == Emotion.NEUTRAL, r.landmarks) for emotion, (r, _) in heads.items()]
    linear, rests = learn_face_model(clips, MESH478)
    points = clips[1].landmarks
    fit = linear.fit(points, rests["S01"])
    wanted = fit.coefficients + np.random.default_rng(0).normal(size=fit.coefficients.shape).astype(np.float32)
    seen = {name: torch.from_numpy(value) for name, value in fit.seen.items()}
    shift = linear.shifting("cpu")(torch.from_numpy(fit.coefficients), torch.from_numpy(wanted), seen)
    np.testing.assert_allclose(shift.numpy(), linear.moved(points, fit, wanted) - points, atol=1e-3)


def test_units_end_where_a_face_does(model):
    assert model.bounded(torch.tensor([-1.0, 0.5, 99])).tolist() == [0, 0.5, 1 / STEP]


def test_speech_and_gaze_are_units_of_the_head(model):
    assert set(SPEECH) | set(GAZE) <= set(model.names)
    assert [model.names[column] for column in model.speech] == list(SPEECH)


def test_a_change_is_read_in_action_units(model):
    change = np.zeros(52, np.float32)
    for name, value in (
        ("mouthSmileLeft", 0.7),
        ("mouthSmileRight", 0.5),
        ("cheekSquintLeft", 0.4),
        ("browInnerUp", -0.1),
    ):
        change[model.names.index(name)] = value / STEP
    assert in_words(change, model.names) == "AU12 mouthSmile +.60, AU6 cheekSquint +.20, AU1 browInnerUp -.10"


def test_another_head_is_refused(model, tmp_path):
    model.save(tmp_path / "face.safetensors")
    assert UnitModel.load(tmp_path / "face.safetensors", MESH478).names == model.names
    save_tensors({"mean": model.face.mean + 0.01, "units": model.face.units}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="another head than this version's: train the generator again"):
        UnitModel.load(tmp_path / "other.safetensors", MESH478)


# --- NED ----------------------------------------------------------------------------------------------------------


def test_words_hold_the_units_of_speech_and_leave_the_others_free(model):
    torch.manual_seed(0)
    window = torch.rand(3, 10, 52)
    brows, lips = window.clone(), window.clone()
    brows[..., model.names.index("browInnerUp")] = torch.rand(3, 10)
    lips[..., model.names.index("jawOpen")] = torch.rand(3, 10)
    said, with_brows, with_lips = (w[..., list(model.speech)] for w in (window, brows, lips))
    torch.testing.assert_close(objectives.together(said, with_brows), torch.ones(3))
    assert objectives.together(said, with_lips).max() < 0.99
    torch.testing.assert_close(objectives.together(said, with_brows + 2), torch.ones(3)), "a level is no rhythm"


def test_a_saved_generator_on_units_drives_and_renders(model, heads, tmp_path):
    torch.manual_seed(0)
    settings = Pretraining(coefficients="units")
    networks = build_networks(settings)
    recorded, _ = heads[Emotion.NEUTRAL]
    torch.nn.init.normal_(networks["manipulator"].output_bias.bias)
    face = Face.of(model, ExpressionTexture.empty(2 * SIZE, 52))
    generator = load(save(tmp_path, networks, face, settings, Data(size=SIZE), {}))
    shown = Shown(recorded.landmarks, recorded.valid, SIZE, "mesh478")
    still = generator.drive(shown, Emotion.HAPPY, strength=0.0)
    np.testing.assert_allclose(still.target, still.source, atol=1e-3)
    motion = generator.drive(shown, Emotion.HAPPY)
    assert motion.coefficients.shape == (2, FRAMES, 52)
    assert 0 <= motion.coefficients.min() <= motion.coefficients.max() <= 1 / STEP
    assert np.abs(motion.target - motion.source).max() > 0.5
    frames = np.full((2, SIZE, SIZE, 3), 128, np.uint8)
    assert np.isfinite(generator.render(frames, motion).flow).all()
    assert in_words((motion.coefficients[1] - motion.coefficients[0]).mean(0), model.names)


def test_windows_of_units_are_drawn_for_the_manipulator(fitted):
    windows = Windows(fitted).draw([1, 2], 3)
    assert windows["source"].shape == (2, 3, 10, 52)
    assert windows["source"].min() >= 0


def test_drawn_faces_are_refused_before_anything_is_trained(toy):
    run = run_of(NED, toy)
    run.ned.coefficients = "units"
    with pytest.raises(
        ValueError,
        match=r"--ned\.coefficients wants the 3-D head, and .* holds drawn faces .* Leave --ned\.coefficients linear",
    ):
        Stage().check(run, "ned")


def test_settings_of_before_are_of_the_linear_model():
    older = {name: value for name, value in Settings().model_dump(mode="json").items() if name != "coefficients"}
    assert Settings(**older).coefficients == "linear"
    check_agreement("ned", Settings(), older, "runs/older", ("coefficients",))
    with pytest.raises(ValueError, match=r"--ned\.coefficients is units, the pre-training in runs/older has linear"):
        check_agreement("ned", Settings(coefficients="units"), older, "runs/older", ("coefficients",))


# --- ICface -------------------------------------------------------------------------------------------------------


def test_icface_edits_the_upper_face_and_keeps_words_and_gaze(fitted, heads, tmp_path):
    torch.manual_seed(0)
    settings = ICfacePretraining(units="head")
    units = learnt_head_units(fitted.model, fitted)
    face = ICfaceFace.of(units, ExpressionTexture.empty(2 * SIZE, 52))
    networks = icface_networks(settings, SIZE, 2)
    generator = load_icface(save_icface(tmp_path, networks, face, 2, settings, Data(size=SIZE), {}))
    recorded, _ = heads[Emotion.NEUTRAL]
    shown = Shown(recorded.landmarks, recorded.valid, SIZE, "mesh478")
    still = generator.drive(shown, Emotion.HAPPY, strength=0.0)
    np.testing.assert_allclose(still.target, still.source, atol=1e-3)
    motion = generator.drive(shown, Emotion.HAPPY)
    change = motion.coefficients[1] - motion.coefficients[0]
    kept = np.isin(fitted.model.names, SPEECH + GAZE)
    assert np.abs(change[:, kept]).max() == 0
    assert STEP * change[:, fitted.model.names.index("mouthSmileLeft")].mean() > 0.3
    assert "AU12 mouthSmile" in in_words(change.mean(0), fitted.model.names)
    with pytest.raises(
        ValueError, match="sad: nobody in the training part showed it; this generator knows neutral, happy"
    ):
        generator.drive(shown, Emotion.SAD)
    frames = np.random.default_rng(0).integers(0, 255, (4, SIZE, SIZE, 3), np.uint8)
    whole = generator.render(frames, motion)
    part = generator.render(frames[2:], motion, first=2)
    np.testing.assert_allclose(whole.flow[2:], part.flow, atol=1e-4)
    assert np.abs(whole.flow).max() > 0.5 / SIZE


def test_a_driving_face_turned_away_is_told_by_its_pose(fitted, heads):
    """Turn and nod come from the head's rotation; the units do not change with how the head lies in the picture."""
    units = learnt_head_units(fitted.model, fitted)
    recorded, _ = heads[Emotion.HAPPY]
    measured = units.told(recorded.landmarks, fitted.of(recorded))
    moved = 1.5 * recorded.landmarks + np.float32(7)
    again = units.measured(moved, measured.rest)
    np.testing.assert_allclose(again.values, units.measured(recorded.landmarks, measured.rest).values, atol=0.05)
    np.testing.assert_allclose(again.pose, measured.pose, atol=0.1)
    np.testing.assert_allclose(again.seen.factor, 1.5 * measured.seen.factor, rtol=1e-3)
    assert measured.conditions.shape == (FRAMES, 54)


def test_icface_refuses_drawn_faces_too(toy):
    run = run_of(ICFACE, toy)
    run.icface.units = "head"
    with pytest.raises(ValueError, match=r"--icface\.units wants the 3-D head, and .* Leave --icface\.units landmarks"):
        ICfaceStage().check(run, "icface")
    assert (
        ICfaceSettings(**{k: v for k, v in ICfaceSettings().model_dump().items() if k != "units"}).units == "landmarks"
    )


# --- all of it, on rendered heads ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Shards of two small heads, and their split."""
    folder = tmp_path_factory.mktemp("heads")
    settings = PrepareSettings(
        corpus="heads", out=folder / "shards", identities=2, synthetic_sentences=2, size=32, local=True
    )
    job.run(settings, Console(quiet=True))
    said = {"train": (["S00", "S01"], "00"), "validation": (["S00"], "01"), "test": (["S01"], "01")}
    parts = {name: {"speakers": speakers, "sentences": [sentence]} for name, (speakers, sentence) in said.items()}
    (folder / "split.json").write_text(json.dumps({"corpus": "heads", "description": "two heads", **parts}))
    return folder


@pytest.mark.nightly
@pytest.mark.parametrize(("line", "job_name"), [(NED_ON_UNITS, "ned"), (ICFACE_ON_UNITS, "icface")])
def test_a_generator_learns_on_units_and_is_exported(line, job_name, rendered, toy, tmp_path):
    places = {"runs/heads-stage1": toy.stage1, "shards/heads": rendered / "shards", "heads": rendered / "split.json"}
    flags = [
        "--data.size",
        "32",
        "--checkpoint.storage",
        tmp_path,
        "--name",
        "r",
        "--local",
        *BRIEF,
        "--pretraining.enabled",
        "True",
    ]
    for name, steps in (("pretraining", 4), (job_name, 3)):
        flags += [f"--{name}.steps", steps, f"--{name}.global-batch", "4"]
    well(command(*words_of(line, places, *flags), timeout=500))
    names = {name for _, name in losses(tmp_path, job_name)}
    assert {"train/guidance/ccrl/content", "train/guidance/cerl/emotion"} <= names
    assert load_generator(tmp_path / "r").topology == "mesh478"
