"""ASCCL, clean and released: what its losses ask, and that samples do not meet."""

import pytest
import torch
from batches import make_batch, part

from spfem_dist.config import Data
from spfem_dist.nets.frozen import freeze
from spfem_dist.nets.presented import present
from spfem_dist.priors import asccl
from spfem_dist.priors.asccl.clean import CleanASCCL, adaptive_weight, frame_similarity, moment_entropy
from spfem_dist.priors.asccl.metric import NEIGHBOURS, around_mouth, disagreement, disparities, drawn, square
from spfem_dist.priors.prior import EditedFrames, Prior, build_prior, load_prior, save_prior
from spfem_dist.records import Seeds
from spfem_dist.streaming.views import CONTENT

LOSSES = {"clean": {"asccl/place", "asccl/moment"}, "released": {"asccl/spatial"}}
forms = pytest.mark.parametrize("form", ["clean", "released"])


def built(form="clean", **settings):
    torch.manual_seed(0)
    return build_prior(asccl.Settings(form=form, **settings), Data(), 160, pretrained=False)


def losses_of(prior, batch) -> dict[str, float]:
    with torch.no_grad():
        return {name: float(value) for name, value in prior(batch)[0].items()}


@pytest.fixture
def batch():
    return make_batch(4, 2, 3)


@forms
def test_it_is_a_prior_with_named_finite_losses(form, batch):
    prior = built(form)
    losses, monitors = prior(batch)
    assert isinstance(prior, Prior)
    assert prior.view is CONTENT
    assert not hasattr(prior, "embed")
    assert set(losses) == LOSSES[form]
    assert all(torch.isfinite(value) and value.dim() == 0 for value in (losses | monitors).values())
    sum(losses.values()).backward()
    trained = {n: p for n, p in prior.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained.values())


@forms
def test_it_learns_a_batch_by_heart(form):
    prior, batch = built(form), make_batch(2, 2, 2)
    batch.frames[:, 1] = batch.frames[:, 0] // 2 + 60  # the same faces in another light
    optimiser = torch.optim.Adam((p for p in prior.parameters() if p.requires_grad), 3e-3)
    first = losses_of(prior, batch)
    for _ in range(8):
        losses, monitors = prior(batch)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    assert all(losses[name] < 0.7 * value for name, value in first.items())
    if form == "clean":
        assert monitors["asccl/moment_hit1"] > 0.8


@forms
def test_samples_do_not_meet_outside_the_batch_norm(form, batch):
    prior = built(form).eval()
    whole = losses_of(prior, batch)
    halves = [losses_of(prior, part(batch, s)) for s in (slice(0, 2), slice(2, 4))]
    for name, value in whole.items():
        assert value == pytest.approx((halves[0][name] + halves[1][name]) / 2, abs=1e-5)


@forms
def test_training_repeats_itself_and_follows_the_sample_seeds(form, batch):
    prior = built(form)
    first = losses_of(prior, batch)
    assert losses_of(prior, batch) == first
    batch.seed = Seeds(tuple(number + 1 for number in batch.seed.numbers))
    assert losses_of(prior, batch) != first


@forms
def test_invalid_frames_change_no_loss_and_without_any_there_is_none(form, batch):
    prior = built(form).eval()
    batch.valid[:, :, -1] = False
    expected = losses_of(prior, batch)
    batch.frames[:, :, -1] = 0
    assert losses_of(prior, batch) == pytest.approx(expected, abs=1e-5)
    batch.valid[:] = False
    assert losses_of(prior, batch) == dict.fromkeys(LOSSES[form], 0.0)


@forms
def test_emotion_views_are_refused(form):
    with pytest.raises(ValueError, match="ASCCL needs 2 recordings for each sample, found 1"):
        built(form)(make_batch(1, 1, 2))


@forms
def test_a_saved_prior_comes_back_frozen_and_the_same(form, batch, tmp_path):
    prior, settings = built(form), asccl.Settings(form=form)
    save_prior(tmp_path / "p", prior, settings=settings, data=Data(), feature_dim=160)
    again, config = load_prior(tmp_path / "p")
    assert config["kind"] == "asccl"
    assert losses_of(again, batch) == losses_of(prior.eval(), batch)
    assert not any(p.requires_grad for p in again.parameters())


@forms
def test_pictures_show_where_faces_disagree_and_leave_the_mode(form, batch):
    prior = built(form).train()
    assert set(prior.pictures(batch)) == {"disagreement"}
    assert prior.training
    a = batch.frames[:, 0, 0]
    there = disagreement(prior.eval(), a, a)
    assert there.abs().max() < 1e-5
    changed = a.clone()
    changed[..., 40:52, 24:40] = 255 - changed[..., 40:52, 24:40]
    there = disagreement(prior, a, changed)
    side = there.shape[-1]
    mouth = around_mouth(square(0, side), side).view(side, side) if form == "released" else None
    if mouth is not None:
        assert there[:, mouth].mean() > there[:, ~mouth].mean()


# --- disparities and places -----------------------------------------------------------------------------------------


def test_a_disparity_is_the_centre_minus_a_neighbour():
    maps = torch.randn(2, 3, 5, 6)
    found = disparities(maps, torch.tensor([[[2, 3], [1, 1]], [[3, 2], [1, 4]]])).unflatten(1, (2, 8))
    for neighbour, (row, column) in enumerate(NEIGHBOURS):
        torch.testing.assert_close(found[1, 0, neighbour], maps[1, :, 3, 2] - maps[1, :, 3 + row, 2 + column])


def test_disparities_do_not_see_what_all_places_share():
    maps, centres = torch.randn(1, 3, 5, 5), square(1, 3)[None]
    torch.testing.assert_close(disparities(maps + 7, centres), disparities(maps, centres))


def test_places_are_drawn_once_each_and_belong_to_the_sample():
    seed = Seeds((3, 4))
    places = drawn(seed, "here", 9, 2, 5)
    assert places.min() >= 2
    assert places.max() < 7
    assert all(len(p.unique(dim=0)) == 9 for p in places)
    assert drawn(seed[1:], "here", 9, 2, 5).equal(places[1:])
    assert not places[0].equal(places[1])


def test_clean_places_stay_off_the_border_and_half_of_them_lie_around_the_mouth():
    prior = built()
    for level, side in enumerate((24, 12)):
        places = prior.drawn(Seeds(tuple(range(8))), level, side)
        assert places.min() >= 1
        assert places.max() <= side - 2
        at_mouth = around_mouth(places, side, prior.settings.crop, prior.settings.crop_row).float().mean()
        assert at_mouth == pytest.approx(0.5)


def test_large_disparities_count_more_whatever_the_scale_of_the_features():
    size = torch.linspace(0.2, 3, 40).expand(2, 2, 3, 40)
    weights = adaptive_weight(size)
    assert weights.min() == 1
    assert weights.max() <= 2
    assert weights[..., -5:].mean() > 1.4
    torch.testing.assert_close(adaptive_weight(100 * size), weights)


def test_the_moment_is_told_only_from_frames_that_are_candidates():
    codes = torch.nn.functional.normalize(torch.randn(1, 3, 4, 6), dim=-1)
    similarity = frame_similarity(codes, codes, torch.rand(1, 3, 4) + 1)
    torch.testing.assert_close(similarity.diagonal(dim1=1, dim2=2), torch.ones(1, 3))
    alone, right = moment_entropy(similarity, torch.eye(3, dtype=torch.bool)[None], 0.1)
    assert alone.abs().max() == 0
    assert right.all()
    among, _ = moment_entropy(similarity, torch.ones(1, 3, 3, dtype=torch.bool), 0.1)
    assert (among > 0).all()


def test_near_frames_are_no_other_moments(batch):
    prior = built().eval()
    batch.position = torch.arange(3).expand(4, 2, 3).clone()  # all within the minimum gap
    assert losses_of(prior, batch)["asccl/moment"] == 0


def test_a_moment_weight_of_zero_leaves_the_term_out(batch):
    assert set(losses_of(built(moment_weight=0), batch)) == {"asccl/place"}


def test_the_papers_network_has_the_published_maps_and_trains_its_trunk():
    prior = built(network="paper").eval()
    with torch.no_grad():
        maps = prior.face_maps(make_batch(1, 1, 1).frames[0, 0])
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14)]
    assert all(p.requires_grad for p in prior.parameters())


# --- stage 2 --------------------------------------------------------------------------------------------------------


def edit_of(source, generated, **more):
    return EditedFrames(
        source[:, None], source[:, None], generated[:, None], torch.zeros(len(source), dtype=torch.long), **more
    )


def faces(seed, count=3):
    return 2 * torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.fixture(params=["clean", "released"])
def guide(request):
    return freeze(built(request.param))


def test_guidance_reaches_the_generated_frames_alone_and_nothing_moves(guide):
    before = {key: value.clone() for key, value in guide.state_dict().items()}
    source, generated = faces(0).requires_grad_(), faces(1).requires_grad_()
    found = guide.guidance(edit_of(source, generated))
    assert set(found) == {"asccl/spatial"}
    found["asccl/spatial"].backward()
    assert generated.grad.abs().sum() > 0
    assert source.grad is None
    assert all(p.grad is None for p in guide.parameters())
    assert all(before[key].equal(value) for key, value in guide.state_dict().items())


def test_the_source_itself_is_the_best_answer(guide):
    source = faces(0)
    own, other = (guide.guidance(edit_of(source, made))["asccl/spatial"] for made in (source, faces(1)))
    assert own < other
    if isinstance(guide, CleanASCCL):
        assert own.item() == pytest.approx(0, abs=1e-5)


def test_guidance_is_a_mean_over_frames_that_count(guide):
    source, generated = faces(0), faces(1)
    each = [guide.guidance(edit_of(source[i : i + 1], generated[i : i + 1]))["asccl/spatial"] for i in range(3)]
    assert guide.guidance(edit_of(source, generated))["asccl/spatial"] == pytest.approx(sum(each).item() / 3, abs=1e-5)
    valid = torch.tensor([[True], [False], [True]])
    found = guide.guidance(edit_of(source, generated, valid=valid))["asccl/spatial"]
    assert found.item() == pytest.approx((each[0] + each[2]).item() / 2, abs=1e-5)


def test_bytes_and_unit_range_mean_the_same(guide):
    source, levels = faces(0), ((faces(1) + 1) * 127.5).round().to(torch.uint8)
    found = [guide.guidance(edit_of(source, made))["asccl/spatial"] for made in (levels, levels / 127.5 - 1)]
    assert found[0].item() == pytest.approx(found[1].item(), abs=1e-5)


def test_the_gradient_of_the_clean_guidance_is_that_of_finite_differences():
    guide = freeze(built().double())
    source, generated = faces(0, 1).double(), faces(1, 1).double().requires_grad_()
    ask = lambda made: guide.guidance(edit_of(source, made))["asccl/spatial"]  # noqa: E731
    (gradient,) = torch.autograd.grad(ask(generated), generated)
    way = torch.randn(generated.shape, generator=torch.Generator().manual_seed(2)).double()
    step = 1e-6
    with torch.no_grad():
        slope = (ask(generated + step * way) - ask(generated - step * way)) / (2 * step)
    assert slope.item() == pytest.approx((gradient * way).sum().item(), rel=1e-4)


def test_most_of_what_the_clean_guidance_asks_is_asked_at_the_mouth():
    guide = freeze(built())
    source, generated = faces(0), (faces(0) * 0.9).requires_grad_()
    guide.guidance(edit_of(source, generated))["asccl/spatial"].backward()
    asked = generated.grad.abs().sum((0, 1))
    places = square(0, 64)
    mouth = around_mouth(places, 64).view(64, 64)
    assert asked[mouth].mean() > 2 * asked[~mouth].mean()


def test_stage_two_presents_pictures_to_the_released_form_in_another_order_than_stage_one():
    prior, frames = built("released"), faces(0)
    presented = present(frames, 64, "rgb", torch.float32)
    assert presented.equal(frames)
    assert present(frames, 64, "released", torch.float32).equal(frames.flip(1))
    assert prior.size == 64
