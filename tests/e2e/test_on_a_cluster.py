"""One Ray cluster with a token, started as a user starts it, and what is done on one.

It knows secrets from every place that it may have them from, and all that it leaves is searched for them.
"""

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
import pytest
import toy_stage2
from doors import command, well
from flow import BIN, ENVIRONMENT, EXACT, call, losses, ok
from mlflow_server import mlflow_server
from moto_s3 import moto_s3
from toy_stage2 import RAY, alone, make_toy

pytestmark = pytest.mark.nightly

RECIPE = "recipes/cdrl_stage1.py"
#: Stage 2 in double precision: in single precision rounding grows with every step of networks that train against each other.
BRIEF = ["--ned.steps", "3", "--zero.precision", "fp64", "--validation.every-steps", "0"]

#: Where a secret comes from, and the value that must be found nowhere.
CANARIES = {
    "--tracking.uri": "canary-of-mlflow-5f1c",
    "AWS_SECRET_ACCESS_KEY": "canary-of-s3-77ab",
    "AWS_SESSION_TOKEN": "canary-of-the-session-09de",
    "RAY_AUTH_TOKEN": "canary-of-ray-c41e-c41e-c41e-c41e",
    "HF_TOKEN": "canary-of-the-hub-3b3b",
}


@dataclass(frozen=True)
class Running:
    """A cluster. place: short-named folder of all that it leaves behind; s3: the store that it knows; settings: of a terminal beside it."""

    place: Path
    address: str
    s3: str
    settings: dict[str, str]


def free_ports(count):
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]


def start_head(place, settings):
    """(process, address for drivers, dashboard's address) of a new Ray head node that takes jobs; (process, None, None) where it ended."""
    port, dashboard, client, agent = free_ports(4)
    words = ["start", "--head", "--block", "--num-cpus", "2", "--disable-usage-stats", "--port", port]
    # A folder of its own: the usual one goes on naming a head that is gone to every Ray on this machine. Short, since
    # the paths of sockets may have 107 characters at most.
    words += ["--temp-dir", str(place / "ray")]
    words += ["--dashboard-port", dashboard, "--ray-client-server-port", client, "--dashboard-agent-listen-port", agent]
    with (place / "said-by-ray-start").open("w") as said:
        head = subprocess.Popen([str(BIN / "ray"), *words], env=ENVIRONMENT | settings, stdout=said, stderr=said)
    address = f"http://127.0.0.1:{dashboard}"
    asked = urllib.request.Request(
        f"{address}/nodes?view=summary", headers={"Authorization": f"Bearer {settings['RAY_AUTH_TOKEN']}"}
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and head.poll() is None:
        with suppress(OSError), urllib.request.urlopen(asked, timeout=5) as answer:
            if '"ALIVE"' in answer.read().decode():
                return head, f"127.0.0.1:{port}", address
        time.sleep(0.5)
    return head, None, None


@pytest.fixture(scope="module")
def cluster():
    """A head node of its own, started as a user starts it; ended by its process, since `ray stop` would end every Ray here.

    Ray gives the parts of a node 15 s to start and ends it otherwise, which a busy machine may need: hence the attempts.
    """
    place = Path(tempfile.mkdtemp(prefix="can", dir="/tmp"))
    settings = {name: value for name, value in CANARIES.items() if not name.startswith("--")}
    settings |= {"RAY_AUTH_MODE": "token", "HOME": str(place / "home"), "SPFEM_HOME": str(place / "spfem")}
    settings |= {"AWS_ACCESS_KEY_ID": "a", "AWS_DEFAULT_REGION": "us-east-1"}
    settings |= {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1"}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        s3 = settings["AWS_ENDPOINT_URL_S3"] = stack.enter_context(moto_s3())
        for _ in range(3):
            head, address, dashboard = start_head(place, settings)
            stack.callback(end_all, head)
            if address:
                yield Running(place, dashboard, s3, settings | {"RAY_ADDRESS": address})
                return
            end_all(head)
    pytest.fail("the head node did not start in three attempts")


def end_all(head):
    """The parts of a node that are asked kindly take half a minute to go."""
    with suppress(psutil.NoSuchProcess):
        for part in (psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                part.kill()
    head.wait(60)


def test_more_workers_than_the_cluster_holds_are_refused_before_anything_starts(cluster, small, tmp_path):
    words = ["--scaling.gpu", "True", "--checkpoint.storage", tmp_path, "--tracking.uri", ""]
    refused = command("python", RECIPE, *small, *words, **cluster.settings)
    assert refused.code == 1
    assert "has 0 GPUs" in refused.said


def test_a_submitted_job_leaves_no_secret(cluster, exact, small):
    """The losses are those of one process, and no secret of the cluster is in its logs, in the run's folder or on a screen."""
    submit = ["ray", "job", "submit", "--address", cluster.address, "--working-dir", ".", "--", "python", RECIPE]
    flags = ["--name", "job", "--ccrl.enabled", "False", "--tracking.uri", "", *EXACT, *small]
    token = {name: cluster.settings[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "HOME")}
    done = ok(call(*submit, *flags, **token))
    (cluster.place / "said-to-who-submitted").write_text(done.stdout + done.stderr)
    runs = cluster.place / "spfem" / "runs"
    assert "starting run 'job'" in done.stdout
    assert "samples/s" in done.stdout, "the status line reaches the person who submitted the job"
    assert (runs / "job" / "cerl" / "model" / "model.safetensors").exists()
    assert losses(runs, "job", "cerl") == pytest.approx(exact["cerl"], abs=1e-5)
    assert_no_secret_in(cluster.place)


@pytest.fixture
def mlflow(cluster):
    """The address of a server."""
    (cluster.place / "mlflow").mkdir()
    with mlflow_server(f"sqlite:///{cluster.place}/mlflow/mlflow.db", cluster.place / "mlflow") as address:
        yield address


@pytest.fixture
def bucket(cluster):
    """A client of the cluster's S3, which has an empty bucket."""
    client = boto3.client(
        "s3",
        endpoint_url=cluster.s3,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key=CANARIES["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="bucket")
    return client


@pytest.mark.timeout(1200)
def test_stage_two_repeats_the_losses_of_one_process_and_no_secret_is_left(cluster, mlflow, bucket, tmp_path):
    """Checkpoints on S3, a tracking server behind a password, system metrics: output, Ray's logs, MLflow, the run's folder."""
    place, toy = cluster.place, make_toy(tmp_path / "toy")
    well(alone(toy, tmp_path / "alone", *BRIEF))
    places = ["--tracking.uri", f"http://me:{CANARIES['--tracking.uri']}@{mlflow.removeprefix('http://')}"]
    places += ["--tracking.register-models", "False"]
    done = well(command(*toy.words(RAY, "s3://bucket/runs", *BRIEF, *places), timeout=900, **cluster.settings))
    left = place / "bucket"
    for item in bucket.list_objects_v2(Bucket="bucket")["Contents"]:
        (left / item["Key"]).parent.mkdir(parents=True, exist_ok=True)
        bucket.download_file("bucket", item["Key"], str(left / item["Key"]))
    (place / "said").write_text(done.out + done.err)
    assert toy_stage2.losses(left / "runs") == pytest.approx(toy_stage2.losses(tmp_path / "alone"), abs=1e-5)
    facts = [
        json.loads((runs / "r" / "ned" / "model" / "config.json").read_text())["facts"]["priors"]
        for runs in (left / "runs", tmp_path / "alone")
    ]
    assert facts[0] == facts[1]

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlflow/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("cdrl").experiment_id])
    assert {run.info.run_name: run.info.status for run in runs} == {"r": "FINISHED", "r-ned": "FINISHED"}
    assert any("system/node_0/" in name for run in runs for name in run.data.metrics)
    # What is searched is what there is to search: a file that is known to be there, for each place.
    for kind in ("said", "bucket/runs/r/run.json", "mlflow/mlflow.db", "mlflow/log"):
        assert (place / kind).is_file(), kind
    assert list((place / "mlflow" / "artifacts").rglob("command.sh"))
    assert_no_secret_in(place)


def assert_no_secret_in(place):
    """Of all that lies there; but of the uploaded project, which this file is part of."""
    assert (place / "said-by-ray-start").is_file()
    assert list((place / "ray").rglob("*.log"))
    found = {name: places_of(secret, place) for name, secret in CANARIES.items()}
    assert not any(found.values()), found


def places_of(secret: str, folder: Path) -> list[str]:
    """The files under `folder` that hold `secret`, in their content or their name."""
    found = []
    for file in sorted(folder.rglob("*")):
        if "_ray_pkg_" in str(file) or not file.is_file() or file.is_symlink():
            continue
        if secret.encode() in file.read_bytes() or secret in str(file):
            found.append(str(file))
    return found
