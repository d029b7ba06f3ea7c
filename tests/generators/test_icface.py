"""ICface in its clean form: units that say what a face does, pairs that lie over each other, guidance that reaches what it guides."""

import numpy as np
import pytest
import torch
from generator_rooms import ICFACE, run_of

from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.generators.face.maps import grid_of, warped
from spfem_dist.generators.face.recordings import learnt_model, read_recordings, rests_of
from spfem_dist.generators.face.texture import lit
from spfem_dist.generators.icface.networks import SIZES, Critic, Known, Reenactor, build_networks, halvings, neutral
from spfem_dist.generators.icface.pairs import Face
from spfem_dist.generators.icface.settings import Settings
from spfem_dist.generators.icface.stage import Stage, guided_job
from spfem_dist.generators.icface.units import CONDITION, NAMES, POSE, LandmarkUnits, learnt_units
from spfem_dist.nets.frozen import evaluating
from spfem_dist.priors.frozen import frozen_priors
from spfem_dist.streaming.loader import Source
from spfem_dist.training import engines

# --- units --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def units(toy):
    """Units of the toy corpus, and the speakers at rest."""
    found = read_recordings(Source(toy.data, landmarks=True), lambda _: True, 4, 64)
    model = learnt_model(found, "ibug68")
    rests = rests_of(model, found)
    return learnt_units(model, found, rests), rests


@pytest.fixture(scope="module")
def corpus():
    return SyntheticCorpus.small(identities=4, sentences=3, size=32)


def of(units, corpus, speaker, emotion, sentence=1):
    """What `units` measure of a recording, by name; and the recording."""
    model, rests = units
    raw = corpus.render(corpus.clip(speaker, sentence, emotion))
    measured = model.measured(raw.landmarks, rests[f"S{speaker:02d}"])
    return dict(zip(NAMES, measured.values.T, strict=True)), raw


@pytest.mark.parametrize("speaker", range(4))
def test_parted_lips_are_the_opening_that_was_drawn(units, corpus, speaker):
    for emotion in (Emotion.NEUTRAL, Emotion.HAPPY, Emotion.FEAR):
        found, raw = of(units, corpus, speaker, emotion)
        assert np.corrcoef(found["part"], raw.truth["opening"])[0, 1] > 0.98


@pytest.mark.parametrize(
    ("name", "most", "least"),
    [
        ("corners", Emotion.HAPPY, Emotion.SAD),
        ("stretch", Emotion.FEAR, Emotion.SURPRISED),
        ("furrow", Emotion.ANGRY, Emotion.SURPRISED),
        ("brow_inner", Emotion.SURPRISED, Emotion.ANGRY),
        ("brow_outer", Emotion.SURPRISED, Emotion.SAD),
        ("upper_lid", Emotion.FEAR, Emotion.SAD),
        ("lower_lid", Emotion.DISGUSTED, Emotion.SURPRISED),
        ("nose", Emotion.DISGUSTED, Emotion.HAPPY),
        ("press", Emotion.ANGRY, Emotion.DISGUSTED),
    ],
)
def test_an_emotions_units_are_those_of_its_actions(name, most, least, units, corpus):
    """The corpus says how strongly each emotion uses each action; a unit is strong where its action is."""
    for speaker in range(4):
        strong, weak, calm = (
            of(units, corpus, speaker, emotion)[0][name].mean() for emotion in (most, least, Emotion.NEUTRAL)
        )
        assert strong > weak + 0.1, (name, speaker)
        assert strong > calm, (name, speaker)


def test_landmarks_move_as_the_units_ask(units, corpus):
    model, rests = units
    raw = corpus.render(corpus.clip(1, 1, Emotion.NEUTRAL))
    measured = model.measured(raw.landmarks, rests["S01"])
    change = model.level(Emotion.SURPRISED) - model.level(Emotion.NEUTRAL)
    moved = model.moved(raw.landmarks, measured, measured.values + change)
    found = model.measured(moved, rests["S01"])
    assert np.abs(found.values - measured.values - change).max() < 0.25
    np.testing.assert_allclose(found.pose, measured.pose, atol=0.3)


def test_saved_units_measure_the_same(units, corpus, tmp_path):
    model, _ = units
    model.save(tmp_path / "units.safetensors")
    again = LandmarkUnits.load(tmp_path / "units.safetensors", model.model)
    landmarks = corpus.render(corpus.clip(2, 1, Emotion.SAD)).landmarks
    np.testing.assert_allclose(again.measured(landmarks).values, model.measured(landmarks).values, atol=1e-4)
    np.testing.assert_allclose(again.level(Emotion.SAD), model.level(Emotion.SAD), atol=1e-5)


def test_an_emotion_that_nobody_showed_is_named(units, tmp_path):
    model, _ = units
    means = model.means.copy()
    means[SEVEN.index(Emotion.SAD)] = np.nan
    lacking = LandmarkUnits(model.model, model.scale, model.pose_scale, model.basis, means)
    with pytest.raises(
        ValueError, match="sad: nobody in the training part showed it; this generator knows neutral, angry"
    ):
        lacking.level(Emotion.SAD)
    lacking.save(tmp_path / "units.safetensors")
    again = LandmarkUnits.load(tmp_path / "units.safetensors", model.model)
    with pytest.raises(ValueError, match="sad: nobody"):
        again.level(Emotion.SAD)


# --- networks -----------------------------------------------------------------------------------------------------


def test_a_condition_without_expression_keeps_the_pose():
    shown = torch.randn(3, CONDITION)
    assert neutral(shown)[:, :-POSE].eq(0).all()
    assert neutral(shown)[:, -POSE:].equal(shown[:, -POSE:])


def stirred(seed=0) -> Reenactor:
    """Both generators, which begin at nothing, moved away from there."""
    torch.manual_seed(seed)
    network = Reenactor(SIZES["small"])
    for part in (network.neutraliser, network.animator):
        torch.nn.init.normal_(part.flow.weight, std=0.1)
        torch.nn.init.normal_(part.paint.weight, std=0.1)
    return network


def test_an_animator_that_does_nothing_leaves_the_neutral_picture():
    network, still = stirred(), Known(*torch.zeros(3, 2, 32, 32, 2), *torch.zeros(2, 2, 3, 32, 32))
    pictures, shown, wanted = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, CONDITION), torch.randn(2, CONDITION)
    with torch.no_grad():
        made, plain, flow = network(pictures, shown, wanted, still)
        other, _, _ = network(pictures, torch.cat([torch.randn(2, len(NAMES)), shown[:, -POSE:]], 1), wanted, still)
        for layer in (network.animator.flow, network.animator.paint):
            layer.weight.zero_()
        unmoved, _, before = network(pictures, shown, wanted, still)
    assert other.equal(made), "of what the source shows only the pose is told"
    torch.testing.assert_close(unmoved, plain, atol=1e-5, rtol=0)
    assert not flow.equal(before)


def test_generators_begin_with_what_units_are_known_to_move():
    torch.manual_seed(0)
    pictures, whole = torch.rand(2, 3, 32, 32) * 2 - 1, 0.05 * torch.randn(2, 32, 32, 2)
    calm, between = 0.05 * torch.randn(2, 2, 32, 32, 2)
    conditions, dark = torch.randn(2, CONDITION), -torch.rand(2, 3, 32, 32)
    known = Known(calm, between, whole, torch.zeros(2, 3, 32, 32), dark)
    with torch.no_grad():
        made, plain, flow = Reenactor(SIZES["small"])(pictures, conditions, conditions, known)
    assert flow.equal(whole)
    torch.testing.assert_close(made, lit(warped(pictures, grid_of(whole)), dark), atol=1e-5, rtol=0)
    torch.testing.assert_close(plain, warped(pictures, grid_of(calm)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_discriminator_takes_every_side_that_halves_to_eight(size):
    score, units, people = Critic(8, size, people=5)(torch.zeros(2, 3, size, size))
    assert (score.shape, units.shape, people.shape) == ((2, 1, 7, 7), (2, CONDITION), (2, 5))


@pytest.mark.parametrize("size", [48, 8, 100])
def test_another_side_is_refused(size):
    with pytest.raises(ValueError, match=f"data.size is {size}: .* wants 16, 32, 64, 128 or 256 pixels"):
        halvings(size)


def test_the_paper_network_has_the_published_widths():
    with torch.device("meta"):
        networks = build_networks(Settings(network="paper"), 128, 939)
    assert networks["reenactor"].animator.first.weight.shape[0] == 128
    assert len(networks["reenactor"].animator.blocks) == 6


# --- pairs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def guided(toy):
    """Makes (the job, its frozen priors, a batch) of a run with changed settings; in this process, without engines."""
    jobs = []

    def make(priors=(str(toy.stage1),), **changes):
        run = run_of(ICFACE, toy, priors)
        run.icface = run.icface.model_copy(update=changes)
        torch.manual_seed(0)
        frozen = frozen_priors(run.priors, "", run.data, "cpu")
        jobs.append(guided_job(run, "icface", frozen, 0, 1, torch.device("cpu")))
        return jobs[-1], frozen, next(jobs[-1].batches(0))[0]

    yield make
    for job in jobs:
        job.close()


def losses_of(job):
    return job.phases[0].losses.__self__


@pytest.mark.parametrize("across", [0.0, 1.0])
def test_a_driving_frame_lies_over_its_picture(across, guided):
    job, _, batch = guided(across=across)
    prepared = losses_of(job).prepared(job.networks, batch)
    assert prepared.across.eq(across).all()
    inside = prepared.soft > 0.5
    apart, shuffled = (
        ((prepared.picture - other).abs() * inside).sum() / (3 * inside.sum())
        for other in (prepared.driving, prepared.driving.roll(1, 0))
    )
    assert apart < 0.8 * shuffled
    same = batch.extras["shown"].eq(batch.extras["wanted"]).all(1)
    assert not same.any(), "a picture is not its own driving frame"


def test_still_points_of_a_driving_frame_fall_on_those_of_the_picture(guided):
    job, _, batch = guided(across=1.0)
    order, each = job.phases[0].losses.__self__.known.face.units.model.topology, torch.arange(len(batch))
    here = batch.landmarks[(each, *batch.extras["shown"].unbind(1))][:, list(order.rigid)]
    there = batch.extras["vertices"][:, list(order.rigid)]
    plain = batch.landmarks[(each, *batch.extras["wanted"].unbind(1))][:, list(order.rigid)]
    laid, before = (float((points - here).norm(dim=-1).mean()) for points in (there, plain))
    assert laid < 0.6, "pixels"
    assert laid < before


def test_an_edit_has_the_sources_words_and_the_references_level(guided):
    job, _, batch = guided()
    own, edit = batch.extras["own"], batch.extras["edit"]
    units = losses_of(job).known.face.units
    spoken = torch.from_numpy(units.spoken)
    changed = (edit - own)[..., : len(NAMES)]
    assert changed[..., spoken].eq(0).all()
    assert edit[..., len(NAMES) :].equal(own[..., len(NAMES) :])
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed), atol=1e-5, rtol=0)  # the level alone
    assert changed[..., ~spoken].abs().amax() > 0.3


# --- guidance -----------------------------------------------------------------------------------------------------


def step(job, batch) -> dict[str, set[str]]:
    """One step of both phases in plain PyTorch; the names of each phase's losses."""
    names = {}
    for phase in job.phases:
        with engines.only(job.networks, phase.trains):
            found, _ = phase.losses(job.networks, batch)
            sum(found.values()).backward()
        optimizer = torch.optim.SGD(job.networks[phase.trains].parameters(), 1e-3)
        optimizer.step()
        optimizer.zero_grad()
        names[phase.trains] = set(found)
    return names


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"guidance/ccrl/content", "guidance/cerl/emotion"}),
        ({"guidance": {"ccrl": 0.0}}, {"guidance/cerl/emotion"}),
        ({"guidance": {"cerl": 0.0}}, {"guidance/ccrl/content"}),
        ({"priors": ()}, set()),
    ],
    ids=["both", "no-content", "no-emotion", "no-priors"],
)
def test_a_weight_of_zero_leaves_a_loss_out(changes, expected, guided):
    job, _, batch = guided(**changes)
    names = step(job, batch)
    assert {name for name in names["reenactor"] if name.startswith("guidance/")} == expected
    assert names["critic"] == {f"icface/{n}" for n in ("real", "made", "real_units", "real_identity", "gradient")}


def test_guidance_reaches_both_generators_and_nothing_of_the_priors(guided):
    job, frozen, batch = guided()
    reenactor = job.networks["reenactor"]
    with engines.only(job.networks, "reenactor"):
        found, _ = job.phases[0].losses(job.networks, batch)
        for name in ("guidance/ccrl/content", "guidance/cerl/emotion"):
            reenactor.zero_grad()
            found[name].backward(retain_graph=True)
            for part in (reenactor.neutraliser, reenactor.animator):
                assert sum(p.grad.norm() for p in part.parameters() if p.grad is not None) > 0, name
    others = [job.networks["critic"], *frozen.networks.values()]
    assert all(p.grad is None for other in others for p in other.parameters())
    frozen.check_untouched()


def test_priors_pull_as_hard_as_the_settings_say(guided):
    job, frozen, _ = guided(content_pull=0.02, emotion_pull=0.03)
    said = job.begin()
    assert len(said) == 2
    losses = losses_of(job)
    assert set(losses.balance.guiding) == {"ccrl", "cerl"}
    for kind, pull in (("ccrl", 0.02), ("cerl", 0.03)):
        norm = float(next(line for line in said if kind in line).split("weight 1: ")[1].split(" ")[0])
        assert losses.balance.guiding[kind] * norm == pytest.approx(pull, rel=0.01)


def test_the_discriminator_is_judged_alone_where_no_generator_ran_before(guided):
    job, _, batch = guided(priors=())
    found, _ = job.phases[1].losses(job.networks, batch)
    assert all(value.isfinite() for value in found.values())


def test_a_step_never_asks_the_host_once_its_batch_is_there(guided):
    """On the meta device there is nothing to ask: whatever reads a value, or draws on the host, raises."""
    job, frozen, batch = guided()
    known = losses_of(job).known
    known.face = Face.of(known.face.units, known.face.texture, known.face.rests, device="meta")
    for network in (*job.networks.values(), *frozen.networks.values()):
        network.to("meta")
    names = set()
    for phase in job.phases:
        with engines.only(job.networks, phase.trains):
            found, _ = phase.losses(job.networks, batch.to("meta"))
            torch.stack(list(found.values())).sum().backward()
        names |= set(found)
    assert {"icface/picture", "icface/gradient", "guidance/ccrl/content", "guidance/cerl/emotion"} <= names


def test_zero_three_with_a_gradient_penalty_is_refused_before_it_starts(toy):
    run = run_of(ICFACE, toy)
    run.zero.stage = 3
    with pytest.raises(ValueError, match=r"give --zero\.stage 2, or --icface\.gradient-penalty 0"):
        Stage().check(run, "icface")
    run.icface.gradient_penalty = 0
    Stage().check(run, "icface")


# --- learning -----------------------------------------------------------------------------------------------------


def test_pairs_of_one_batch_are_learnt(guided):
    """Forty steps on the same pairs bring them nearer to their driving frames than copying the picture does."""
    job, _, batch = guided(priors=())
    losses, networks = losses_of(job), job.networks
    optimizer = torch.optim.Adam(networks["reenactor"].parameters(), 1e-3)
    for _ in range(40):
        with engines.only(networks, "reenactor"):
            found, _ = job.phases[0].losses(networks, batch)
            optimizer.zero_grad()
            (found["icface/picture"] + found["icface/squared"]).backward()
            optimizer.step()
    from spfem_dist.generators.icface.objectives import drawn, reconstruction_errors

    prepared = losses.prepared(networks, batch)
    with torch.no_grad(), evaluating(networks["reenactor"]):
        made = drawn(networks["reenactor"], prepared, False)["made"]
        learnt, copied = (float(reconstruction_errors(prepared, picture)[0]) for picture in (made, prepared.picture))
    assert learnt < 0.9 * copied
