"""Networks that train against each other: at every ZeRO stage the losses are those of plain PyTorch."""

import json
import signal

import pytest
import torch
from doors import PATIENCE, command, well
from safetensors.torch import load_file
from toy_pair import networks, plain_steps
from toy_runs import RECIPE, together

PAIR = RECIPE.replace("toy_recipe", "toy_pair")


@pytest.fixture(scope="module")
def reference():
    """(losses by step and name, networks) of plain PyTorch over the whole global batch."""
    steps = list(plain_steps())
    return {(step, f"train/{name}"): value for step, _, losses in steps for name, value in losses.items()}, steps[-1][1]


def history(storage, name="toy"):
    rows = json.loads((storage / name / "first" / "history.json").read_text())
    return {(row["step"], name): value for row in rows for name, value in row["values"].items()}


def losses(storage, wanted):
    found = history(storage)
    return {key: found[key] for key in wanted}


@pytest.mark.parametrize("stage", [3, *(pytest.param(stage, marks=pytest.mark.nightly) for stage in (0, 1, 2))])
def test_two_workers_with_a_gradient_penalty_repeat_plain_pytorch(stage, reference, tmp_path):
    expected, trained = reference
    well(together(2, tmp_path, "--zero.stage", str(stage), recipe=PAIR))
    assert losses(tmp_path, expected) == pytest.approx(expected, abs=1e-5)
    weights = load_file(tmp_path / "toy" / "first" / "model" / "model.safetensors")
    for name, network in trained.items():
        for key, value in network.state_dict().items():
            torch.testing.assert_close(weights[f"{name}.{key}"], value, atol=1e-4, rtol=0)


@pytest.mark.nightly
def test_accumulation_and_a_kill_change_nothing(reference, tmp_path):
    expected, _ = reference
    words = ["--local", "--checkpoint.storage", tmp_path, "--first.micro-batch", "4"]
    killed = command("python", PAIR, *words, timeout=PATIENCE, SPFEM_TOY_SIGNAL="8:KILL")
    assert killed.code == -signal.SIGKILL
    again = well(command("python", PAIR, *words, timeout=PATIENCE))
    assert "at step 6" in again.said
    assert losses(tmp_path, expected) == pytest.approx(expected, abs=1e-5)


def test_each_network_has_its_own_rate_and_norm(tmp_path):
    well(command("python", PAIR, "--local", "--checkpoint.storage", tmp_path, timeout=PATIENCE))
    found = history(tmp_path)
    for name in ("judge", "maker"):
        assert found[1, f"train/{name}/learning_rate"] == pytest.approx(1e-3)
        assert found[1, f"train/{name}/gradient_norm"] > 0
    assert found[6, "val/maker/adversarial"] > 0
    assert found[6, "train/maker/size"] > 0


def test_the_dry_run_counts_both_networks(tmp_path):
    shown = well(command("python", PAIR, "--local", "--dry-run", "--checkpoint.storage", tmp_path, timeout=PATIENCE))
    assert [line for line in shown.out.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []
    assert len(shown.out.splitlines()) < 30
    assert f"{sum(p.numel() for n in networks().values() for p in n.parameters()):,}" in shown.out
