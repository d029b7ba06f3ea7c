"""The average of the weights: what it is, that it outlives a stop, and that it is what is exported."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from doors import PATIENCE, command, well
from safetensors.torch import load_file
from test_phases import history
from torch import nn
from toy_pair import PairStage, networks, pair, plain_steps

from spfem_dist.config import Zero
from spfem_dist.exporting import averaged_weights
from spfem_dist.training import engines
from spfem_dist.training.averaging import Average, newest_share
from spfem_dist.training.plan import memory, states_of

MANY = str(Path(__file__).with_name("toy_many.py"))
#: Samples; global batches have 8. Runs by name: ZeRO stage and precision.
HALF_LIFE = 3.0
RUNS = {"zero": (0, "fp32"), "one": (1, "fp32"), "three": (3, "fp32")}
MORE = RUNS | {"halves": (0, "bf16"), "sharded": (1, "bf16"), "two": (2, "bf16"), "all": (3, "bf16")}


def trained(storage, *flags, runs=MORE, **environment):
    """The pair, at each ZeRO stage and precision, by two workers in two micro-batches each."""
    words = []
    for name, (stage, precision) in runs.items():
        words += ["then", "pair", "--checkpoint.storage", storage, "--name", name, "--zero.stage", stage]
        words += ["--zero.precision", precision, "--first.micro-batch", "2", "--first.half-life", HALF_LIFE, *flags]
    return well(command("python", MANY, *words[1:], workers=2, timeout=PATIENCE, **environment))


def exported(storage, name):
    return load_file(storage / name / "first" / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    storage = tmp_path_factory.mktemp("uninterrupted")
    trained(storage, "--validation.every-steps", "0", runs=RUNS)
    return storage


@pytest.fixture(scope="module")
def by_hand():
    """(weights at the end, their average) of plain PyTorch; the average by its definition."""
    average = {}
    for number, trained_, _ in plain_steps():
        step = number - 1
        for key, value in trained_["maker"].state_dict().items():
            half_life = min(HALF_LIFE, 0.05 * 8 * step)
            kept = 0.5 ** (8 / half_life) if step else 0.0
            average[key] = (kept * average[key] if step else 0.0) + (1 - kept) * value
    return {name: network.state_dict() for name, network in trained_.items()}, average


@pytest.mark.parametrize("name", RUNS)
def test_the_average_by_hand_is_what_every_zero_stage_exports(name, uninterrupted, by_hand):
    (last, average), found = by_hand, exported(uninterrupted, name)
    for key, value in average.items():
        torch.testing.assert_close(found[f"maker.{key}"], value, atol=1e-5, rtol=0)
    apart = max((last["maker"][key] - average[key]).abs().max() for key in average)
    assert apart > 1e-4, "the average must not be the last weights, or this shows nothing"
    for key, value in last["judge"].items():  # which only judges, and is as it was last
        torch.testing.assert_close(found[f"judge.{key}"], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", RUNS)
def test_the_last_checkpoint_holds_what_was_exported(name, uninterrupted):
    folder, network = uninterrupted / name / "first" / "checkpoint_000000012", networks()["maker"]
    found = averaged_weights(folder, "maker", RUNS[name][0], network)
    assert found.keys() == network.state_dict().keys()
    for key, value in found.items():
        assert torch.equal(exported(uninterrupted, name)[f"maker.{key}"], value), key


@pytest.mark.nightly
def test_a_stop_and_validations_change_no_bit_of_it(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    trained(whole, "--validation.every-steps", "0")
    for signals in ("7:TERM", ""):
        assert not (stopped / "three" / "first" / "model").exists()
        trained(stopped, "--validation.every-steps", "3", SPFEM_TOY_SIGNAL=signals)
    for name in MORE:
        expected, found = exported(whole, name), exported(stopped, name)
        assert all(torch.equal(found[key], value) for key, value in expected.items()), name
        assert len([key for key in history(stopped, name) if "val/" in key[1]]) >= 4


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_that_was_left_out_does_not_count(fused):
    """Fused kernels, which a GPU has, are not told by the host."""
    weight = nn.Parameter(torch.zeros(4))
    optimizer = engines.guarded(torch.optim.SGD([weight], lr=1.0, fused=fused), clip=0.0)
    average = Average(SimpleNamespace(optimizer=optimizer))
    seen = []
    for gradient, share in ((-1.0, 1.0), (-1.0, 0.25), (float("nan"), 0.25), (-1.0, 0.25)):
        weight.grad, average.share = torch.full((4,), gradient), share
        optimizer.step()
        seen.append(optimizer.state[weight]["average"][0].item())
    assert seen == pytest.approx([1.0, 1.25, 1.25, 0.75 * 1.25 + 0.25 * 3])


def test_its_half_life_is_that_of_samples_however_often_a_step_updates():
    once = newest_share(1000.0, 16, 10**6)
    assert (1 - once) ** (1000 / 16) == pytest.approx(0.5)
    assert (1 - newest_share(1000.0, 16, 10**6, updates=3)) ** 3 == pytest.approx(1 - once)
    assert newest_share(1000.0, 16, 0) == 1.0
    assert (1 - newest_share(1000.0, 16, 400)) ** (20 / 16) == pytest.approx(0.5), "at most 0.05 of the samples seen"


def test_a_plan_counts_one_more_number_for_each_averaged_parameter():
    plain, kept = pair(), pair()
    kept.first.half_life = HALF_LIFE
    states = [states_of(PairStage().job(run, "first", 0, 1, torch.device("cpu"))) for run in (plain, kept)]
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks().items()}
    assert states[0] == 2
    total = sum(sizes.values())
    more = [memory(total, 0, 0.0, Zero(), 1, count).optimizer for count in states]
    assert more[1] - more[0] == pytest.approx(4 * sizes["maker"])
