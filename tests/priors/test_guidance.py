"""Stage 2's question to a frozen prior: what gradients reach, what does not move, and which frames please it."""

import pytest
import torch

from spfem_dist.config import Data
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.nets.frozen import freeze
from spfem_dist.priors.prior import EditedFrames, build_prior, find

HAPPY = list(Emotion).index(Emotion.HAPPY)
NAMES = {"ccrl": "ccrl/content", "cerl": "cerl/emotion"}


def frozen(name, form="clean"):
    torch.manual_seed(0)
    settings = find(name).Settings(form=form)
    return freeze(build_prior(settings, Data(), 160, pretrained=False))


def frames(seed, count=4):
    return 2 * torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) - 1


def speech():
    return torch.randn(4, 5, 160, generator=torch.Generator().manual_seed(5))


def ask(prior, generated, source=None, reference=None):
    return prior.guidance(
        EditedFrames(
            source=(frames(0) if source is None else source)[:, None],
            reference=(frames(1) if reference is None else reference)[:, None],
            generated=generated[:, None],
            speech=speech()[:, None],
            emotion=torch.full((4,), HAPPY),
        )
    )


@pytest.mark.parametrize("form", ["clean", "released"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_generated_frames_alone_and_nothing_moves(name, form):
    prior = frozen(name, form)
    before = {key: value.clone() for key, value in prior.state_dict().items()}
    made, source, reference = (frames(seed).requires_grad_() for seed in (1, 0, 2))
    found = ask(prior, made, source, reference)
    assert set(found) == {NAMES[name]}
    found[NAMES[name]].backward()
    assert made.grad.abs().sum() > 0
    assert source.grad is None
    assert reference.grad is None
    assert all(p.grad is None for p in prior.parameters())
    assert all(before[key].equal(value) for key, value in prior.state_dict().items())


@pytest.mark.parametrize(("name", "form"), [("ccrl", "clean"), ("ccrl", "released"), ("cerl", "released")])
def test_the_frame_itself_is_the_best_answer(name, form):
    prior = frozen(name, form)
    wanted = frames(0) if name == "ccrl" else frames(1)
    assert ask(prior, wanted)[NAMES[name]].item() == pytest.approx(0, abs=1e-4)
    assert ask(prior, frames(2))[NAMES[name]] > ask(prior, wanted)[NAMES[name]]


def test_the_clean_cerl_asks_for_the_emotion_as_surely_as_the_reference_shows_it_and_no_surer():
    prior, made = frozen("cerl"), frames(2)

    def cross_entropy(faces):
        likely = (prior.embed(faces) @ prior.priors().T / prior.settings.temperature).log_softmax(1)
        return -likely[:, SEVEN.index(Emotion.HAPPY)]

    for reference in (frames(1), frames(3)):
        expected = (cross_entropy(made) - cross_entropy(reference)).clamp(min=0).mean().item()
        assert ask(prior, made, reference=reference)["cerl/emotion"].item() == pytest.approx(expected, abs=1e-5)
    least = cross_entropy(made).argmin()
    surest = made[least : least + 1].expand_as(made).clone().requires_grad_()
    ask(prior, surest, reference=made)["cerl/emotion"].backward()
    assert surest.grad.abs().sum() == 0


@pytest.mark.parametrize("name", NAMES)
def test_bytes_and_unit_range_mean_the_same(name):
    prior, made = frozen(name), frames(2)
    levels = ((made + 1) * 127.5).round().to(torch.uint8)
    assert ask(prior, levels)[NAMES[name]].item() == pytest.approx(
        ask(prior, levels / 127.5 - 1)[NAMES[name]].item(), abs=1e-5
    )


def test_an_emotion_without_a_prior_is_named():
    calm = torch.full((4,), list(Emotion).index(Emotion.CALM))
    for form, error in (("clean", RuntimeError), ("released", ValueError)):
        with pytest.raises(error, match="no prior for"):
            frozen("cerl", form).guidance(EditedFrames(*(frames(seed)[:, None] for seed in range(3)), emotion=calm))
