"""SSERD in its clean form: codes, where emotions lie among them, pairs that are made of both, and phases that are due now and then."""

import json

import numpy as np
import pytest
import torch
from documented import words_of
from doors import command, well
from generator_rooms import BRIEF, SSERD, run_of
from toy_stage2 import STAGE1

from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.face.topology import topology
from spfem_dist.generators.load import load_generator
from spfem_dist.generators.sserd.bank import Bank, boundary_directions, mean_directions
from spfem_dist.generators.sserd.networks import Averaged, build_critic, build_portrait, build_residual
from spfem_dist.generators.sserd.pairs import FEATURES, attention, picture_errors
from spfem_dist.generators.sserd.settings import Pretraining, Settings
from spfem_dist.generators.sserd.stage import Stage, guided_job
from spfem_dist.generators.sserd.stylegan2 import Generator
from spfem_dist.priors.frozen import frozen_priors
from spfem_dist.training import engines

SIZE = 32
NEUTRAL, HAPPY, SAD = (SEVEN.index(e) for e in (Emotion.NEUTRAL, Emotion.HAPPY, Emotion.SAD))

# --- codes --------------------------------------------------------------------------------------------------------


def bank(people=6, frames=4, layers=3, style=5, seed=0) -> Bank:
    """Codes in which every emotion but sadness moves one number of one layer, beside who it is."""
    rng = np.random.default_rng(seed)
    codes, emotions, speakers = [], [], []
    for person in range(people):
        who = rng.normal(size=(layers, style))
        for emotion in range(len(SEVEN)):
            if emotion == SAD:
                continue
            for _ in range(frames):
                code = who + 0.1 * rng.normal(size=(layers, style))
                if emotion != NEUTRAL:
                    code[emotion % layers, emotion % style] += 3.0
                codes.append(code)
                emotions.append(emotion)
                speakers.append(f"S{person}")
    levels = np.eye(len(SEVEN))[emotions]
    return Bank(torch.tensor(np.array(codes)).float(), torch.tensor(emotions), tuple(speakers), levels)


@pytest.mark.parametrize("directions", [boundary_directions, mean_directions])
def test_a_direction_leads_from_neutral_codes_to_an_emotions(directions):
    codes = bank()
    found = directions(codes)
    assert found.known.tolist() == [e != SAD for e in range(len(SEVEN))]
    assert found.towards[[NEUTRAL, SAD]].abs().max() == 0
    place = HAPPY % 3, HAPPY % 5
    happy = found.towards[HAPPY]
    assert happy[place] == happy.abs().max()
    assert happy[place] == pytest.approx(3.0, abs=0.4)
    back = found.between(torch.tensor([HAPPY]), torch.tensor([NEUTRAL]), codes.codes)
    torch.testing.assert_close(back[0], -happy)
    whole, layers = found.lengths
    assert whole[HAPPY] > layers[HAPPY] > 0


def test_a_reference_is_looked_up_by_its_expression_and_a_name_among_its_own():
    codes = bank()
    near = codes.like(np.eye(len(SEVEN))[HAPPY])
    assert near[codes.emotions.numpy() == HAPPY].sum() > 0.99
    named = codes.shown(Emotion.HAPPY)
    assert named.sum() == pytest.approx(1)
    assert set(codes.emotions.numpy()[named > 0]) == {HAPPY}
    with pytest.raises(
        ValueError, match="emotion sad: nobody in the training part showed it; this generator knows neutral"
    ):
        codes.shown(Emotion.SAD)


def test_a_reduced_bank_keeps_some_of_every_emotion_and_of_every_person():
    kept = bank(people=8, frames=10).reduced(8)
    counts = torch.bincount(kept.emotions, minlength=len(SEVEN)).tolist()
    assert counts == [0 if e == SAD else 8 for e in range(len(SEVEN))]
    assert len(set(kept.speakers)) == 8


# --- networks -----------------------------------------------------------------------------------------------------


def test_the_residual_begins_at_nothing_and_tells_layers_apart():
    torch.manual_seed(0)
    residual = build_residual(Settings(), SIZE)
    source, reference = torch.randn(2, 2, 8, 128)
    assert residual(source, reference).abs().max() == 0
    torch.nn.init.normal_(residual.out.weight, std=0.1)
    order = torch.arange(7, -1, -1)
    with torch.no_grad():
        here, turned = residual(source, reference), residual(source[:, order], reference[:, order])
    assert not torch.allclose(here, turned[:, order], atol=1e-3), "as published tokens have no place"


def test_the_average_follows_and_takes_no_gradient():
    torch.manual_seed(0)
    averaged = Averaged(build_portrait(Pretraining(), 16))
    before = averaged.average.encoder.out.weight.clone()
    with torch.no_grad():
        averaged.now.encoder.out.weight.add_(1.0)
    averaged.follow(0.25)
    torch.testing.assert_close(averaged.average.encoder.out.weight, before + 0.25)
    assert {p.requires_grad for p in averaged.average.parameters()} == {False}


def test_random_noise_differs_from_call_to_call_and_none_does_not():
    torch.manual_seed(0)
    generator = Generator(16, 8, 1, dict.fromkeys((4, 8, 16), 8))
    for name, parameter in generator.named_parameters():
        if name.endswith("noise.weight"):
            torch.nn.init.ones_(parameter)
    codes = torch.randn(1, generator.codes, 8)
    with torch.no_grad():
        assert not generator(codes, "random").equal(generator(codes, "random"))
        assert generator(codes, "zero").equal(generator(codes, "zero"))


def test_a_score_does_not_depend_on_the_pictures_beside_it():
    torch.manual_seed(0)
    critic, pictures = build_critic(Pretraining(), SIZE), torch.rand(6, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(critic(pictures)[:1], critic(pictures[:1]), atol=1e-4, rtol=1e-4)


def test_attention_lies_on_the_features():
    order = topology("ibug68")
    landmarks = torch.full((1, 68, 2), 4.0)
    landmarks[:, list(order.mouth)] = torch.tensor([24.0, 20.0])
    weights = attention(landmarks, order, SIZE)[0, 0]
    assert weights[20, 24] == pytest.approx(1 + FEATURES, abs=0.8)
    assert weights[30, 2] == pytest.approx(1, abs=0.01)
    made = torch.zeros(2, 3, SIZE, SIZE)
    made[0, :, 20, 24], made[1, :, 30, 2] = 1.0, 1.0
    squared, _ = picture_errors(made, torch.zeros_like(made), weights.expand(2, 1, -1, -1))
    assert squared[0] > 3 * squared[1]


# --- a step -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guided(toy):
    """Gives the job under the toy priors and its first batch."""
    made = {}

    def job_with(**changes):
        key = json.dumps(changes, sort_keys=True)
        if key not in made:
            run = run_of(SSERD, toy, changes.pop("priors", (str(toy.stage1),)))
            for name, value in changes.items():
                setattr(run.sserd, name, value)
            torch.manual_seed(0)
            priors = frozen_priors(run.priors, "", run.data, "cpu")
            job = guided_job(run, "sserd", priors, 0, 1, torch.device("cpu"))
            made[key] = job, priors, next(job.batches(0))[0]
        return made[key]

    yield job_with
    for job, *_ in made.values():
        job.close()


def losses_of(job):
    return job.phases[0].losses.__self__


def test_guidance_reaches_the_residual_and_nothing_else(guided):
    job, frozen, batch = guided()
    torch.nn.init.normal_(job.networks["residual"].out.weight, std=0.01)
    with engines.only(job.networks, "residual"):
        found, _ = job.phases[0].losses(job.networks, batch)
        for name in ("guidance/ccrl/content", "guidance/cerl/emotion", "sserd/pair_squared", "sserd/contrast"):
            job.networks["residual"].zero_grad()
            found[name].backward(retain_graph=True)
            assert job.networks["residual"].out.weight.grad.norm() > 0, name
    others = [job.networks["critic"], losses_of(job).known.portrait, *frozen.networks.values()]
    assert all(p.grad is None for other in others for p in other.parameters())
    frozen.check_untouched()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_pairs_count_as_often_as_the_settings_say(share, guided):
    job, _, batch = guided(priors=(), paired_share=share)
    prepared = losses_of(job).prepared(job.networks, batch)
    shown = batch.emotion[:, 0] != batch.emotion[:, 1]
    assert prepared.paired.tolist() == (share * shown.float()).tolist()


def test_a_pair_of_the_boundary_is_drawn_and_one_of_the_warp_was_recorded(guided):
    job, _, batch = guided(priors=(), paired_share=1.0)
    losses = losses_of(job)
    made = losses.prepared(job.networks, batch)
    known, codes = losses.known, made.codes
    emotion = torch.tensor([[SEVEN.index(list(Emotion)[e]) for e in row[:2]] for row in batch.emotion.tolist()])
    moved = codes + known.directions.between(*emotion.unbind(1), codes)
    torch.testing.assert_close(made.target, known.portrait.draw(moved), atol=1e-4, rtol=1e-4)
    job, _, batch = guided(priors=(), paired_share=1.0, pairs="warp")
    made = losses_of(job).prepared(job.networks, batch)
    at = torch.arange(len(batch))[:, None], made.edited
    torch.testing.assert_close(made.target, (batch.frames[:, 2][at].flatten(0, 1) / 127.5 - 1))
    assert (made.paired <= batch.valid[:, 2][at].flatten()).all()


def test_what_a_sample_meets_is_of_the_references_emotion_and_another_person(guided):
    job, _, batch = guided(priors=())
    codes = losses_of(job).known.bank
    for i in range(len(batch)):
        emotion = SEVEN.index(list(Emotion)[batch.emotion[i, 1]])
        other, keys = int(batch.extras["other"][i]), batch.extras["keys"][i]
        assert codes.speakers[other] != batch.speakers[i]
        assert codes.emotions[other] == emotion
        assert codes.emotions[keys].tolist() == [emotion, *(e for e in range(len(SEVEN)) if e != emotion)]


def test_pairs_of_one_batch_are_learnt(guided):
    """Thirty steps on the same pairs bring the residual's pictures nearer to them than the sources are."""
    job, _, batch = guided(priors=(), paired_share=1.0)
    torch.manual_seed(0)
    residual = job.networks["residual"]
    optimizer, first = torch.optim.Adam(residual.parameters(), 3e-3), None
    for _ in range(30):
        with engines.only(job.networks, "residual"):
            found, _ = job.phases[0].losses(job.networks, batch)
            optimizer.zero_grad()
            (found["sserd/pair_squared"] + found["sserd/pair_absolute"]).backward()
            optimizer.step()
        first = first or float(found["sserd/pair_squared"])
    assert float(found["sserd/pair_squared"]) < 0.6 * first


def test_what_cannot_be_trained_is_refused_before_it_starts(toy):
    run = run_of(SSERD, toy)
    run.zero.stage = 3
    with pytest.raises(ValueError, match=r"give --zero\.stage 2, or --sserd\.gradient-penalty 0"):
        Stage().check(run, "sserd")
    run.pretraining.enabled = True
    with pytest.raises(ValueError, match="pretraining keeps an average of its weights, which ZeRO-3 has in parts"):
        Stage().check(run, "pretraining")
    run.zero.stage, run.zero.precision = 1, "bf16"
    with pytest.raises(ValueError, match=r"whose steps bf16 rounds away: give --zero\.precision bf16-mixed"):
        Stage().check(run, "pretraining")
    run.zero.stage, run.data.size = 1, 48
    with pytest.raises(ValueError, match=r"data\.size is 48: a StyleGAN2 draws 16, 32, 64"):
        Stage().check(run, "sserd")
    with pytest.raises(ValueError, match="form released cannot be trained: it begins from a StyleGAN2 of FFHQ"):
        Settings(form="released")


# --- both stages --------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_both_stages_train_one_after_the_other(toy, tmp_path):
    """The first by its own recipe; R1 and path length are logged at the steps at which they are due, and no other."""
    places = ["--data.shards", toy.shards, "--data.split", toy.split, "--data.size", "32"]
    places += ["--checkpoint.storage", tmp_path, *BRIEF]
    first = ["--name", "sserd-stage1", "--pretraining.enabled", "True", "--pretraining.steps", "4"]
    first += ["--pretraining.global-batch", "4", "--pretraining.penalty-every", "3", "--pretraining.path-every", "2"]
    well(command(*words_of("python recipes/sserd_stage1.py", {}, "--local", *map(str, [*places, *first]))))
    rows = json.loads((tmp_path / "sserd-stage1" / "pretraining" / "history.json").read_text())
    due = {name: [r["step"] for r in rows if f"train/sserd/{name}" in r["values"]] for name in ("gradient", "path")}
    assert due == {"gradient": [1, 4], "path": [1, 3]}

    line = "python recipes/sserd_stage2.py --priors runs/cdrl-stage1 --pretrained runs/sserd-stage1"
    moved = {STAGE1: toy.stage1, "runs/sserd-stage1": tmp_path / "sserd-stage1"}
    second = ["--local", "--name", "r", "--sserd.steps", "2", "--sserd.global-batch", "4"]
    well(command(*words_of(line, moved, *map(str, [*places, *second]))))
    before, after = (load_generator(tmp_path / run) for run in ("sserd-stage1", "r"))
    for name, value in before.portrait.state_dict().items():
        assert value.equal(after.portrait.state_dict()[name]), name
