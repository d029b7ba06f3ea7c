"""The judges: what they learn from, that they come back from their folder, and that their crops and checks are right."""

import json
from contextlib import closing

import numpy as np
import pytest
import torch
from documented import words_of
from doors import command, well
from judged_corpus import BRIEF

from spfem_dist.config import Data
from spfem_dist.corpora.synthetic import SyntheticCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.clips import planes, read_clips, topology_of
from spfem_dist.evaluation.judges.check import check_synchrony, correlation
from spfem_dist.evaluation.judges.disturb import coded, crop_matrix, cropped, disturbed, to_crop, to_frame
from spfem_dist.evaluation.judges.networks import (
    IdentityNetwork,
    OracleNetwork,
    SynchronyNetwork,
    mean_over_samples,
    placed,
)
from spfem_dist.evaluation.judges.saved import build_judge, load_judges
from spfem_dist.evaluation.judges.settings import Identity, JudgesRun, Oracle, Synchrony
from spfem_dist.evaluation.judges.stage import JudgeStage
from spfem_dist.records import Seeds
from spfem_dist.shard_format import ShardIndex
from spfem_dist.weights import MissingWeights


@pytest.fixture(scope="module")
def clip():
    corpus = SyntheticCorpus.small(size=64)
    return corpus.render(corpus.clip(1, 0, Emotion.HAPPY))


def test_the_recipe_trains_three_judges_and_says_how_good_they_are(judges_run):
    folder, said = judges_run
    for name, figure in (("oracle", "emotion_accuracy"), ("identity", "verification_auc"), ("synchrony", "lse_d")):
        config = json.loads((folder / name / "model" / "config.json").read_text())
        assert config["facts"]["figures"][figure] == config["facts"]["figures"][figure]  # a number
        assert f"{name}/{figure}:" in said
    figures = load_judges(str(folder)).figures()
    assert 0 <= figures["oracle/emotion_accuracy"].value <= 1
    assert figures["oracle/emotion_accuracy"].clips == 28  # two speakers, two sentences, seven emotions
    assert "oracle/mouth_opening_corr" in figures


def losses(run, judge):
    history = json.loads((run / judge / "history.json").read_text())
    return {(row["step"], k): v for row in history for k, v in row["values"].items() if k.startswith(f"train/{judge}/")}


@pytest.mark.nightly
def test_two_ray_workers_repeat_the_losses_of_one_process(judges_run, small_corpus, tmp_path):
    shards, split = small_corpus
    places = ["--data.shards", shards, "--data.split", split, "--data.size", "32", "--checkpoint.storage", tmp_path]
    brief = [*BRIEF[1:], "--identity.enabled", "False", "--synchrony.enabled", "False"]
    well(command(*words_of("python recipes/metric_nets.py"), *places, *brief))
    assert (tmp_path / "judges" / "oracle" / "model" / "model.safetensors").exists()
    # Single precision: rounding grows about twofold a step.
    assert losses(tmp_path / "judges", "oracle") == pytest.approx(losses(judges_run[0], "oracle"), abs=1e-3)


def test_a_mean_over_samples_does_not_depend_on_how_many_frames_count():
    counted = torch.tensor([[True, True, True], [False, True, False], [False, False, False]])
    values = torch.tensor([1.0, 2.0, 3.0, 10.0])
    assert mean_over_samples(values, counted) == pytest.approx((2 + 10 + 0) / 3)


def test_judges_are_not_registered_as_priors(small_corpus):
    shards, split = small_corpus
    run = JudgesRun(data=Data(shards=str(shards), split=str(split), size=32))
    assert run.tracking.register_models is False
    with closing(JudgeStage().job(run, "oracle", 0, 1, torch.device("cpu"))) as job:
        assert job.registers is False


def test_equal_judges_have_one_digest_and_their_names_say_what_they_are(judges_run, judges):
    again = load_judges(str(judges_run[0]))
    assert again.digest == judges.digest
    assert judges.digest in str(judges)
    assert "corpus-trained" in str(judges)


def test_a_missing_judge_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no judge 'oracle'.*metric_nets"):
        load_judges(str(tmp_path))


def test_published_judges_say_where_their_weights_come_from(monkeypatch, tmp_path):
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingWeights, match="resnet18-arcface"):
        load_judges("published")


def test_settings_of_another_judge_are_refused():
    with pytest.raises(ValueError, match="no judge called 'oracle' takes settings of type Identity"):
        build_judge("oracle", Identity(), {})


def test_a_side_that_cannot_be_halved_thrice_is_refused_with_one_that_can():
    with pytest.raises(ValueError, match="use 48"):
        Oracle(side=50)


def test_shards_without_landmarks_say_how_to_get_them(small_corpus):
    index = ShardIndex.load(small_corpus[0])
    assert topology_of(index) == "ibug68"
    with pytest.raises(ValueError, match="--faces mesh"):
        topology_of(index.model_copy(update={"landmarks": "none"}))


def test_landmarks_follow_their_crop_and_come_back(clip):
    settings = Oracle()
    points = torch.from_numpy(clip.landmarks[:4])
    matrix = crop_matrix(settings, 4, torch.rand(4, 4, generator=torch.Generator().manual_seed(0)))
    there = to_crop(points, matrix, 64)
    assert torch.allclose(to_frame(there, matrix, 64), points, atol=1e-4)
    # A dot drawn at a landmark is found at its place in the crop.
    frames = torch.zeros(4, 3, 64, 64)
    for n in range(4):
        x, y = points[n, 30]
        frames[n, :, int(y), int(x)] = 1.0
    crop = cropped(frames, matrix, settings.side)[:, 0]
    at = crop.flatten(1).argmax(1)
    found = torch.stack([at % settings.side, at // settings.side], 1).float()
    expected = (there[:, 30] + 1) / 2 * settings.side - 0.5
    assert (found - expected).abs().max() < 1.6


def test_disturbances_belong_to_the_sample_and_not_to_its_neighbours(clip):
    settings = Oracle()
    faces = placed(planes(clip.frames[:4]), settings)[0]
    seed = Seeds((5, 9))
    both = disturbed(faces, seed, "p", settings, (2,))
    alone = disturbed(faces[2:], seed[1:], "p", settings, (2,))
    assert torch.allclose(both[2:], alone, atol=1e-5)
    assert (both - faces).abs().mean() > 0.01


def test_block_coding_with_a_fine_step_changes_nothing_and_with_a_coarse_one_much(clip):
    faces = placed(planes(clip.frames[:2]), Oracle())[0]
    assert (coded(faces, torch.full((2, 1, 1, 1), 1e-4)) - faces).abs().max() < 1e-2
    assert (coded(faces, torch.full((2, 1, 1, 1), 0.3)) - faces).abs().mean() > 0.02


def test_the_oracle_gives_probabilities_landmarks_in_pixels_and_features(clip):
    oracle = OracleNetwork(Oracle(), "ibug68").eval()
    reading = oracle.read(planes(clip.frames))
    count = len(clip.frames)
    assert reading.landmarks.shape == (count, 68, 2)
    assert torch.allclose(reading.emotion.sum(1), torch.ones(count), atol=1e-5)
    assert reading.features.shape == (count, 128)
    assert OracleNetwork(Oracle(), "mesh468").points == 468


def test_identity_does_not_see_the_background(clip):
    identity = IdentityNetwork(Identity(), ["S00"]).eval()
    other = clip.frames.copy()
    other[:, :6], other[:, :, :4], other[:, :, -4:] = 0, 255, 255
    assert torch.allclose(identity.embed(planes(clip.frames)), identity.embed(planes(other)), atol=1e-5)


def test_synchrony_hears_the_very_window_that_it_sees(clip):
    judge = SynchronyNetwork(Synchrony(), 6, 5).eval()
    features = torch.randn(len(clip.frames), 6)
    lips, heard = judge.embed(planes(clip.frames), features)
    assert lips.shape == heard.shape == (len(clip.frames) - 4, 128)
    changed = features.clone()
    changed[10] += 1.0  # heard by the windows centred on frames 8 to 12, which are rows 6 to 10
    moved = (judge.embed(planes(clip.frames), changed)[1] - heard).norm(dim=1) > 1e-6
    assert moved.nonzero().flatten().tolist() == [6, 7, 8, 9, 10]


def test_the_check_of_synchrony_sees_shifted_speech():
    """With embeddings that agree perfectly the offset is 0, and shifted speech is farther away."""

    class Perfect:
        def embed(self, frames, speech):
            rows = torch.nn.functional.normalize(speech, dim=1)
            return rows, rows

    class Sound:
        def __init__(self, seed):
            self.features = np.random.default_rng(seed).standard_normal((30, 8)).astype(np.float32)
            self.frames = np.zeros((30, 4, 4, 3), np.uint8)

    figures = check_synchrony(Perfect(), [Sound(0), Sound(1)])
    assert figures["offset_within_1"].value == 1
    assert figures["lse_d"].value == pytest.approx(0, abs=1e-4)
    assert figures["lse_d_aligned_shifted"].value > 1


def test_a_mouth_that_does_not_move_has_no_correlation():
    assert np.isnan(correlation(np.ones(5), np.arange(5.0)))
    assert correlation(np.arange(5.0), 3 - 2 * np.arange(5.0)) == pytest.approx(-1)


def test_clips_have_landmarks_in_pixels_of_the_size_that_is_asked(small_corpus):
    shards, _ = small_corpus
    half, whole = (
        next(read_clips(Data(shards=str(shards), split="none", size=size), lambda e: e.key == "S02_01"))
        for size in (16, 32)
    )
    assert half.frames.shape[1] == 16
    assert np.allclose(half.landmarks * 2, whole.landmarks)
    assert half.name == "S02_01/neutral-1-1"
    assert np.allclose(half.opening, whole.opening, atol=1e-5)
