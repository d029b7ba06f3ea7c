"""Secrets in every place that a run may have them from, and a search for them in everything that it leaves."""

import shutil
import sys
import tempfile
from pathlib import Path

import boto3
import pytest
from flow import call, ok
from mlflow_server import mlflow_server
from moto_s3 import moto_s3
from toy_stage2 import make_toy

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
def test_no_secret_is_in_what_a_run_under_ray_leaves(place, server, bucket, tmp_path):
    """Two workers, checkpoints on S3, a tracking server behind a password, system metrics: output, Ray's logs, MLflow, the run's folder."""
    toy, (address, s3) = make_toy(tmp_path), bucket
    flags = ["--name", "r", "--data.shards", toy.shards, "--data.split", toy.split, "--data.size", "32"]
    flags += [
        "--checkpoint.storage",
        "s3://bucket/runs",
        "--tracking.uri",
        f"http://me:{CANARIES['--tracking.uri']}@{server}",
    ]
    flags += [
        "--cerl.enabled",
        "False",
        "--ccrl.steps",
        "4",
        "--ccrl.global-batch",
        "4",
        "--checkpoint.every-steps",
        "2",
    ]
    flags += [
        "--tracking.log-every-steps",
        "1",
        "--tracking.pictures-every-steps",
        "2",
        "--validation.every-steps",
        "2",
    ]
    environment = {name: value for name, value in CANARIES.items() if not name.startswith("--")}
    environment |= {"AWS_ENDPOINT_URL_S3": address, "AWS_ACCESS_KEY_ID": "a", "AWS_DEFAULT_REGION": "us-east-1"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_TMPDIR": str(place / "ray"), "HOME": str(place / "home")}
    environment |= {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1"}
    words = [sys.executable, "recipes/cdrl_stage1.py", *flags, "--validation.samples", "4"]
    done = ok(call(*words, timeout=900, **environment))

    left = place / "bucket"
    for item in s3.list_objects_v2(Bucket="bucket")["Contents"]:
        (left / item["Key"]).parent.mkdir(parents=True, exist_ok=True)
        s3.download_file("bucket", item["Key"], str(left / item["Key"]))
    (place / "said").write_text(done.stdout + done.stderr)

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
