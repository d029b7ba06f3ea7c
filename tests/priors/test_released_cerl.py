"""The released CERL on batches of utterance groups: sets, the order of emotions, defects that are kept."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from spfem_dist.config import Data
from spfem_dist.emotions import ALPHABETICAL, SEVEN, Emotion
from spfem_dist.priors import cerl
from spfem_dist.priors.cerl.released import PAPER_TRAINABLE, ReleasedCERL, text_to_image
from spfem_dist.priors.prior import Prior, build_prior, load_prior, save_prior
from spfem_dist.records import Batch, Seeds

SETTINGS = cerl.Settings(form="released", embedding=32)


def prior(**options) -> ReleasedCERL:
    torch.manual_seed(0)
    return ReleasedCERL(SETTINGS, Data(), **options)


def random_batch(samples: int = 2, emotions: tuple[Emotion, ...] = SEVEN, frames: int = 2) -> Batch:
    draw = torch.Generator().manual_seed(0)
    shape = (samples, len(emotions), frames)
    return Batch(
        frames=torch.randint(0, 256, (*shape, 3, 64, 64), generator=draw, dtype=torch.uint8),
        speech=torch.zeros(*shape, 1, 4),
        position=torch.arange(frames).expand(shape),
        emotion=torch.tensor([list(Emotion).index(e) for e in emotions]).expand(shape[:2]).clone(),
        valid=torch.ones(shape, dtype=torch.bool),
        sample=torch.arange(samples),
        seed=Seeds(tuple(range(samples))),
        keys=[f"S_{i}" for i in range(samples)],
    )


def contrast(model: ReleasedCERL, batch: Batch) -> float:
    with torch.no_grad():
        losses, _ = model(batch)
    assert set(losses) == {"cerl/contrast"}
    return losses["cerl/contrast"].item()


def test_the_authors_order_is_alphabetical_and_mapped_by_name():
    assert [e.value for e in ALPHABETICAL] == ["angry", "disgusted", "fear", "happy", "neutral", "sad", "surprised"]
    model = prior()
    assert model.prompt_learner.emotions == ALPHABETICAL
    with torch.no_grad():
        rows, priors = model.text(), model.priors()
    for emotion in SEVEN:
        assert torch.equal(priors[SEVEN.index(emotion)], rows[ALPHABETICAL.index(emotion)]), emotion
        index = torch.tensor([list(Emotion).index(emotion)])
        assert torch.equal(model.prior_of(index)[0].detach(), priors[SEVEN.index(emotion)]), emotion
    torch.testing.assert_close(priors.norm(dim=-1), torch.ones(7))


def test_each_image_goes_through_the_network_of_its_own_emotion():
    model, batch = prior(), random_batch(1)
    batch.valid[:] = False
    happy = SEVEN.index(Emotion.HAPPY)
    batch.valid[:, [happy, 0]] = True  # one rival, so that the loss is not zero
    before = contrast(model, batch)
    with torch.no_grad():
        for slot, mlp in enumerate(model.mlps):
            if ALPHABETICAL[slot] not in (Emotion.HAPPY, SEVEN[0]):
                mlp.mlp[4].bias.add_(3.0)
        assert contrast(model, batch) == pytest.approx(before, abs=1e-6)
        model.mlps[ALPHABETICAL.index(Emotion.HAPPY)].mlp[4].bias.add_(torch.randn(32))
    assert contrast(model, batch) != pytest.approx(before, abs=1e-4)


def test_the_published_loss_can_be_zero_without_looking():
    """Defect kept: a network chosen by the true label can answer with its text."""
    model, batch = prior(), random_batch(1)
    # Text vectors of a random CLIP are all alike; these seven are not.
    model.text = lambda: torch.eye(7, 32)  # type: ignore[method-assign]
    with torch.no_grad():
        for slot, mlp in enumerate(model.mlps):
            mlp.mlp[4].weight.zero_()
            mlp.mlp[4].bias.copy_(torch.eye(7, 32)[slot])
        losses, monitors = model(batch)
    assert losses["cerl/contrast"] < 1e-4
    assert monitors["cerl/set_accuracy"] == 1.0
    assert monitors["cerl/accuracy"] < 0.6


def test_the_loss_is_a_mean_over_samples_with_no_interaction():
    model, batch = prior(), random_batch(4)
    batch.valid[0, 2:] = False
    halves = [contrast(model, batch.part(s)) for s in (slice(0, 2), slice(2, 4))]
    assert contrast(model, batch) == pytest.approx(sum(halves) / 2, abs=1e-6)


def test_the_order_of_recordings_does_not_matter():
    model, batch = prior(), random_batch(1)
    shuffled = random_batch(1)
    order = [3, 1, 6, 0, 2, 5, 4]
    for name in ("frames", "emotion", "valid"):
        setattr(shuffled, name, getattr(batch, name)[:, order])
    assert contrast(model, shuffled) == pytest.approx(contrast(model, batch), abs=1e-6)


def test_padding_and_emotions_outside_the_seven_are_as_if_absent():
    model = prior()
    seven = random_batch(1, SEVEN[:4])
    more = random_batch(1, (*SEVEN[:4], Emotion.CONTEMPT, Emotion.CALM, SEVEN[5]))
    more.frames[:, :4] = seven.frames
    more.valid[:, 6] = False
    assert contrast(model, more) == pytest.approx(contrast(model, seven), abs=1e-6)


def test_a_sample_with_nothing_valid_adds_nothing_and_keeps_gradients_finite():
    model, batch = prior(), random_batch(2)
    alone = contrast(model, batch.part(slice(1, 2)))
    batch.valid[0] = False
    losses, _ = model(batch)
    assert losses["cerl/contrast"].item() == pytest.approx(alone / 2, abs=1e-6)
    losses["cerl/contrast"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_two_recordings_of_one_emotion_are_no_negatives_of_each_other():
    text = F.normalize(torch.randn(7, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    images = torch.stack([text[0], text[0], text[1]])
    slots, counted = torch.tensor([0, 0, 1]), torch.ones(3, dtype=torch.bool)
    twice, _ = text_to_image(text, images, slots, counted)
    once, _ = text_to_image(text, images[1:], slots[1:], counted[1:])
    assert twice[0].item() == pytest.approx(once[0].item())


def test_only_context_and_networks_learn_and_all_take_part():
    model = prior()
    model(random_batch(1, SEVEN[:2]))[0]["cerl/contrast"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith("clip.")), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert model.prompt_learner.ctx.grad.abs().sum() > 0


def test_the_prompts_run_without_positions_unless_asked():
    torch.testing.assert_close(prior().prompt_learner.ctx, prior(positional=True).prompt_learner.ctx)
    assert not torch.allclose(prior().priors(), prior(positional=True).priors(), atol=1e-4)


def test_classes_come_in_the_order_of_seven_and_embeddings_have_unit_norm():
    model, frames = prior(), random_batch(1).frames[0].flatten(0, 1)
    with torch.no_grad():
        vectors, logits = model.embed(frames), model.classify(frames)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(14))
        for row in (0, 4):
            torch.testing.assert_close(logits[:, row], vectors @ model.priors()[row] / 0.07)
        happy = torch.full((14,), list(Emotion).index(Emotion.HAPPY))
        product = model.features(frames) * model.priors()[SEVEN.index(Emotion.HAPPY)]
        torch.testing.assert_close(model.embed_under(frames, happy), F.normalize(product, dim=-1))
    with pytest.raises(ValueError, match="no prior for 'calm'"):
        model.embed_under(frames[:1], torch.tensor([list(Emotion).index(Emotion.CALM)]))


def test_stage_2_gradients_reach_the_generated_frames_only():
    model = prior().requires_grad_(False)
    generated = torch.zeros(2, 3, 64, 64, requires_grad=True)
    reference = random_batch(1).frames[0, 0]
    model.stage2_loss(reference, generated, torch.tensor([0, 4])).backward()
    assert generated.grad.abs().sum() > 0


def test_pictures_show_each_frame_over_seven_bars():
    picture = prior().pictures(random_batch(1))["likeness"]
    assert picture.shape == (64 + 32, 14 * 64, 3)
    assert picture.dtype.name == "uint8"


def test_descriptions_come_from_the_users_file_and_must_cover_the_seven(tmp_path):
    texts = {e.value: f"{e.value} face" for e in SEVEN}
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(texts))
    own = ReleasedCERL(cerl.Settings(form="released", embedding=32, descriptors=str(path)), Data())
    assert not torch.equal(own.prompt_learner.ids, prior().prompt_learner.ids)
    del texts["fear"]
    path.write_text(json.dumps(texts))
    with pytest.raises(ValueError, match="no text for fear"):
        ReleasedCERL(cerl.Settings(form="released", embedding=32, descriptors=str(path)), Data())


def test_missing_clip_says_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPFEM_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"(?s)clip-vit-base-patch32.*licence"):
        ReleasedCERL(cerl.Settings(form="released", network="paper"), Data())
    with pytest.raises(FileNotFoundError, match="cdrl-descriptors"):
        ReleasedCERL(cerl.Settings(form="released", descriptors="authors"), Data())


def test_the_paper_form_trains_2_329_600_parameters_over_frozen_vit_b_32():
    with torch.device("meta"):
        model = ReleasedCERL(cerl.Settings(form="released", network="paper"), Data(), pretrained=False)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == PAPER_TRAINABLE
    assert sum(p.numel() for p in model.clip.parameters()) == 151_277_313
    assert model.size == 224


def test_it_is_a_prior_that_can_be_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    model = build_prior(SETTINGS, Data(), 4)
    assert isinstance(model, Prior)
    save_prior(tmp_path, model, settings=SETTINGS, data=Data(), feature_dim=4)
    torch.manual_seed(1)
    loaded, _ = load_prior(tmp_path)
    frames = random_batch(1).frames[0, 0]
    with torch.no_grad():
        torch.testing.assert_close(loaded.classify(frames), model.classify(frames))
