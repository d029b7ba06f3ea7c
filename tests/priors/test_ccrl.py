"""The clean content prior: what its losses ask, and that samples do not meet."""

import pytest
import torch
from batches import make_batch, part

from spfem_dist.config import Data
from spfem_dist.priors import ccrl
from spfem_dist.priors.ccrl.clean import CleanCCRL, diagonal_cross_entropy
from spfem_dist.priors.prior import Prior, build_prior, load_prior, save_prior
from spfem_dist.records import Seeds
from spfem_dist.streaming.views import CONTENT


@pytest.fixture
def prior() -> CleanCCRL:
    torch.manual_seed(0)
    return build_prior(ccrl.Settings(), Data(), 160)


def losses_of(prior, batch) -> dict[str, float]:
    with torch.no_grad():
        return {name: float(value) for name, value in prior(batch)[0].items()}


def test_it_is_a_prior_with_named_finite_losses(prior, content_batch):
    losses, monitors = prior(content_batch)
    assert isinstance(prior, Prior)
    assert prior.view is CONTENT
    assert set(losses) == {"ccrl/contrast", "ccrl/same_speech", "ccrl/image", "ccrl/sync"}
    assert all(torch.isfinite(value) and value.dim() == 0 for value in (losses | monitors).values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in prior.parameters())


def test_it_learns_a_batch_by_heart(prior, content_batch):
    optimiser = torch.optim.Adam(prior.parameters(), 1e-3)
    first = losses_of(prior, content_batch)
    for _ in range(6):
        losses, monitors = prior(content_batch)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    assert losses["ccrl/image"] < 0.5 * first["ccrl/image"]
    assert monitors["ccrl/same_speech_hit"] > 0.8


def test_the_finished_embedding_has_one_mean_for_all_emotions(prior, content_batch):
    brighter = content_batch.frames[:, 1].float() * 0.5 + 120  # the second recording's emotion shows
    content_batch.frames[:, 1] = brighter.to(torch.uint8)
    prior.settings.shift = prior.settings.colour_jitter = prior.settings.speech_dropout = 0.0
    for _ in range(40):  # long enough for the batch norms' running statistics too
        losses_of(prior, content_batch)
    prior.eval()
    frames, speech = content_batch.frames.transpose(0, 1), content_batch.speech.transpose(0, 1)

    def apart(heard):
        with torch.no_grad():
            means = [
                prior.embed(f.flatten(0, 1), s.flatten(0, 1) if heard else None).mean(0)
                for f, s in zip(frames, speech, strict=True)
            ]
        return float((means[0] - means[1]).norm())

    erased = apart(True), apart(False)
    prior.eraser = torch.nn.ModuleDict()
    plain = apart(True), apart(False)
    assert erased[0] < 0.5 * plain[0]
    assert erased[1] < 0.5 * plain[1]


def test_samples_do_not_meet_outside_the_batch_norm(prior, content_batch):
    prior.eval()
    whole = losses_of(prior, content_batch)
    halves = [losses_of(prior, part(content_batch, s)) for s in (slice(0, 2), slice(2, 4))]
    for name, value in whole.items():
        assert value == pytest.approx((halves[0][name] + halves[1][name]) / 2, abs=1e-5)


def test_training_repeats_itself_and_follows_the_sample_seeds(prior, content_batch):
    a, b = losses_of(prior, content_batch), losses_of(prior, content_batch)
    assert a == b
    content_batch.seed = Seeds(tuple(number + 1 for number in content_batch.seed.numbers))
    assert losses_of(prior, content_batch) != a


def test_augmented_faces_do_not_depend_on_the_split_of_the_batch(prior, content_batch):
    whole = prior.augmented(content_batch)
    halves = [prior.augmented(part(content_batch, s)) for s in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(whole, torch.cat(halves))
    assert not torch.equal(whole, prior.eval().augmented(content_batch))


def test_invalid_frames_change_no_loss(prior, content_batch):
    prior.eval()
    content_batch.valid[:, :, -1] = False
    expected = losses_of(prior, content_batch)
    content_batch.frames[:, :, -1] = 0
    content_batch.speech[:, :, -1] = 0
    assert losses_of(prior, content_batch) == pytest.approx(expected, abs=1e-5)


def test_a_sample_without_valid_frames_has_no_loss(prior, content_batch):
    content_batch.valid[:] = False
    assert losses_of(prior, content_batch) == dict.fromkeys(
        ("ccrl/contrast", "ccrl/same_speech", "ccrl/image", "ccrl/sync"), 0.0
    )


def test_near_frames_are_no_negatives(prior, content_batch):
    prior.eval()
    far = losses_of(prior, content_batch)["ccrl/image"]
    content_batch.position = torch.arange(6).expand(4, 2, 6).clone()  # all within the minimum gap but the two ends
    assert losses_of(prior, content_batch)["ccrl/image"] < far


def test_speech_selects_positions(prior, content_batch):
    prior.eval()
    faces = prior.cropped(content_batch.frames[0, 0])
    keys, _ = prior.look(faces)
    with torch.no_grad():
        prior.query.weight.mul_(30.0)
    heard, other = (prior.weights(prior.queries(content_batch.speech[0, r], 6)[0], keys) for r in (0, 1))
    torch.testing.assert_close(heard.sum(-1), torch.ones(6, 8))
    assert (heard.argmax(-1) != other.argmax(-1)).any()


def test_each_pair_of_the_table_is_the_embedding_of_that_pair(prior, content_batch):
    prior.eval()
    frames, speech = content_batch.frames[0, 0], content_batch.speech[0, 0, :4]
    with torch.no_grad():
        table = prior.embed_table(frames, speech)
        one = prior.embed(frames, speech[2:3].expand(6, -1, -1))
    torch.testing.assert_close(table[2], one, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(table.norm(dim=-1), torch.ones(4, 6))


def test_embeddings_pass_gradients_to_the_frames_alone(prior, content_batch):
    prior.eval().requires_grad_(False)
    frames = content_batch.frames[0, 0].float().div(127.5).sub(1.0).requires_grad_()
    for speech in (content_batch.speech[0, 0], None):
        embedded = prior.embed(frames, speech)
        torch.testing.assert_close(embedded.norm(dim=1), torch.ones(6))
        (embedded * torch.randn_like(embedded)).sum().backward()
    assert frames.grad.abs().sum() > 0


def test_a_saved_prior_comes_back_frozen_and_the_same(prior, content_batch, tmp_path):
    frames, speech = content_batch.frames[0, 0], content_batch.speech[0, 0]
    save_prior(tmp_path / "p", prior, settings=ccrl.Settings(), data=Data(), feature_dim=160, facts={"run": "a"})
    again, config = load_prior(tmp_path / "p")
    torch.testing.assert_close(again.embed(frames, speech), prior.eval().embed(frames, speech))
    assert config["facts"] == {"run": "a"}
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())


def test_a_folder_without_a_prior_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json in .*give the folder of one prior"):
        load_prior(tmp_path)


def test_pictures_show_attention_and_retrieval_and_leave_the_mode(prior, content_batch):
    pictures = prior.train().pictures(content_batch)
    assert set(pictures) == {"attention", "retrieval"}
    assert all(p.dtype == "uint8" and p.ndim == 3 and p.shape[2] == 3 for p in pictures.values())
    assert prior.training


def test_emotion_views_are_refused(prior, emotion_batch):
    with pytest.raises(ValueError, match="CCRL needs 2 recordings"):
        prior(emotion_batch)


def test_weights_of_zero_leave_their_term_out(content_batch):
    settings = ccrl.Settings(image_weight=0, sync_weight=0, same_speech_weight=0, wrong_speech=False)
    assert set(losses_of(build_prior(settings, Data(), 160), content_batch)) == {"ccrl/contrast"}


def test_the_contrast_is_a_mean_over_each_samples_rows():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [5.0, 0.0]]])
    counted = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    expected = (torch.log1p(torch.exp(torch.tensor(-2.0))) + torch.log(torch.tensor(2.0))) / 2
    torch.testing.assert_close(diagonal_cross_entropy(logits, counted), expected)


def test_the_papers_network_maps_224_pixels_and_keeps_its_trunk_still():
    prior = build_prior(ccrl.Settings(network="paper"), Data(speech_window=3), 1024, pretrained=False).train()
    batch = make_batch(1, 2, 2, size=64, window=3, features=1024)
    before = {n: b.clone() for n, b in prior.face.trunk.named_buffers()}
    assert prior.cropped(batch.frames[0, 0]).shape == (2, 3, 224, 224)
    losses, _ = prior(batch)
    sum(losses.values()).backward()
    assert all(torch.equal(before[n], b) for n, b in prior.face.trunk.named_buffers())
    assert all(p.grad is None for p in prior.face.trunk.parameters())
    assert prior.speech.project.weight.shape == (512, 1024)
    assert prior.speech.project.weight.grad.abs().sum() > 0
    assert prior.eval().embed(batch.frames[0, 0], None).shape == (2, 128)


def test_in_double_every_loss_is_double(prior, content_batch):
    losses, _ = prior.double()(content_batch)
    assert {value.dtype for value in losses.values()} == {torch.float64}
