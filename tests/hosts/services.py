"""What a cluster's hosts share, started as a user starts it: S3 over HTTP, PostgreSQL, MLflow's server."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from contextlib import suppress
from pathlib import Path

import boto3
from faulty_s3 import FaultyS3
from network import BIN, wait_for

KEYS = {
    "AWS_ACCESS_KEY_ID": "hosts",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-hosts",
    "AWS_DEFAULT_REGION": "us-east-1",
}
PASSWORD = "sesame-of-the-hosts"


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs, or None."""
    found = [Path(p).resolve().parent for p in (shutil.which("initdb"),) if p]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "postgres").exists()), None)


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


class Service:
    """A program that runs beside the hosts until `stop`."""

    def __init__(
        self, name: str, command: list, log: Path, ready, environment: dict[str, str] | None = None, user=None
    ):
        self.name, self.command, self.log, self.ready = name, [str(c) for c in command], log, ready
        self.environment, self.user, self.process = environment or {}, user, None

    def start(self) -> Service:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **({"user": self.user, "group": pwd.getpwnam(self.user).pw_gid} if self.user else {}),
            )
        try:
            wait_for(self.name, self._answers, 400)
        except RuntimeError as error:
            self.stop()
            raise RuntimeError(f"{error}\n{self.log.read_text()[-3000:]}") from None
        return self

    def _answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(
                f"{self.name} ended with status {self.process.returncode}\n{self.log.read_text()[-3000:]}"
            )
        return self.ready()

    def stop(self) -> None:
        """End it and what it started, at once."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


def s3(address: str, folder: Path) -> tuple[Service, FaultyS3]:
    """moto's server, and the server in front of it that can fail; clients talk to the latter."""
    port = free_port(address)
    inner = f"http://{address}:{port}"
    moto = Service(
        "moto", [BIN / "moto_server", "-H", address, "-p", port], folder / "moto.log", lambda: _ok(f"{inner}/moto-api/")
    ).start()
    return moto, FaultyS3(inner, (address, 0)).start()


def bucket_client(url: str):
    """A boto3 client of the server at `url`."""
    names = {"aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"]}
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **names)


def postgres(address: str, folder: Path) -> tuple[Service, str]:
    """A PostgreSQL cluster of its own with a database `mlflow`, and the URI that leads there."""
    programs, port = postgres_programs(), free_port(address)
    # Not in the tests' own folder: pytest shuts it to other users whenever another session of it starts.
    data = Path(tempfile.mkdtemp(prefix="spfem-postgres-"))
    atexit.register(shutil.rmtree, data, ignore_errors=True)
    user = "postgres" if _has_user("postgres") else "nobody"
    shutil.chown(data, user)
    secret = data / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    subprocess.run(
        [
            programs / "initdb",
            "-D",
            data / "db",
            "-U",
            "mlflow",
            "-A",
            "scram-sha-256",
            f"--pwfile={secret}",
            "--no-sync",
        ],
        check=True,
        capture_output=True,
        user=user,
        group=pwd.getpwnam(user).pw_gid,
        cwd="/",
    )
    with (data / "db/pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {address}/24 scram-sha-256\n")
    uri = f"postgresql://mlflow:{PASSWORD}@{address}:{port}/postgres"

    def ready():
        import psycopg2

        try:
            psycopg2.connect(uri, connect_timeout=2).close()
            return True
        except psycopg2.OperationalError:
            return False

    options = [
        "-c",
        f"listen_addresses={address}",
        "-c",
        f"port={port}",
        "-c",
        "fsync=off",
        "-c",
        f"unix_socket_directories={data}",
    ]
    service = Service(
        "postgres", [programs / "postgres", "-D", data / "db", *options], folder / "postgres.log", ready, user=user
    )
    return service.start(), uri


def mlflow(address: str, store: str, folder: Path) -> tuple[Service, str]:
    """MLflow's server on that database, files proxied to a folder of its own; not started yet."""
    port = free_port(address)
    url = f"http://{address}:{port}"
    command = [
        BIN / "mlflow",
        "server",
        "--backend-store-uri",
        store.replace("postgresql:", "postgresql+psycopg2:"),
        "--artifacts-destination",
        folder / "artifacts",
    ]
    command += ["--host", address, "--port", port, "--workers", "1"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Service("mlflow", command, folder / "mlflow.log", lambda: _ok(f"{url}/health"), quiet), url


def _ok(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=3) as answer:
        return answer.status == 200


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
        return True
    except KeyError:
        return False
