"""The released STCCL gives the numbers of the authors' code (tolerances: README of the fixtures)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from released_golden import filled, fixture, input_of, needs_golden, relative_error

from spfem_dist.priors._stccl.released import (
    JOINT_WEIGHT,
    MISPLACED,
    PAPER_PARAMETERS,
    POSITIONS,
    SCALE,
    TIME_PARAMETERS,
    ReleasedSTCCL,
    TimeTransformer,
)
from spfem_dist.priors.asccl.trunk import four_maps

pytestmark = needs_golden


@lru_cache(maxsize=1)
def authors_state(rule: str) -> dict[str, torch.Tensor]:
    """The trunk and MLPs, the same in all three fixtures."""
    return filled(fixture("stccl_temporal")[0], rule)


def scalar(value: float) -> object:
    return pytest.approx(value, rel=1e-4, abs=2e-5)


@lru_cache(maxsize=1)
def network() -> ReleasedSTCCL:
    return ReleasedSTCCL("stccl", "temporal", 5, paper=True, pretrained=False)


def prepared(model: str, rule: str, mode: str) -> ReleasedSTCCL:
    made = network().float()
    made.model = model
    made.load_state_dict(authors_state(rule))
    return made.train(mode == "train")


def windows(model: ReleasedSTCCL, images: torch.Tensor) -> list[torch.Tensor]:
    """Maps [1, T, C, H, W] of a window [1, T, 3, 224, 224]."""
    return [maps[None] for maps in four_maps(model.resnet50, images[0])]


def positions(arrays: dict) -> list[torch.Tensor]:
    """The stored flat positions as rows and columns, [1, P, 2] for each map."""
    found = []
    for level, side in enumerate((112, 56, 28, 14)):
        flat = torch.from_numpy(arrays[f"layer{level + 1}.indices"]).long()
        assert len(flat) == POSITIONS[level]
        found.append(torch.stack([flat // side, flat % side], -1)[None])
    return found


def centres(arrays: dict, count: int) -> list[torch.Tensor]:
    return [torch.from_numpy(arrays[f"layer{i}.centres"]).long()[None].expand(count, -1, -1) for i in range(1, 5)]


@pytest.mark.parametrize(
    "case", [*(pytest.param(case, marks=pytest.mark.nightly) for case in ("A_eval", "B_eval")), "B_train"]
)
def test_the_temporal_model_equals_the_authors(case: str):
    description, arrays = fixture("stccl_temporal")
    rule, mode = case.split("_")
    model = prepared("temporal", rule, mode)
    query, key = (input_of(spec, rule) for spec in description["inputs"].values())
    scalars = description["scalars"]
    with torch.no_grad():
        q, k = windows(model, query), windows(model, key)
        losses = model.temporal(q, k, positions(arrays))
        for level, (loss, places) in enumerate(zip(losses, positions(arrays), strict=True)):
            name = f"{case}.layer{level + 1}"
            assert loss.item() == scalar(scalars[f"{name}.loss"])
            for which, maps in (("q", q[level]), ("k", k[level])):
                # [1, 10, P, D]; the authors keep the pairs of frames in the batch and places last.
                codes = model.over_time(level, maps, places)[0].transpose(1, 2)
                assert relative_error(codes, description, arrays, f"{name}.{which}") <= 1e-4
    assert sum(losses).item() == scalar(scalars[f"{case}.total"])


@pytest.mark.nightly
def test_the_ill_conditioned_fill_gives_the_authors_losses_in_float64():
    description, arrays = fixture("stccl_temporal")
    model = prepared("temporal", "A", "train").double()
    query, key = (input_of(spec, "A").double() for spec in description["inputs"].values())
    with torch.no_grad():
        losses = model.temporal(windows(model, query), windows(model, key), positions(arrays))
    model.float()
    assert [x.item() for x in losses] == pytest.approx(description["scalars"]["A_train.float64.layer_losses"], rel=1e-5)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_spatial_model_compares_the_raw_disparities(mode: str):
    description, arrays = fixture("stccl_spatial_nomlp")
    model, scalars = prepared("spatial", "B", mode), description["scalars"]
    query, key = (input_of(spec, "B") for spec in description["inputs"].values())
    total, codes, inside = 0.0, [], model.code
    model.code = lambda level, found: codes.append(inside(level, found)) or codes[-1]
    try:
        with torch.no_grad():
            maps = [four_maps(model.resnet50, images) for images in (query, key)]
            parts = model.spatial(*maps, centres(arrays, len(query)))
    finally:
        del model.code
    for level, (entropy, weight) in enumerate(parts):
        name = f"B_{mode}.layer{level + 1}"
        assert entropy.mean().item() == scalar(scalars[f"{name}.ce"])
        assert weight.mean().item() == scalar(scalars[f"{name}.weight_mean"])
        for which, code in zip("qk", codes[2 * level : 2 * level + 2], strict=True):
            assert relative_error(code.transpose(1, 2), description, arrays, f"{name}.{which}") <= 1e-4
        total += (entropy.mean() * weight.mean()).item()
    assert SCALE * total == scalar(scalars[f"B_{mode}.total"])


def time_models(description: dict) -> torch.nn.ModuleList:
    """One transformer at the authors' size under rule B; each of the four was filled alike."""
    described = description["time_models"]
    made, state = TimeTransformer(16_384), {}
    for k, (name, shape, _, kind) in enumerate(described["state_dict_sorted"]):
        if kind == "buffer_as_built":
            state[name] = made.state_dict()[name]
            continue
        z = np.random.RandomState(k).standard_normal(int(np.prod(shape)))
        filled_by_b = (
            1 + 0.1 * z if kind == "norm_weight" else z * np.sqrt(shape[0] / z.size) if len(shape) > 1 else 0.1 * z
        )
        state[name] = torch.from_numpy(filled_by_b.reshape(shape).astype(np.float32))
    made.load_state_dict(state)
    total = sum(float(t.double().sum()) for n, t in state.items() if not n.endswith(".pe"))
    assert total == pytest.approx(described["fill_check"]["B"]["sum_of_all_float_entries"], rel=1e-6)
    assert sum(p.numel() for p in made.parameters()) == described["params_total"] == TIME_PARAMETERS // 4
    return torch.nn.ModuleList([made.eval()] * 4)


def test_the_joint_model_equals_the_authors():
    description, arrays = fixture("stccl_joint")
    model, scalars = prepared("joint", "B", "eval"), description["scalars"]
    model.time = time_models(description)
    query, key = (input_of(spec, "B") for spec in description["inputs"].values())
    try:
        with torch.no_grad():
            q, k = windows(model, query), windows(model, key)
            spatial = model.spatial([m[0] for m in q], [m[0] for m in k], centres(arrays, 5))
            temporal = model.temporal(q, k, positions(arrays))
            for level, places in enumerate(positions(arrays)):
                name = f"B_eval.layer{level + 1}"
                entropy, weight = (part.mean() for part in spatial[level])
                assert (entropy * weight).item() == scalar(scalars[f"{name}.spatial"])
                assert MISPLACED * temporal[level].item() == scalar(scalars[f"{name}.temporal"])
                codes = model.over_time(level, q[level], places)[0].transpose(1, 2)
                assert relative_error(codes, description, arrays, f"{name}.temporal.q") <= 1e-4
    finally:
        del model.time
    assert sum((e.mean() * w.mean()).item() for e, w in spatial) == scalar(scalars["B_eval.loss_spatial"])
    assert JOINT_WEIGHT * MISPLACED * sum(temporal).item() == scalar(scalars["B_eval.loss_temporal"])


def test_the_published_sizes_have_the_authors_names():
    for name in ("stccl_temporal", "stccl_joint", "stccl_spatial_nomlp"):
        description, _ = fixture(name)
        listed = {n: s for n, s, *_ in description["state_dict_sorted"]}
        assert {n: list(t.shape) for n, t in network().state_dict().items()} == listed
    assert sum(p.numel() for p in network().parameters()) == PAPER_PARAMETERS == description["params_total"]
