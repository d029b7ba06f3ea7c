"""Set before torch, numpy or Ray are imported: tests share few cores, and Ray's authentication is never left to chance."""

import glob
import os
import sys

import pytest

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# Ray gives its workers the least of a shared processor, and the longest tests wait for them while other tests run beside.
os.environ.setdefault("RAY_worker_niceness", "0")
if not glob.glob("/dev/nvidia[0-9]*"):
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("SPFEM_STATUS_SECONDS", "0")  # tests wait for steps by their lines
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# Five processes beside each server, for judges that nobody asks.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):  # a developer's own cluster and store are not for tests
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def mesh() -> str:
    """The name of the finder; its tests are skipped where its weights cannot be had."""
    from pulled import pulled

    pulled("face-mesh")
    return "mesh"


#: Files whose tests wait for clusters and trainings take minutes: begun last, one of them would keep the suite waiting alone.
LONGEST_FIRST = (
    *("e2e/test_on_a_cluster.py", "training/test_cluster.py", "e2e/test_commands.py", "e2e/test_stage1.py"),
    *("generators/test_stage2.py", "training/test_elastic.py", "chaos/test_chaos.py"),
    *("evaluation/test_judges.py", "training/test_loop.py", "training/test_phases.py", "training/test_watchdog.py"),
    *("tests/test_export.py", "tests/test_bad_input.py", "tests/test_benchmarks.py", "editing/test_edit_command.py"),
    *("planning/test_plan_command.py", "priors/test_released_ccrl_parity.py", "evaluation/test_generator.py"),
    *("faults/test_inject.py", "doctor/test_doctor.py", "evaluation/test_leaderboard.py", "prepare/test_job.py"),
)


def pytest_collection_modifyitems(items):
    """With `--dist loadfile --no-loadscope-reorder` files are given out in this order."""

    def place(item):
        path = item.path.as_posix()
        return next((n for n, name in enumerate(LONGEST_FIRST) if path.endswith(name)), len(LONGEST_FIRST))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def s3_as_the_environment_says():
    """s3fs keeps its clients for whoever names the same bucket; a test's server must not outlive the test."""
    yield
    if "s3fs" in sys.modules:
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()
    if "spfem_dist.s3" in sys.modules:
        sys.modules["spfem_dist.s3"].PatientS3.clear_instance_cache()
