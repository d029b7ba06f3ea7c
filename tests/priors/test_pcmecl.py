"""PCMECL: prompts made for the speaker, and changes of the face held against changes of the prompt."""

import pytest
import torch
from batches import make_batch, part

from spfem_dist.config import Data
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.nets.frozen import freeze
from spfem_dist.priors import pcmecl
from spfem_dist.priors.pcmecl.clean import CleanPCMECL, cosine
from spfem_dist.priors.prior import EditedFrames, Prior, build_prior, load_prior, save_prior
from spfem_dist.records import Seeds
from spfem_dist.streaming.views import PERSONAL

LOSSES = {f"pcmecl/{name}" for name in ("personal", "generic", "size", "direction", "return")}
NUMBERS = {emotion: list(Emotion).index(emotion) for emotion in Emotion}


def built(**settings) -> CleanPCMECL:
    """A prior whose prompts depend on the portrait, as after some training."""
    torch.manual_seed(0)
    prior = build_prior(pcmecl.Settings(**settings), Data(), 160, pretrained=False)
    torch.nn.init.normal_(prior.person[-1].weight, std=0.5)
    return prior


def losses_of(prior, batch) -> dict[str, float]:
    with torch.no_grad():
        return {name: float(value) for name, value in prior(batch)[0].items()}


@pytest.fixture
def batch():
    return make_batch(3, 9, 2)


def test_it_is_a_prior_with_named_finite_losses(batch):
    prior = built()
    losses, monitors = prior(batch)
    assert isinstance(prior, Prior)
    assert prior.view is PERSONAL
    assert set(losses) == LOSSES
    assert set(monitors) == {"pcmecl/accuracy_personal", "pcmecl/accuracy_generic"}
    assert all(torch.isfinite(value) and value.dim() == 0 for value in (losses | monitors).values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in prior.parameters())


def test_it_learns_a_batch_by_heart(batch):
    prior = built()
    optimiser = torch.optim.Adam(prior.parameters(), 1e-3)
    for _ in range(12):
        losses, monitors = prior(batch)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    assert monitors["pcmecl/accuracy_personal"] > 0.9
    assert monitors["pcmecl/accuracy_generic"] > 0.9


def test_before_training_everybodys_prompts_are_nobodys():
    torch.manual_seed(0)
    prior = build_prior(pcmecl.Settings(), Data(), 160)
    torch.testing.assert_close(prior.prompts(torch.randn(2, 128)), prior.prompts().expand(2, -1, -1))
    assert prior.prompts().shape == (len(SEVEN), 128)
    torch.testing.assert_close(prior.prompts().norm(dim=1), torch.ones(7))


def test_prompts_follow_the_portrait_and_the_portrait_counts_valid_frames_alone():
    prior = built()
    vectors = torch.randn(2, 4, 128)
    counted = torch.tensor([[True, True, False, True]] * 2)
    who = prior.portrait(vectors, counted)
    torch.testing.assert_close(who, vectors[:, [0, 1, 3]].mean(1))
    mine, other = prior.prompts(who)
    assert (mine - other).abs().max() > 0.01


def test_samples_do_not_meet_outside_the_batch_norm(batch):
    prior = built().eval()
    whole = losses_of(prior, batch)
    parts = [losses_of(prior, part(batch, slice(i, i + 1))) for i in range(3)]
    for name, value in whole.items():
        assert value == pytest.approx(sum(p[name] for p in parts) / 3, abs=1e-5)


def test_training_repeats_itself_and_follows_the_sample_seeds(batch):
    prior = built()
    first = losses_of(prior, batch)
    assert losses_of(prior, batch) == first
    batch.seed = Seeds(tuple(number + 1 for number in batch.seed.numbers))
    assert losses_of(prior, batch) != first


def test_padding_changes_no_loss(batch):
    prior = built().eval()
    batch.valid[:, 3] = False
    batch.valid[0, 7:] = False
    expected = losses_of(prior, batch)
    batch.frames[:, 3] = 0
    batch.frames[0, 7:] = 0
    assert losses_of(prior, batch) == pytest.approx(expected, abs=1e-5)


def test_a_speaker_without_a_portrait_has_nobodys_prompts_and_no_directions(batch):
    prior = built().eval()
    batch.valid[:, 7:] = False
    found = losses_of(prior, batch)
    assert found["pcmecl/personal"] == pytest.approx(found["pcmecl/generic"], abs=1e-6)
    assert found["pcmecl/size"] == found["pcmecl/direction"] == found["pcmecl/return"] == 0


def test_all_faces_of_a_sample_are_mirrored_alike():
    prior = built(shift=0, colour_jitter=0)
    batch = make_batch(8, 9, 1)
    batch.frames[:] = batch.frames[:1, :1, :1]
    faces = prior.train().augmented(batch).unflatten(0, (8, 9))
    assert all(sample.eq(sample[0]).all() for sample in faces)
    assert not all(sample.eq(faces[0]).all() for sample in faces)


def test_views_without_a_portrait_are_refused():
    with pytest.raises(ValueError, match="PCMECL needs 7 recordings and a portrait for each sample, found 7"):
        built()(make_batch(1, 7, 2))


def test_a_saved_prior_comes_back_frozen_and_the_same(batch, tmp_path):
    prior = built()
    save_prior(tmp_path / "p", prior, settings=pcmecl.Settings(), data=Data(), feature_dim=160)
    again, config = load_prior(tmp_path / "p")
    assert config["kind"] == "pcmecl"
    assert losses_of(again, batch) == losses_of(prior.eval(), batch)
    assert not any(p.requires_grad for p in again.parameters())


def test_pictures_show_a_portrait_beside_the_faces_nearest_to_its_prompts(batch):
    prior = built().train()
    pictures = prior.pictures(batch)
    assert set(pictures) == {"prompts"}
    assert pictures["prompts"].dtype == "uint8"
    assert prior.training
    batch.valid[:, 7:] = False
    assert prior.pictures(batch) == {}


def test_in_double_every_loss_is_double(batch):
    losses, _ = built().double()(batch)
    assert {value.dtype for value in losses.values()} == {torch.float64}


@pytest.mark.nightly
def test_of_the_published_size_the_context_and_the_portraits_way_into_it_are_learned():
    prior = built(network="paper").train()
    learned = {n: p.numel() for n, p in prior.named_parameters() if p.requires_grad}
    assert sum(learned.values()) == 28_672 + 33_312
    who = torch.nn.functional.normalize(torch.randn(2, 512), dim=1)
    prompts = prior.prompts(who)
    assert prompts.shape == (2, 7, 512)
    assert (prompts[0] - prompts[1]).abs().max() > 0
    prompts.sum().backward()
    assert all(p.grad is not None for n, p in prior.named_parameters() if n in learned)


# --- stage 2 --------------------------------------------------------------------------------------------------------


def faces(seed, count=2, moments=1):
    return 2 * torch.rand(count, moments, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) - 1


def edit_of(source, generated, shown=Emotion.NEUTRAL, wanted=Emotion.HAPPY, **more):
    said = {"source_emotion": torch.full((len(source),), NUMBERS[shown])} if shown else {}
    return EditedFrames(source, source, generated, torch.full((len(source),), NUMBERS[wanted]), **said, **more)


@pytest.fixture(scope="module")
def guide():
    return freeze(built())


@pytest.mark.parametrize("shown", [Emotion.NEUTRAL, Emotion.SAD, None])
def test_guidance_reaches_the_generated_frames_alone_and_nothing_moves(guide, shown):
    before = {key: value.clone() for key, value in guide.state_dict().items()}
    source, generated, neutral = (faces(i).requires_grad_() for i in range(3))
    found = guide.guidance(edit_of(source, generated, shown, neutral=neutral))
    assert set(found) == {"pcmecl/direction", "pcmecl/contrast"}
    sum(found.values()).backward()
    assert generated.grad.abs().sum() > 0
    assert source.grad is None
    assert neutral.grad is None
    assert all(p.grad is None for p in guide.parameters())
    assert all(before[key].equal(value) for key, value in guide.state_dict().items())


def test_where_nothing_is_to_change_the_source_itself_is_the_best_answer(guide):
    source = faces(0)
    own, other = (guide.guidance(edit_of(source, made, Emotion.SAD, Emotion.SAD)) for made in (source, faces(1)))
    assert own["pcmecl/direction"].item() == pytest.approx(0, abs=1e-6)
    assert other["pcmecl/direction"] > 0.01
    assert own["pcmecl/contrast"] == other["pcmecl/contrast"] == 0


def test_a_step_against_the_gradient_turns_the_face_towards_the_wanted_prompt(guide):
    source, generated = faces(0), faces(1).requires_grad_()
    found = guide.guidance(edit_of(source, generated))
    (gradient,) = torch.autograd.grad(found["pcmecl/direction"], generated)
    moved = generated.detach() - 0.5 * gradient / gradient.norm()
    assert guide.guidance(edit_of(source, moved))["pcmecl/direction"] < found["pcmecl/direction"]


def test_a_generator_that_copies_is_told_a_finite_way(guide):
    source = faces(0)
    copied = source.clone().requires_grad_()
    found = guide.guidance(edit_of(source, copied))
    (gradient,) = torch.autograd.grad(sum(found.values()), copied)
    assert torch.isfinite(gradient).all()
    assert 0 < gradient.norm() < 100
    assert found["pcmecl/direction"].item() == pytest.approx(1, abs=1e-4)


def test_the_portrait_decides_what_change_is_wanted(guide):
    source, generated = faces(0), faces(1)
    asked = [
        guide.guidance(edit_of(source, generated, neutral=neutral))["pcmecl/direction"]
        for neutral in (faces(2), faces(3), None)
    ]
    assert len({round(value.item(), 6) for value in asked}) == 3


def test_a_neutral_source_is_its_own_portrait(guide):
    source, generated = faces(0, moments=3), faces(1, moments=3)
    found = [guide.guidance(edit_of(source, generated, neutral=neutral)) for neutral in (source, None)]
    for name, value in found[0].items():
        assert value.item() == pytest.approx(found[1][name].item(), abs=1e-5)


def test_guidance_is_a_mean_over_frames_that_count(guide):
    source, generated, neutral = faces(0), faces(1), faces(2)
    valid = torch.tensor([[True], [False]])
    found = guide.guidance(edit_of(source, generated, neutral=neutral, valid=valid))
    first = guide.guidance(edit_of(source[:1], generated[:1], neutral=neutral[:1]))
    for name, value in found.items():
        assert value.item() == pytest.approx(first[name].item(), abs=1e-5)


def test_an_emotion_without_a_prompt_is_refused(guide):
    with pytest.raises(RuntimeError, match="PCMECL has no prompt"):
        guide.guidance(edit_of(faces(0), faces(1), wanted=Emotion.CONTEMPT))


@pytest.mark.parametrize("known", [True, False])
def test_guidance_asks_the_host_for_nothing(known):
    guide, frames = freeze(built()).to("meta"), torch.empty(2, 1, 3, 64, 64, device="meta")
    emotions = torch.zeros(2, dtype=torch.long, device="meta")
    edit = EditedFrames(
        frames, frames, frames.clone().requires_grad_(), emotions, source_emotion=emotions if known else None
    )
    sum(guide.guidance(edit).values()).backward()
    assert edit.generated.grad is not None


def test_the_gradient_of_the_guidance_is_that_of_finite_differences():
    guide = freeze(built().double())
    source, generated = faces(0, 1).double(), faces(1, 1).double().requires_grad_()

    def ask(made):
        return sum(guide.guidance(edit_of(source, made)).values())

    (gradient,) = torch.autograd.grad(ask(generated), generated)
    way = torch.randn(generated.shape, generator=torch.Generator().manual_seed(2)).double()
    step = 1e-6
    with torch.no_grad():
        slope = (ask(generated + step * way) - ask(generated - step * way)) / (2 * step)
    assert slope.item() == pytest.approx((gradient * way).sum().item(), rel=1e-4)


def test_short_changes_have_less_of_a_direction():
    way = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(cosine(way, way), torch.ones(1))
    assert 0 < cosine(0.001 * way, way).item() < 0.2
    assert cosine(0 * way, way) == 0
