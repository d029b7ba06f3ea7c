"""The loop gives the same losses however it is started, sharded, split or interrupted."""

import shutil
import signal

import pytest
from doors import well
from toy_runs import alone, launched, losses, state, together

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d")
TORCHRUN += ("--rdzv-endpoint", "localhost:0")
ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--mixed_precision", "no")
ACCELERATE += ("--num_machines", "1", "--dynamo_backend", "no", "--main_process_port", "0")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Storage of a run that was killed after step 8; its last checkpoint is of step 6."""
    storage = tmp_path_factory.mktemp("killed")
    assert alone(storage, SPFEM_TOY_SIGNAL="8:KILL").code == -signal.SIGKILL
    return storage


@pytest.fixture
def copy_of_killed(killed, tmp_path):
    return shutil.copytree(killed, tmp_path / "killed")


def test_training_learns(reference):
    assert reference[20] < 0.5 * reference[1]


@pytest.mark.parametrize("stage", [0, *(pytest.param(stage, marks=pytest.mark.nightly) for stage in (1, 2, 3))])
def test_two_workers_repeat_the_single_process_at_every_zero_stage(stage, reference, tmp_path):
    well(together(2, tmp_path, "--zero.stage", str(stage)))
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)
    assert (tmp_path / "toy" / "first" / "model" / "model.safetensors").stat().st_size > 4 * 1000


def test_torchrun_repeats_the_single_process(reference, tmp_path):
    well(launched(tmp_path, launcher=TORCHRUN))
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)


@pytest.mark.nightly
def test_accelerate_launch_repeats_the_single_process(reference, tmp_path):
    well(launched(tmp_path, launcher=ACCELERATE))
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)


def test_accumulation_repeats_the_whole_batch(reference, tmp_path):
    well(alone(tmp_path, "--first.micro-batch", "2", "--scaling.workers", "1"))
    assert losses(tmp_path) == pytest.approx(reference, abs=1e-5)


def test_a_killed_run_started_again_repeats_the_same_losses(reference, copy_of_killed):
    again = well(alone(copy_of_killed))
    assert "resuming run 'toy'" in again.said
    assert "at step 6" in again.said
    assert losses(copy_of_killed) == reference, "not one loss differs, none is missing, none comes twice"


def test_sigterm_leaves_a_checkpoint_and_the_same_command_goes_on(reference, tmp_path):
    stopped = alone(tmp_path, SPFEM_TOY_SIGNAL="8:TERM")
    assert stopped.code == 130, stopped.said
    assert "The same command continues" in stopped.said
    assert state(tmp_path)["status"] == "stopped"
    well(alone(tmp_path))
    assert losses(tmp_path) == reference


def test_a_finished_run_is_not_trained_again(finished, reference):
    again = well(alone(finished))
    assert "already finished at step 20" in again.said
    assert losses(finished) == reference


def test_a_loss_that_is_not_a_number_stops_the_run_with_its_name(tmp_path):
    failed = alone(tmp_path, "--first.optimizer.lr", "1e30", "--first.optimizer.clip", "0")
    assert failed.code == 1
    assert "toy/error became" in failed.err
    assert "Traceback" not in failed.err
