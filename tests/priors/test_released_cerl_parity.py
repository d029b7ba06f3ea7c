"""The released CERL gives the numbers of the authors' code, with fixed features in place of CLIP's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from released_golden import filled, fixture, input_of, needs_golden, relative_error
from torch import nn

from spfem_dist.config import Data
from spfem_dist.priors import cerl
from spfem_dist.priors.cerl.released import (
    PAPER_TRAINABLE,
    EmotionMLP,
    ReleasedCERL,
    adapted,
    emotion_distance,
    released_monitors,
    text_to_image,
)

pytestmark = needs_golden

SLOTS = torch.arange(7).expand(2, 7)
ALL = torch.ones(2, 7, dtype=torch.bool)


def inputs_of(rule: str) -> tuple[dict, dict, torch.Tensor, torch.Tensor]:
    description, arrays = fixture("cerl_patchnce")
    image, text = (input_of(spec, rule) for spec in description["inputs"].values())
    return description, arrays, image, text


def scalar(value: float) -> object:
    return pytest.approx(value, rel=1e-4, abs=2e-5)


@pytest.mark.parametrize("rule", ["A", "B"])
def test_contrast_without_the_networks_equals_the_authors(rule: str):
    description, _, image, text = inputs_of(rule)
    loss, _ = text_to_image(text, image, SLOTS, ALL)
    assert loss.mean().item() == scalar(description["scalars"][f"{rule}.nce_only.loss"])


@pytest.mark.parametrize("rule", ["A", "B"])
def test_forward_gradients_and_monitors_equal_the_authors(rule: str):
    description, arrays, image, text = inputs_of(rule)
    scalars = description["scalars"]
    module = nn.Module()
    module.mlps = nn.ModuleList(EmotionMLP(512) for _ in range(7))
    module.load_state_dict(filled(description, rule))
    image.requires_grad_()
    out = adapted(module.mlps, image, SLOTS)
    assert relative_error(out, description, arrays, f"{rule}.mlp_out") <= 1e-4
    loss, _ = text_to_image(text, out, SLOTS, ALL)
    loss.mean().backward()
    assert loss.mean().item() == scalar(scalars[f"{rule}.forward.loss"])
    assert relative_error(image.grad, description, arrays, f"{rule}.grad_image_feature") <= 1e-4
    norms = [torch.cat([p.grad.flatten() for p in mlp.parameters()]).norm().item() for mlp in module.mlps]
    assert norms == pytest.approx(scalars[f"{rule}.forward.mlp_grad_l2"], rel=1e-3)
    positive, negative = released_monitors(text, out.detach())
    assert positive.item() == pytest.approx(scalars[f"{rule}.forward.pos"], rel=1e-4)
    assert negative.item() == pytest.approx(scalars[f"{rule}.forward.neg"], rel=1e-4)


@pytest.mark.parametrize("rule", ["A", "B"])
def test_stage2_emotion_loss_equals_the_authors(rule: str):
    description, arrays, _, _ = inputs_of(rule)
    inputs = description["stage2"]["inputs"]
    reference, target, priors = (input_of(inputs[n], rule) for n in ("reference", "target", "T"))
    prior = F.normalize(priors, dim=-1)[inputs["label_index"]].unsqueeze(1)
    target.requires_grad_()
    loss = emotion_distance(reference, target, prior)
    loss.backward()
    assert loss.item() == scalar(description["scalars"][f"{rule}.stage2_emotion_loss"])
    assert relative_error(target.grad, description, arrays, f"{rule}.stage2_emotion_grad_target") <= 1e-4


def test_the_published_sizes_train_2_329_600_parameters_and_the_authors_state_loads():
    description, _ = fixture("cerl_patchnce")
    # Only shapes matter here, and a random ViT-B/32 takes seconds to draw, so CLIP is cut to one layer in each tower.
    model = ReleasedCERL(cerl.Settings(form="released", network="small", embedding=512), Data())
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trainable.values()) == PAPER_TRAINABLE
    state = filled(description, "B") | {
        "prompt_learner.ctx": torch.ones(7, 8, 512),
        "image_encoder.conv1.weight": torch.ones(1),
    }
    assert set(trainable) == set(state) - {"image_encoder.conv1.weight"}
    assert model.load_released_state(state) == ["image_encoder.conv1.weight"]
    for name, parameter in trainable.items():
        assert torch.equal(parameter, state[name]), name
    with pytest.raises(ValueError, match="surprise"):
        model.load_released_state({**state, "surprise": torch.ones(1)})
    with pytest.raises(ValueError, match=r"prompt_learner\.ctx is \(7, 4, 512\)"):
        model.load_released_state({**state, "prompt_learner.ctx": torch.ones(7, 4, 512)})
    with pytest.raises(ValueError, match=r"missing: 6\.mlp\.4\.bias"):
        model.load_released_state({n: t for n, t in state.items() if n != "mlps.6.mlp.4.bias"})
