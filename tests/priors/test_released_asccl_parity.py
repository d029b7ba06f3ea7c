"""The released ASCCL gives the numbers of the authors' code (tolerances: README of the fixtures)."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from released_golden import filled, fixture, input_of, needs_golden, relative_error

from spfem_dist.priors.asccl.metric import NEIGHBOURS, disparities
from spfem_dist.priors.asccl.released import (
    PAPER_PARAMETERS,
    PLACES,
    SCALE,
    ReleasedASCCL,
    adaptive_weight,
    normalised,
    place_entropy,
    region,
)
from spfem_dist.priors.asccl.settings import Settings

pytestmark = needs_golden


@lru_cache(maxsize=2)
def authors_state(rule: str) -> dict[str, torch.Tensor]:
    return filled(fixture("asccl_spatial")[0], rule)


def scalar(value: float) -> object:
    return pytest.approx(value, rel=1e-4, abs=2e-5)


@lru_cache(maxsize=1)
def network() -> ReleasedASCCL:
    return ReleasedASCCL(Settings(form="released", network="paper"), pretrained=False)


@pytest.mark.parametrize("rule", ["A", "B"])
def test_the_contrast_and_its_weight_equal_the_authors(rule: str):
    description, arrays = fixture("asccl_patchnce")
    raw_q, raw_k, differs = (input_of(description["inputs"][name], rule) for name in ("raw_q", "raw_k", "diff"))
    raw_q.requires_grad_()
    raw_k.requires_grad_()
    query, key = (normalised(raw.transpose(1, 2)) for raw in (raw_q, raw_k))
    assert relative_error(query.transpose(1, 2), description, arrays, f"{rule}.q") <= 1e-4
    entropy = place_entropy(query, key).mean()
    weight = adaptive_weight(differs * description["inputs"]["diff"].get("scaled_by", 1.0)).mean()
    scalars = description["scalars"]
    assert entropy.item() == scalar(scalars[f"{rule}.loss_w1"])
    assert weight.item() == scalar(scalars[f"{rule}.weight_mean"])
    assert (entropy * weight).item() == scalar(scalars[f"{rule}.loss_w"])
    (entropy * weight).backward()
    assert relative_error(raw_q.grad, description, arrays, f"{rule}.grad_q") <= 1e-4
    assert raw_k.grad is None


def stored_places(arrays: dict) -> list[torch.Tensor]:
    return [torch.from_numpy(arrays[f"layer{i}.centres"]).long()[None].expand(2, -1, -1) for i in range(1, 5)]


@pytest.mark.parametrize("case", ["A_eval", "B_train", "B_eval"])
def test_losses_codes_and_gradients_equal_the_authors(case: str):
    description, arrays = fixture("asccl_spatial")
    rule, mode = case.split("_")
    model = network().float()
    model.load_state_dict(authors_state(rule))
    model.train(mode == "train")
    query, key = (input_of(spec, rule) for spec in description["inputs"].values())
    query.requires_grad_()
    centres, scalars, codes = stored_places(arrays), description["scalars"], []
    inside = model.code
    model.code = lambda level, found: codes.append(inside(level, found)) or codes[-1]
    try:
        parts = model.contrast(query, key, centres)
    finally:
        del model.code
    total = torch.zeros(())
    for level, (entropy, weight) in enumerate(parts):
        name = f"{case}.layer{level + 1}"
        assert entropy.mean().item() == scalar(scalars[f"{name}.ce"])
        assert weight.mean().item() == scalar(scalars[f"{name}.weight_mean"])
        for which, code in zip("qk", codes[2 * level : 2 * level + 2], strict=True):
            assert relative_error(code.transpose(1, 2), description, arrays, f"{name}.{which}") <= 1e-4
        loss = entropy.mean() * weight.mean()
        assert loss.item() == scalar(scalars[f"{name}.loss"])
        total = total + SCALE * loss
    assert total.item() == scalar(scalars[f"{case}.total"])
    if rule == "B":
        total.backward()
        golden = description["tensors"][f"{case}.grad_query_img"]["l2"]
        assert query.grad.double().norm().item() == pytest.approx(golden, rel=1e-3)
        assert relative_error(query.grad, description, arrays, f"{case}.grad_query_img") <= 1e-3


def test_the_ill_conditioned_fill_gives_the_authors_losses_in_float64():
    description, arrays = fixture("asccl_spatial")
    model = network().float()
    model.load_state_dict(authors_state("A"))
    model.double().train()
    query, key = (input_of(spec, "A").double() for spec in description["inputs"].values())
    with torch.no_grad():
        parts = model.contrast(query, key, stored_places(arrays))
    losses = [(entropy.mean() * weight.mean()).item() for entropy, weight in parts]
    assert losses == pytest.approx(description["scalars"]["A_train.float64.layer_losses"], rel=1e-5)
    assert SCALE * sum(losses) == pytest.approx(description["scalars"]["A_train.float64.total"], rel=1e-5)


def test_places_and_neighbours_are_where_the_authors_have_them():
    _, arrays = fixture("asccl_spatial")
    for level, (count, side) in enumerate(zip(PLACES, (112, 56, 28, 14), strict=True)):
        centres = torch.from_numpy(arrays[f"layer{level + 1}.centres"]).long()
        around = (centres[:, None] + torch.tensor(NEIGHBOURS)).flatten(0, 1)
        assert around.equal(torch.from_numpy(arrays[f"layer{level + 1}.neighbours"]).long())
        first, extent = region(side)
        assert len(centres) == count == len(centres.unique(dim=0))
        assert first <= centres.min()
        assert centres.max() < first + extent


def test_a_neighbour_beyond_the_border_is_the_one_at_the_far_edge():
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    found = disparities(maps, torch.tensor([[[0, 0]]]))[0, :, 0]
    assert (-found).tolist() == [15, 12, 13, 3, 1, 7, 4, 5]


def test_the_published_sizes_have_31_180_656_parameters_under_the_authors_names():
    description, _ = fixture("asccl_spatial")
    state = network().state_dict()
    assert {name: list(t.shape) for name, t in state.items()} == {n: s for n, s, *_ in description["state_dict_sorted"]}
    assert sum(p.numel() for p in network().parameters()) == PAPER_PARAMETERS == description["params_total"]
