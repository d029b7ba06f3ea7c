"""STCCL by visual differences and by correlation matrices: what its losses ask, and that samples do not meet."""

import pytest
import torch
from batches import make_batch, part

from spfem_dist.config import Data
from spfem_dist.nets.frozen import freeze
from spfem_dist.priors._stccl.clean import of_windows
from spfem_dist.priors._stccl.relations import Correlations, Differences, features_at
from spfem_dist.priors._stccl.released import POSITIONS, TimeTransformer, frame_differences
from spfem_dist.priors.frozen import FrozenPriors, PriorMismatch
from spfem_dist.priors.prior import EditedFrames, Prior, build_prior, find, load_prior, save_prior
from spfem_dist.records import Seeds
from spfem_dist.rooms import kinds

CONTRASTS = {f"{part}_{task}" for part in ("spatial", "temporal") for task in ("place", "moment")}
#: Kind, form and settings, and the losses of training.
FORMS = {
    "vd": ("stccl_vd", {}, CONTRASTS),
    "cm": ("stccl_cm", {}, CONTRASTS),
    "released": ("stccl_vd", {"form": "released", "window": 3}, {"temporal"}),
}
clean = pytest.mark.parametrize("name", ["vd", "cm"])
forms = pytest.mark.parametrize("name", FORMS)


def built(name, **more):
    kind, settings, _ = FORMS[name]
    torch.manual_seed(0)
    return build_prior(find(kind).Settings(**settings, **more), Data(), 160, pretrained=False)


def losses_of(prior, batch) -> dict[str, float]:
    with torch.no_grad():
        return {name: float(value) for name, value in prior(batch)[0].items()}


def windows(name, samples=2, length=10, seed=0):
    """A batch of matching windows."""
    batch = make_batch(samples, 2, 3 if name == "released" else length, seed=seed)
    batch.position = torch.arange(batch.valid.shape[2]).expand(batch.valid.shape).clone()
    return batch


@forms
def test_it_is_a_prior_of_windows_with_named_finite_losses(name):
    prior = built(name)
    losses, monitors = prior(windows(name))
    assert isinstance(prior, Prior)
    assert prior.view.name == "windows"
    assert prior.frames == (3 if name == "released" else 5)
    assert set(losses) == {f"{FORMS[name][0]}/{loss}" for loss in FORMS[name][2]}
    assert all(torch.isfinite(value) and value.dim() == 0 for value in (losses | monitors).values())
    sum(losses.values()).backward()
    trained = [p for p in prior.parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)


@forms
def test_samples_do_not_meet_outside_the_batch_norm(name):
    prior, batch = built(name).eval(), windows(name)
    whole = losses_of(prior, batch)
    halves = [losses_of(prior, part(batch, s)) for s in (slice(0, 1), slice(1, 2))]
    for loss, value in whole.items():
        assert value == pytest.approx((halves[0][loss] + halves[1][loss]) / 2, abs=1e-5)


@forms
def test_training_repeats_itself_and_follows_the_sample_seeds(name):
    prior, batch = built(name), windows(name)
    first = losses_of(prior, batch)
    assert losses_of(prior, batch) == first
    batch.seed = Seeds(tuple(number + 1 for number in batch.seed.numbers))
    assert losses_of(prior, batch) != first


@forms
def test_windows_with_an_invalid_frame_do_not_count_and_without_any_there_is_no_loss(name):
    prior, batch = built(name).eval(), windows(name)
    if name != "released":  # which has one window alone
        batch.valid[:, :, -1] = False
        expected = losses_of(prior, batch)
        batch.frames[:, :, -1] = 0
        assert losses_of(prior, batch) == pytest.approx(expected, abs=1e-5)
    batch.valid[:] = False
    assert set(losses_of(prior, batch).values()) == {0.0}


@clean
def test_it_learns_when_of_a_batch_by_heart(name):
    prior, batch = built(name), windows(name)
    batch.frames[:, 1] = batch.frames[:, 0] // 2 + 60  # the same windows in another light
    optimiser = torch.optim.Adam(prior.parameters(), 3e-3)
    first = losses_of(prior, batch)
    for _ in range(8):
        losses, monitors = prior(batch)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    assert all(losses[loss] < 0.8 * value for loss, value in first.items())
    assert monitors[f"{prior.kind}/temporal_moment_hit1"] > 0.8


@clean
def test_a_part_without_weight_is_left_out_in_training_and_guidance(name):
    prior = built(name, spatial_weight=0, moment_weight=0)
    assert set(losses_of(prior, windows(name))) == {f"{prior.kind}/temporal_place"}
    assert set(prior.guidance(edit_of(faces(0), faces(1)))) == {f"{prior.kind}/temporal"}


@forms
def test_a_saved_prior_comes_back_frozen_and_the_same(name, tmp_path):
    kind, settings, _ = FORMS[name]
    prior, batch = built(name), windows(name, 1)
    save_prior(tmp_path / "p", prior, settings=find(kind).Settings(**settings), data=Data(), feature_dim=160)
    again, config = load_prior(tmp_path / "p")
    assert config["kind"] == kind
    assert losses_of(again, batch) == losses_of(prior.eval(), batch)
    assert not any(p.requires_grad for p in again.parameters())


@forms
def test_pictures_show_where_windows_disagree_and_leave_the_mode(name):
    prior = built(name).train()
    assert set(prior.pictures(windows(name))) == {"disagreement"}
    assert prior.training


# --- settings and views -------------------------------------------------------------------------------------------


def test_both_are_priors_by_their_own_names():
    assert {"stccl_vd", "stccl_cm"} <= set(kinds("priors"))
    assert "_stccl" not in kinds("priors")


def test_what_was_never_published_is_refused():
    with pytest.raises(ValueError, match="no code of STCCL's correlation matrix was published"):
        find("stccl_cm").Settings(form="released")


def test_a_stretch_without_another_window_is_refused():
    with pytest.raises(ValueError, match=r"stccl_vd.stretch 7 holds no window of 5 frames.*: use 8 or more"):
        find("stccl_vd").Settings(stretch=7)


@clean
def test_batches_of_another_view_are_refused(name):
    with pytest.raises(ValueError, match="needs 2 recordings for each sample, found 7"):
        built(name)(make_batch(1, 7, 2))
    with pytest.raises(ValueError, match="judges windows of 5 frames, found 2"):
        built(name)(make_batch(1, 2, 2))


# --- relations ----------------------------------------------------------------------------------------------------


def test_features_are_those_of_the_place():
    maps = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(features_at(maps, torch.tensor([[2, 3], [4, 0]]))[1, 1], maps[1, :, 4, 0])


def test_differences_do_not_see_an_offset_and_correlations_no_gain():
    torch.manual_seed(0)
    maps, places = torch.rand(1, 6, 4, 6, 6), torch.tensor([[[2, 3], [3, 2]]])
    for relation, changed in ((Differences((4,), 5), maps + 3), (Correlations((4,), 5), 3 * maps)):
        relation.eval()
        codes, sizes = relation.temporal(0, maps, places, 5)
        assert codes.shape == (1, 2, 2, 32)
        assert sizes.shape == (1, 2, 2)
        torch.testing.assert_close(relation.temporal(0, changed, places, 5)[0], codes, rtol=0, atol=1e-5)
        alike = [relation.spatial(0, m[0], places.expand(6, -1, -1))[0] for m in (maps, changed)]
        torch.testing.assert_close(*alike, rtol=0, atol=1e-5)


def test_windows_are_as_alike_as_their_frames_in_turn():
    similarity = torch.rand(1, 6, 6)
    found = of_windows(similarity, 3)
    assert found.shape == (1, 4, 4)
    assert found[0, 1, 3] == pytest.approx((similarity[0, 1, 3] + similarity[0, 2, 4] + similarity[0, 3, 5]).item() / 3)


def test_the_published_differences_are_of_all_pairs_of_frames_in_order():
    frames = torch.arange(3.0).square().view(1, 3, 1, 1)
    assert frame_differences(frames).flatten().tolist() == [-1, -4, -3]


@pytest.mark.parametrize("model", ["spatial", "joint"])
def test_the_other_published_models_train_what_was_trained(model):
    prior, batch = built("released", published=model), windows("released", 1)
    losses, _ = prior(batch)
    assert set(losses) == {"stccl_vd/spatial"} | ({"stccl_vd/temporal"} if model == "joint" else set())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in prior.parameters() if p.requires_grad)
    never = prior.time if model == "joint" else prior.mlp
    assert not any(p.requires_grad for p in never.parameters())
    assert set(prior.pictures(batch)) == {"disagreement"}


def test_published_positions_are_drawn_with_replacement_anywhere():
    prior = built("released")
    drawn = prior.positions(Seeds((0, 1, 2)), [torch.zeros(1, 1, side, side) for side in (32, 16, 8, 4)])
    assert [d.shape[1] for d in drawn] == list(POSITIONS)
    assert len(drawn[3][0].unique(dim=0)) < POSITIONS[3]
    assert drawn[0].min() == 0
    assert drawn[0].max() == 31


def test_a_transformer_over_time_keeps_its_shape():
    assert TimeTransformer(12, width=8, heads=2, layers=1)(torch.randn(2, 5, 12)).shape == (2, 5, 12)


# --- stage 2 ------------------------------------------------------------------------------------------------------


def edit_of(source, generated, **more):
    return EditedFrames(source, source, generated, torch.zeros(len(source), dtype=torch.long), **more)


def faces(seed, count=1, length=5):
    return 2 * torch.rand(count, length, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.fixture(scope="module", params=list(FORMS))
def guide(request):
    return freeze(built(request.param))


def test_guidance_reaches_the_generated_frames_alone_and_nothing_moves(guide):
    before = {key: value.clone() for key, value in guide.state_dict().items()}
    source, generated = faces(0).requires_grad_(), faces(1).requires_grad_()
    found = guide.guidance(edit_of(source, generated))
    assert {name.split("/")[1] for name in found} <= {"spatial", "temporal"}
    sum(found.values()).backward()
    assert all(generated.grad[0, frame].abs().sum() > 0 for frame in range(5))
    assert source.grad is None
    assert all(p.grad is None for p in guide.parameters())
    assert all(before[key].equal(value) for key, value in guide.state_dict().items())


@clean
def test_the_source_itself_costs_nothing_and_its_frames_in_another_order_do(name):
    guide, source = freeze(built(name)), faces(0)
    own, turned = (guide.guidance(edit_of(source, made)) for made in (source, source.flip(1)))
    for part_name, value in own.items():
        assert value.item() == pytest.approx(0, abs=1e-5)
        assert turned[part_name] > 0.01


@clean
def test_guidance_is_a_mean_over_windows_that_count(name):
    guide, source, generated = freeze(built(name)), faces(0, length=7), faces(1, length=7)
    valid = torch.ones(1, 7, dtype=torch.bool)
    valid[:, :2] = False  # of three windows the last one is whole
    key = f"{guide.kind}/temporal"
    found = guide.guidance(edit_of(source, generated, valid=valid))[key]
    assert found.item() == pytest.approx(guide.guidance(edit_of(source[:, 2:], generated[:, 2:]))[key].item(), abs=1e-5)
    each = [guide.guidance(edit_of(source[:, i : i + 5], generated[:, i : i + 5]))[key] for i in range(3)]
    assert guide.guidance(edit_of(source, generated))[key].item() == pytest.approx(sum(each).item() / 3, abs=1e-5)


def test_frozen_priors_say_how_long_a_window_they_want_and_refuse_shorter_ones():
    both = {kind: freeze(built(name)) for name, kind in (("vd", "stccl_vd"), ("cm", "stccl_cm"))}
    priors = FrozenPriors(both, {})
    assert priors.frames({}) == 5
    assert priors.frames({"stccl_vd": 0.0, "stccl_cm": 0.0}) == 1
    found = priors.guidance(edit_of(faces(0), faces(1)), {"stccl_vd": 2.0, "stccl_cm": 0.5})
    parts = {f"guidance/{kind}/{part}" for kind in both for part in ("spatial", "temporal")}
    assert set(found) == parts
    alone = both["stccl_vd"].guidance(edit_of(faces(0), faces(1)))["stccl_vd/temporal"]
    assert found["guidance/stccl_vd/temporal"].item() == pytest.approx(2 * alone.item())
    with pytest.raises(PriorMismatch, match="judges windows of 5 frames, this generator edits 4 at a time"):
        priors.guidance(edit_of(faces(0, length=4), faces(1, length=4)), {})
