"""The clean emotion prior: symmetric contrast with seven priors, and mouths that are no cue."""

import pytest
import torch
from batches import make_batch, part

from spfem_dist.config import Data
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.priors import cerl
from spfem_dist.priors.cerl.clean import CleanCERL, prior_to_image
from spfem_dist.priors.prior import Prior, build_prior, find, load_prior, save_prior
from spfem_dist.streaming.views import EMOTION


@pytest.fixture
def prior() -> CleanCERL:
    torch.manual_seed(0)
    return build_prior(cerl.Settings(), Data(), 160)


def losses_of(prior, batch) -> dict[str, float]:
    with torch.no_grad():
        return {name: float(value) for name, value in prior(batch)[0].items()}


def test_it_is_a_prior_with_named_finite_losses(prior, emotion_batch):
    losses, monitors = prior(emotion_batch)
    assert isinstance(prior, Prior)
    assert prior.view is EMOTION
    assert set(losses) == {"cerl/image_to_prior", "cerl/prior_to_image", "cerl/consistency"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in prior.parameters())
    assert set(monitors) == {"cerl/accuracy"}


def test_it_learns_a_batch_by_heart(prior, emotion_batch):
    optimiser = torch.optim.Adam(prior.parameters(), 1e-3)
    for _ in range(8):
        losses, monitors = prior(emotion_batch)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    assert monitors["cerl/accuracy"] == 1.0


def test_the_priors_are_seven_unit_vectors(prior):
    torch.testing.assert_close(prior.priors().norm(dim=1), torch.ones(7))
    assert prior.priors().shape == (7, cerl.Settings().embedding)


def test_samples_do_not_meet_outside_the_batch_norm(prior, emotion_batch):
    prior.eval()
    whole = losses_of(prior, emotion_batch)
    parts = [losses_of(prior, part(emotion_batch, slice(i, i + 1))) for i in range(3)]
    for name, value in whole.items():
        assert value == pytest.approx(sum(p[name] for p in parts) / 3, abs=1e-5)


def test_augmented_faces_do_not_depend_on_the_split_of_the_batch(prior, emotion_batch):
    whole = prior.augmented(emotion_batch)
    parts = [prior.augmented(part(emotion_batch, slice(i, i + 1))) for i in range(3)]
    for i in (0, 1):
        torch.testing.assert_close(whole[i], torch.cat([p[i] for p in parts]))


def test_padding_changes_no_loss(prior, emotion_batch):
    prior.eval()
    emotion_batch.valid[:, -1] = False
    expected = losses_of(prior, emotion_batch)
    emotion_batch.frames[:, -1] = 0
    assert losses_of(prior, emotion_batch) == pytest.approx(expected, abs=1e-5)


def test_padding_never_lends_a_mouth(prior, emotion_batch):
    emotion_batch.valid[:, 4:] = False
    partners = prior.partners(emotion_batch).view(3, 7, 2)
    recordings = partners // 2 % 7
    assert (recordings < 4).all()
    assert (partners // 14 == torch.arange(3)[:, None, None]).all(), "mouths stay within the sample"
    assert (partners % 2 != torch.arange(2)).all(), "the mouth is of another moment"


def test_mixing_changes_the_mouth_and_nothing_else(prior, emotion_batch):
    faces = prior.cropped(emotion_batch.frames.flatten(0, 2))
    chosen = torch.arange(len(faces)) % 2 == 0
    mixed = prior.mixed(faces, prior.partners(emotion_batch), chosen)
    changed = (mixed != faces).any(1)
    assert not changed[1::2].any()
    assert changed[::2].any(0)[30:40, 20:28].all()
    assert not changed[:, :20].any()


def test_an_emotion_outside_the_seven_counts_nowhere(prior):
    prior.eval()
    batch = make_batch(2, 2, 2)
    batch.emotion[:, 1] = list(Emotion).index(Emotion.CONTEMPT)
    expected = losses_of(prior, batch)
    batch.frames[:, 1] = 7
    assert losses_of(prior, batch) == pytest.approx(expected, abs=1e-5)


def test_images_of_the_priors_own_emotion_share_its_target():
    logits = torch.zeros(1, 2, 2, 7)
    logits[0, 0, :, 0] = logits[0, 1, :, 1] = 50.0
    classes = torch.tensor([[[0, 0], [1, 1]]])
    loss = prior_to_image(logits, classes, torch.ones(1, 2, 2, dtype=torch.bool))
    torch.testing.assert_close(loss, torch.tensor(2.0).log())


def test_a_saved_prior_comes_back_the_same(prior, emotion_batch, tmp_path):
    save_prior(tmp_path / "p", prior, settings=cerl.Settings(), data=Data(), feature_dim=160)
    again, _ = load_prior(tmp_path / "p")
    frames = emotion_batch.frames[0, :, 0]
    torch.testing.assert_close(again.embed(frames, None), prior.eval().embed(frames))
    torch.testing.assert_close(again.priors(), prior.priors())


def test_pictures_show_the_nearest_faces_and_the_space(prior, emotion_batch):
    emotion_batch.valid[:, 6] = False
    pictures = prior.pictures(emotion_batch)
    assert set(pictures) == {"nearest", "space"}
    assert all(p.dtype == "uint8" and p.shape[2] == 3 for p in pictures.values())


@pytest.mark.parametrize("kind", ["", "nobody", "../cerl", "os.path", "CERL"])
def test_a_kind_that_is_no_room_is_refused_with_those_there_are(kind):
    with pytest.raises(ValueError, match=r"there are .*ccrl, cerl"):
        find(kind)


def test_the_papers_network_has_clip_sizes_one_adapter_and_positions():
    prior = build_prior(cerl.Settings(network="paper"), Data(), 1024, pretrained=False).train()
    assert prior.network.prompt_learner.positional
    assert prior.network.prompt_learner.ctx.shape == (7, 8, 512)
    batch = make_batch(1, 7, 2)
    assert prior.cropped(batch.frames[0, 0]).shape == (2, 3, 224, 224)
    with torch.no_grad():
        assert prior.embed(batch.frames[0, :, 0]).shape == (len(SEVEN), 512)
    learned = {n.split(".")[1] for n, p in prior.named_parameters() if p.requires_grad}
    assert learned == {"prompt_learner", "adapter"}
    scores = prior.embed(batch.frames[0, :2, 0]) @ prior.priors().T
    scores.sum().backward()
    assert prior.network.prompt_learner.ctx.grad.abs().sum() > 0


def test_in_double_every_loss_is_double(prior, emotion_batch):
    losses, _ = prior.double()(emotion_batch)
    assert {value.dtype for value in losses.values()} == {torch.float64}
