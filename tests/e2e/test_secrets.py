"""A run under Ray with secrets in every place that it may have them from, and a search for them in everything that it leaves."""

import shutil
import sys
import tempfile
from pathlib import Path

import boto3
import pytest
from doors import command, well
from flow import EXACT, call, losses, ok
from mlflow_server import mlflow_server
from moto_s3 import moto_s3

#: Where a secret comes from, and the value that must be found nowhere.
CANARIES = {
    "--tracking.uri": "canary-of-mlflow-5f1c",
    "AWS_SECRET_ACCESS_KEY": "canary-of-s3-77ab",
    "AWS_SESSION_TOKEN": "canary-of-the-session-09de",
    "RAY_AUTH_TOKEN": "canary-of-ray-c41e-c41e-c41e-c41e",
    "HF_TOKEN": "canary-of-the-hub-3b3b",
}


@pytest.fixture
def place():
    """A folder with a short name, for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="can", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(place):
    """Where MLflow's server is, without the scheme."""
    (place / "mlflow").mkdir()
    with mlflow_server(f"sqlite:///{place}/mlflow/mlflow.db", place / "mlflow") as address:
        yield address.removeprefix("http://")


@pytest.fixture
def bucket(monkeypatch):
    """An S3 for checkpoints, and its client."""
    with moto_s3() as address:
        client = boto3.client(
            "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        client.create_bucket(Bucket="bucket")
        yield address, client


def places_of(secret: str, folder: Path) -> list[str]:
    """The files under `folder` that hold `secret`, in their content or their name."""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.is_symlink() and (secret.encode() in file.read_bytes() or secret in str(file)):
            found.append(str(file))
    return found


@pytest.mark.timeout(1200)
def test_two_ray_workers_repeat_the_local_losses_and_leave_no_secret(place, server, bucket, small, tmp_path):
    """Checkpoints on S3, a tracking server behind a password, system metrics: output, Ray's logs, MLflow, the run's folder."""
    address, s3 = bucket
    words = ["recipes/cdrl_stage1.py", "--name", "r", *small, "--cerl.enabled", "False", *EXACT]
    well(command("python", *words, "--local", "--checkpoint.storage", tmp_path, "--tracking.uri", ""))

    words += ["--tracking.uri", f"http://me:{CANARIES['--tracking.uri']}@{server}"]
    environment = {name: value for name, value in CANARIES.items() if not name.startswith("--")}
    environment |= {"AWS_ENDPOINT_URL_S3": address, "AWS_ACCESS_KEY_ID": "a", "AWS_DEFAULT_REGION": "us-east-1"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_TMPDIR": str(place / "ray"), "HOME": str(place / "home")}
    environment |= {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1"}
    done = ok(call(sys.executable, *words, "--checkpoint.storage", "s3://bucket/runs", timeout=900, **environment))

    left = place / "bucket"
    for item in s3.list_objects_v2(Bucket="bucket")["Contents"]:
        (left / item["Key"]).parent.mkdir(parents=True, exist_ok=True)
        s3.download_file("bucket", item["Key"], str(left / item["Key"]))
    (place / "said").write_text(done.stdout + done.stderr)
    assert losses(left / "runs", "r", "ccrl") == pytest.approx(losses(tmp_path, "r", "ccrl"), abs=1e-5)

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlflow/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("cdrl").experiment_id])
    assert {run.info.run_name: run.info.status for run in runs} == {"r": "FINISHED", "r-ccrl": "FINISHED"}
    assert any("system/node_0/" in name for run in runs for name in run.data.metrics)
    # What is searched is what there is to search: a file that is known to be there, for each place.
    for kind in ("said", "bucket/runs/r/run.json", "mlflow/mlflow.db", "mlflow/log"):
        assert (place / kind).is_file(), kind
    assert list((place / "mlflow" / "artifacts").rglob("command.sh"))
    assert list((place / "ray").rglob("*.log"))
    found = {name: places_of(secret, place) for name, secret in CANARIES.items()}
    assert not any(found.values()), found
