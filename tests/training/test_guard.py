"""Training that is broken never looks finished: a NaN anywhere reaches no checkpoint and no export, and the run goes on from a sound one."""

import json
from pathlib import Path

import pytest
import torch
from doors import well
from safetensors.torch import load_file
from toy_runs import losses, state, together

from spfem_dist.exporting import whole_weights
from spfem_dist.saved import not_finite
from spfem_dist.training.manifest import CheckpointStore, committed
from spfem_dist.training.universal import load_states

#: Samples of the step after which the second checkpoint is due, and of the last step.
AT_A_CHECKPOINT, LAST = 88, 159
CELLS = [
    (what, sample, stage, precision)
    for what, sample in (
        ("activations", AT_A_CHECKPOINT),
        ("gradients", AT_A_CHECKPOINT),
        ("optimizer", AT_A_CHECKPOINT),
        ("activations", LAST),
        ("gradients", LAST),
        ("optimizer", LAST),
        ("weights", LAST),
    )
    for stage in (0, 1, 2, 3)
    for precision in ("fp32", "bf16")
]
#: What `make test` looks at: where a NaN was exported before, and each way to find one.
SMALL = {("gradients", LAST, 0, "fp32"), ("weights", LAST, 3, "bf16")}


def train(storage, stage, precision, *faults, workers=2, **flags):
    """The toy run, by two workers."""
    settings = ["--zero.stage", stage, "--zero.precision", precision]
    for name, value in flags.items():
        settings += [f"--{name.replace('__', '.').replace('_', '-')}", value]
    return together(
        workers, storage, *(["--local"] if workers == 1 else []), *settings, *(["--faults", *faults] if faults else [])
    )


def all_finite(job: Path) -> bool:
    """Whether every committed checkpoint, and the export where there is one, holds finite numbers alone."""
    for name in committed(str(job)):
        stage = CheckpointStore(str(job)).manifest(name, 0)["zero_stage"]
        if not_finite(whole_weights(job / name, "first", stage)):
            return False
        for shard in (job / name).rglob("*optim_states.pt"):
            if any(not torch.isfinite(t).all() for t in tensors(load_states(shard))):
                return False
    return not any(not_finite(load_file(file)) for file in job.glob("model/*.safetensors"))


def tensors(value):
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors(part)


@pytest.mark.parametrize(
    ("what", "sample", "stage", "precision"),
    [pytest.param(*cell, marks=() if cell in SMALL else pytest.mark.nightly) for cell in CELLS],
)
def test_a_nan_is_never_saved_or_exported_and_the_same_command_goes_on(what, sample, stage, precision, tmp_path):
    job = tmp_path / "toy" / "first"
    hurt = train(tmp_path, stage, precision, f"nan in {what} of rank 1 at sample {sample}")
    assert "fires in rank 1" in hurt.said
    assert all_finite(job)
    if what == "gradients":  # one update is left out, and said
        well(hurt)
        assert f"first: step {sample // 8 + 1}: 1 update(s) of first left out" in hurt.said
    else:
        assert hurt.code == 1
        assert f"at step {sample // 8 + 1}" in hurt.said
        last = sample // 8 // 6 * 6
        assert f"The last checkpoint, {job}/checkpoint_{last:09d}, is sound" in hurt.said
        assert ("all weights are finite" if what == "activations" else "layers.0.weight of rank") in hurt.said
        assert not (job / "model").exists()
        assert state(tmp_path)["status"] == "failed"
        again = well(train(tmp_path, stage, precision, f"nan in {what} of rank 1 at sample {sample}"))
        assert f"at step {last}" in again.said, "the fault has fired, and does not again"
    assert all_finite(job)
    assert (job / "model" / "model.safetensors").exists()
    assert len(losses(tmp_path)) == 20


@pytest.mark.parametrize("stage", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_too_many_updates_left_out_end_the_run_with_the_first_bad_gradient(stage, tmp_path):
    faults = [f"nan in gradients of rank 0 at sample {8 * step}" for step in (2, 3, 5, 6, 7)]
    ended = train(tmp_path, stage, "fp32", *faults, workers=1, first__steps="8")
    assert ended.code == 1
    assert "at step 4, 2 of the last 4 updates of first were left out" in ended.said
    assert "(first that of layers.0.weight), more than zero.skipped_share 0.1" in ended.said
    assert "There is no checkpoint yet" in ended.said


def test_updates_left_out_are_curves_and_the_norm_is_never_infinite(tmp_path):
    well(train(tmp_path, 1, "fp32", "nan in gradients of rank 0 at sample 80", workers=1))
    rows = json.loads((tmp_path / "toy" / "first" / "history.json").read_text())
    left_out = {
        row["step"]: row["values"]["train/skipped_updates"] for row in rows if "train/skipped_updates" in row["values"]
    }
    assert left_out == {11: 1}
    norms = [row["values"]["train/gradient_norm"] for row in rows if "train/gradient_norm" in row["values"]]
    assert len(norms) == 19
    assert max(norms) < 1e3


def test_a_sound_checkpoint_can_be_gone_on_from_with_other_settings(tmp_path):
    hurt = train(tmp_path, 1, "fp32", "nan in weights of rank 0 at sample 100", workers=1)
    assert "--checkpoint.allow-other True" in hurt.said
    refused = train(tmp_path, 1, "fp32", workers=1, first__optimizer__lr="0.005")
    assert "--first.optimizer.lr: was 0.01, now 0.005" in refused.said
    well(train(tmp_path, 1, "fp32", workers=1, first__optimizer__lr="0.005", checkpoint__allow_other="True"))
    assert losses(tmp_path)[20] < 1
