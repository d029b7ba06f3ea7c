"""The released CCRL on batches of utterance groups: triples, masks, frozen trunk, embeddings."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from spfem_dist.config import Data
from spfem_dist.nets.presented import present
from spfem_dist.priors import ccrl
from spfem_dist.priors.ccrl.released import FrozenProjection, MaskLearning, ReleasedCCRL, clamped_contrast
from spfem_dist.priors.prior import Prior, build_prior, load_prior, save_prior
from spfem_dist.records import Batch, Seeds

SETTINGS = ccrl.Settings(form="released")


def prior(**options) -> ReleasedCCRL:
    """A fresh network whose queries are made large, so that speech moves its attention visibly."""
    torch.manual_seed(0)
    model = ReleasedCCRL(SETTINGS, Data(speech_window=3), 8, **options)
    with torch.no_grad():
        model.mask_learning.linear_q.weight.mul_(30.0)
    return model


def random_batch(samples: int = 2, recordings: int = 2, frames: int = 3, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    shape = (samples, recordings, frames)
    return Batch(
        frames=torch.randint(0, 256, (*shape, 3, 64, 64), generator=draw, dtype=torch.uint8),
        speech=torch.randn(*shape, 3, 8, generator=draw),
        position=torch.arange(frames).expand(shape),
        emotion=torch.arange(recordings).expand(shape[:2]),
        valid=torch.ones(shape, dtype=torch.bool),
        sample=torch.arange(samples),
        seed=Seeds(tuple(range(samples))),
        keys=[f"S_{i}" for i in range(samples)],
    )


def contrast(model: ReleasedCCRL, batch: Batch) -> float:
    with torch.no_grad():
        losses, _ = model(batch)
    assert set(losses) == {"ccrl/contrast"}
    return losses["ccrl/contrast"].item()


def test_y_hears_the_speech_of_x_and_z_its_own():
    model, batch = prior().eval(), random_batch(1)
    frames, speech = batch.frames[0], batch.speech[0]
    expected = []
    with torch.no_grad():
        for k, following in ((0, 1), (1, 2), (2, 0)):
            x = model.embed(frames[0, k : k + 1], speech[0, k : k + 1])
            y = model.embed(frames[1, k : k + 1], speech[0, k : k + 1])
            z = model.embed(frames[1, following : following + 1], speech[1, following : following + 1])
            positive, negative = cosine_similarity(x, y), cosine_similarity(x, z)
            expected.append(1 - positive.clamp(0, 1) + negative.clamp(0, 1))
    before = contrast(model, batch)
    assert before == pytest.approx(torch.stack(expected).mean().item(), abs=1e-5)
    batch.speech = batch.speech.flip(1)
    assert contrast(model, batch) != pytest.approx(before, abs=1e-3)


def test_what_is_shared_between_y_and_z_leaves_the_numbers_of_three_passes():
    """Loss, gradients and running statistics, of one sample after the other's order."""
    batch, found = random_batch(), []
    for shared in (True, False):
        model = prior().train()
        if shared:
            loss = model(batch)[0]["ccrl/contrast"]
        else:
            x, y = (model.images(batch.frames[:, i].flatten(0, 1)) for i in (0, 1))
            own, other = (model.speech_vectors(batch.speech[:, i].flatten(0, 1)) for i in (0, 1))
            z, other = (t.unflatten(0, (2, 3)).roll(-1, 1).flatten(0, 1) for t in (y, other))
            loss = model.triple_loss(x, y, own, z, other)
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        found.append({"loss": loss.detach()} | gradients | dict(model.named_buffers()))
    assert len(found[0]) == len(found[1])
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_own_speech_of_y_is_never_heard_in_the_positive():
    model, batch = prior().eval(), random_batch(1)
    with torch.no_grad():
        before = model(batch)[1]["ccrl/cosine_positive"]
        batch.speech[:, 1] += 1.0 + torch.randn_like(batch.speech[:, 1])
        assert model(batch)[1]["ccrl/cosine_positive"] == before


def test_the_loss_is_a_mean_over_samples_with_no_interaction():
    model, batch = prior().eval(), random_batch(4)
    batch.valid[0, 0, 1] = False
    halves = [contrast(model, batch.part(s)) for s in (slice(0, 2), slice(2, 4))]
    assert contrast(model, batch) == pytest.approx(sum(halves) / 2, abs=1e-6)


@pytest.mark.parametrize(("recording", "frame", "lost"), [(0, 1, {1}), (1, 1, {1, 0})])
def test_a_triple_with_an_invalid_frame_does_not_count(recording, frame, lost):
    """Frame k of recording 1 is y of triple k and z of triple k - 1."""
    model, batch = prior().eval(), random_batch(1)
    with torch.no_grad():
        images = [model.images(batch.frames[0, i]) for i in (0, 1)]
        speech = [model.speech_vectors(batch.speech[0, i]) for i in (0, 1)]
        order = [1, 2, 0]
        losses, _, _ = model.triples(images[0], images[1], speech[0], images[1][order], speech[1][order])
    batch.valid[0, recording, frame] = False
    kept = losses[[k for k in range(3) if k not in lost]]
    assert contrast(model, batch) == pytest.approx(kept.mean().item(), abs=1e-6)


def test_a_sample_without_a_valid_triple_adds_nothing_and_stays_finite():
    model, batch = prior().eval(), random_batch(2)
    whole = contrast(model, batch.part(slice(1, 2)))
    batch.valid[0] = False
    assert contrast(model, batch) == pytest.approx(whole / 2, abs=1e-6)


def test_gradients_reach_every_trained_parameter_and_none_of_the_trunk():
    model, batch = prior().train(), random_batch(2)
    model(batch)[0]["ccrl/contrast"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == name.startswith("mask_learning.")
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("move", [True, False])
def test_the_frozen_trunks_statistics_move_in_training_only_where_asked(move):
    model, batch = prior(trunk_statistics_move=move).train(), random_batch(2)
    trunk = {n: t.clone() for n, t in model.img_encoder.state_dict().items()}
    model(batch)
    after = model.img_encoder.state_dict()
    changed = {n for n, t in trunk.items() if not torch.equal(t, after[n])}
    assert bool(changed) == move
    assert all("running" in n or "num_batches" in n for n in changed)
    if move:
        assert after["bn1.num_batches_tracked"] == 3  # x, y and z pass one after the other


def test_in_eval_mode_nothing_moves():
    model = prior().eval()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    model(random_batch(1))
    model.pictures(random_batch(1))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_attention_logits_are_rank_one_as_published():
    torch.manual_seed(0)
    module = MaskLearning(channels=4, side=4, speech=16).eval()
    with torch.no_grad():
        maps, speech = torch.randn(1, 4, 4, 4), torch.randn(1, 1, 16)
        attention = module.attention(module.query(speech), module.keys(maps))[0]
    logits = attention.log() - attention.log().mean(-1, keepdim=True)
    values = torch.linalg.svdvals(logits)
    assert values[1] < 1e-4 * values[0]
    torch.testing.assert_close(attention.sum(-1), torch.ones(16))


def test_the_stage_2_scale_divides_by_the_channels():
    torch.manual_seed(0)
    stage1 = MaskLearning(channels=4, side=4, speech=16)
    stage2 = MaskLearning(channels=4, side=4, speech=16, scale="channels")
    query, keys = torch.randn(1, 16), torch.randn(1, 16)
    torch.testing.assert_close(stage2.attention(query, keys), stage1.attention(2.0 * query, keys))  # 4 / sqrt(4)


def test_the_clamps_stop_gradients_beyond_zero():
    x = torch.tensor([[1.0, 0.0]]).view(1, 2, 1, 1)
    opposite = (-x).requires_grad_()
    loss, positive, _ = clamped_contrast(x, opposite, opposite)
    loss.sum().backward()
    assert loss.item() == 1.0
    assert positive.item() == -1.0
    assert not opposite.grad.any()


def test_embeddings_have_unit_norm_and_hear_speech_or_silence():
    model, batch = prior().eval(), random_batch(1)
    frames, speech = batch.frames[0, 0], batch.speech[0, 0]
    with torch.no_grad():
        heard, unheard = model.embed(frames, speech), model.embed(frames, None)
    assert heard.shape == unheard.shape == (3, 32 * 8 * 8)
    torch.testing.assert_close(heard.norm(dim=1), torch.ones(3))
    assert not torch.allclose(heard, unheard, atol=1e-4)


def test_a_table_of_faces_and_speeches_equals_embedding_each_pair():
    model, batch = prior().eval(), random_batch(1)
    frames, speech = batch.frames[0, 0], batch.speech[0, 1, :2]
    with torch.no_grad():
        table = model.embed_table(frames, speech)
        for i in range(2):
            torch.testing.assert_close(table[i], model.embed(frames, speech[i].expand(3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_attention_maps_sum_to_one_and_pictures_are_pictures():
    model, batch = prior().train(), random_batch(2)
    maps = model.eval().attention(batch.frames[0, 0], batch.speech[0, 0])
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(3))
    picture = model.train().pictures(batch)["attention"]
    assert picture.shape == (4 * 64, 3 * 64, 3)
    assert picture.dtype.name == "uint8"
    assert (picture[:64, :64] == batch.frames[0, 0, 0].permute(1, 2, 0).numpy()).all()
    assert model.training


def test_gradients_reach_generated_frames_for_stage_2():
    model, batch = prior(scale="channels").eval(), random_batch(1)
    fake = torch.zeros(3, 3, 64, 64, requires_grad=True)
    speech = model.speech_vectors(batch.speech[0, 0])
    model.stage2_loss(model.images(batch.frames[0, 0]), model.images(fake), speech).backward()
    assert fake.grad.abs().sum() > 0


@pytest.mark.parametrize(("feature_dim", "projection"), [(512, None), (1024, (512, 1024)), (160, (512, 800))])
def test_each_kind_of_speech_becomes_512_numbers(feature_dim, projection):
    model = ReleasedCCRL(SETTINGS, Data(), feature_dim)
    assert (model.speech_projection and tuple(model.speech_projection.weight.shape)) == projection
    speech = torch.randn(2, 5, feature_dim)
    assert model.speech_vectors(speech).shape == (2, 1, 512)
    if feature_dim == 512:
        assert torch.equal(model.speech_vectors(speech)[:, 0], speech[:, 2])
    with pytest.raises(ValueError, match=r"data\.speech_window"):
        model.speech_vectors(torch.randn(2, 5, 99))


def test_the_speech_projection_is_the_same_by_seed_never_trained_and_replaceable(tmp_path):
    first, second = FrozenProjection(8, 4, seed=3), FrozenProjection(8, 4, seed=3)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, FrozenProjection(8, 4, seed=4).weight)
    assert not list(first.parameters())
    model = ReleasedCCRL(SETTINGS, Data(), 1024)
    torch.save({"weight": torch.ones(512, 1024), "bias": torch.zeros(512)}, tmp_path / "map.pth")
    model.load_projection(tmp_path / "map.pth")
    assert model.speech_vectors(torch.ones(1, 5, 1024)).unique().tolist() == [1024.0]


def test_images_are_blue_green_red_in_minus_one_to_one_as_released():
    frames = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    frames[:, 0] = 255
    released = present(frames, 8, "released", torch.float32)
    assert released[0, :, 0, 0].tolist() == [-1.0, -1.0, 1.0]
    assert present(frames, 8, "rgb", torch.float32)[0, :, 0, 0].tolist() == [1.0, -1.0, -1.0]
    clip = present(frames, 8, "clip", torch.float32)[0, :, 0, 0]
    assert clip.tolist() == pytest.approx(
        [(1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258, -0.40821073 / 0.27577711]
    )
    torch.testing.assert_close(present(frames.float() / 127.5 - 1, 8, "released", torch.float32), released)
    assert present(frames, 4, "released", torch.float32).shape[-1] == 4


def test_a_batch_that_cannot_give_triples_is_refused():
    with pytest.raises(ValueError, match="1 recordings of 3 frames"):
        prior()(random_batch(1, recordings=1))


def test_a_missing_backbone_says_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"(?s)arcface-iresnet50.*backbone\.pth"):
        ReleasedCCRL(ccrl.Settings(form="released", network="paper"), Data(), 1024)


def test_it_is_a_prior_that_can_be_saved_and_loaded(tmp_path):
    data = Data(speech_window=3)
    torch.manual_seed(0)
    model = build_prior(SETTINGS, data, 8).train()
    assert isinstance(model, Prior)
    batch = random_batch(1)
    model(batch)
    save_prior(tmp_path, model, settings=SETTINGS, data=data, feature_dim=8)
    loaded, _ = load_prior(tmp_path)
    with torch.no_grad():
        expected = model.eval().embed(batch.frames[0, 0], batch.speech[0, 0])
        torch.testing.assert_close(loaded.embed(batch.frames[0, 0], batch.speech[0, 0]), expected)
