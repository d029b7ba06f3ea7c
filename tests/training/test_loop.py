"""The loop gives the same losses however it is started, sharded, split or interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(Path(__file__).with_name("toy_recipe.py"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "RAY_AUTH_MODE": "disabled"}


def train(storage, *arguments, launcher=(), **environment):
    command = [sys.executable, *launcher, RECIPE, "--checkpoint.storage", str(storage), *arguments]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=300)


def losses(storage, name="toy", job="ccrl"):
    history = json.loads((Path(storage) / name / job / "history.json").read_text())
    return {row["step"]: row["values"]["train/toy/error"] for row in history if "train/toy/error" in row["values"]}


TORCHRUN = (
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--master-port",
    "0",
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "localhost:0",
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The uninterrupted run in one process."""
    storage = tmp_path_factory.mktemp("reference")
    done = train(storage, "--local")
    assert done.returncode == 0, done.stdout + done.stderr
    return losses(storage)


def test_training_learns(reference):
    assert reference[20] < 0.5 * reference[1]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_workers_repeat_the_single_process_at_every_zero_stage(stage, reference, tmp_path):
    done = train(tmp_path, "--zero.stage", str(stage), launcher=TORCHRUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)
    assert (tmp_path / "toy" / "ccrl" / "model" / "model.safetensors").stat().st_size > 4 * 1000


def test_accelerate_launch_repeats_the_single_process(reference, tmp_path):
    launcher = (
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
        "--num_machines",
        "1",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
    )
    done = train(tmp_path, launcher=launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)


def test_accumulation_repeats_the_whole_batch(reference, tmp_path):
    done = train(tmp_path, "--local", "--ccrl.micro-batch", "2", "--scaling.workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)


def test_a_killed_run_started_again_repeats_the_same_losses(reference, tmp_path):
    command = [sys.executable, RECIPE, "--checkpoint.storage", str(tmp_path), "--local"]
    run = subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT | {"TOY_SLEEP": "0.2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    committed = tmp_path / "toy" / "ccrl" / "checkpoint_000000006" / "committed.json"
    deadline = time.time() + 60
    while not committed.exists() and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # into the steps after the checkpoint: they are lost and must come again
    run.kill()
    run.communicate()
    again = train(tmp_path, "--local")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "resuming run 'toy'" in again.stdout
    assert "at step 6" in again.stdout
    assert losses(tmp_path) == reference, "not one loss differs, none is missing, none comes twice"


def test_sigterm_leaves_a_checkpoint_and_the_same_command_goes_on(reference, tmp_path):
    command = [sys.executable, RECIPE, "--checkpoint.storage", str(tmp_path), "--local"]
    run = subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT | {"TOY_SLEEP": "0.2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in run.stdout:
        if "ccrl 8/20" in line:
            run.send_signal(signal.SIGTERM)
            break
    rest, _ = run.communicate(timeout=60)
    assert run.returncode == 130, rest
    assert "The same command continues" in rest
    assert json.loads((tmp_path / "toy" / "ccrl" / "state.json").read_text())["status"] == "stopped"
    again = train(tmp_path, "--local")
    assert again.returncode == 0, again.stdout + again.stderr
    assert losses(tmp_path) == reference


def test_a_finished_run_is_not_trained_again(tmp_path):
    assert train(tmp_path, "--local").returncode == 0
    again = train(tmp_path, "--local")
    assert again.returncode == 0
    assert "already finished at step 20" in again.stdout


def test_another_number_of_workers_is_refused_with_the_fix(tmp_path):
    run = subprocess.Popen(
        [sys.executable, RECIPE, "--checkpoint.storage", str(tmp_path), "--local"],
        cwd=ROOT,
        env=ENVIRONMENT | {"TOY_SLEEP": "0.2"},
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in run.stdout:
        if "ccrl 7/20" in line:
            break
    run.kill()
    run.wait()
    refused = train(tmp_path, launcher=TORCHRUN)
    assert refused.returncode != 0
    assert "continue with --scaling.workers 1" in refused.stdout + refused.stderr


def test_a_loss_that_is_not_a_number_stops_the_run_with_its_name(tmp_path):
    failed = train(tmp_path, "--local", "--ccrl.optimizer.lr", "1e30", "--ccrl.optimizer.clip", "0")
    assert failed.returncode == 1
    assert "toy/error became" in failed.stderr
    assert "Traceback" not in failed.stderr
