"""A Ray cluster on hosts, and a training job on it as a user submits one."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import services
from network import BIN, ROOT, Host, Network, wait_for

#: What `ray start` is given on every host: Ray's own words for noticing sooner that a host is gone.
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_worker_niceness": "0",  # 15 by default: beside anything else that runs here, workers would hardly be heard
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Shared:
    """The services on the bridge's address."""

    def __init__(self, network: Network, folder: Path):
        self.address, self.folder, self.running = network.address, folder, []

    def start(self, data: Path) -> None:
        """Start everything and fill the bucket."""
        moto, self.s3 = services.s3(self.address, self.folder)
        self.running.append(moto)
        self.bucket = services.bucket_client(self.s3.url)
        self.bucket.create_bucket(Bucket="faces")
        self.bucket.create_bucket(Bucket="runs")
        for file in (data / "shards").iterdir():
            if not file.name.startswith("."):
                self.bucket.upload_file(str(file), "faces", f"small/{file.name}")
        self.split = (data / "split.json").read_text()
        self.postgres, self.store = services.postgres(self.address, self.folder)
        self.running.append(self.postgres)
        self.mlflow, self.tracking = services.mlflow(self.address, self.store, self.folder)
        self.running.append(self.mlflow)
        self.mlflow.start()

    def stop(self) -> None:
        for service in reversed(self.running):
            with suppress(Exception):
                service.stop()
        with suppress(Exception):
            self.s3.stop()

    def objects(self, prefix: str) -> list[str]:
        """Keys in the bucket of runs."""
        pages = self.bucket.get_paginator("list_objects_v2").paginate(Bucket="runs", Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def json(self, key: str):
        """A JSON object of the bucket of runs, or None."""
        with suppress(self.bucket.exceptions.NoSuchKey):
            return json.loads(self.bucket.get_object(Bucket="runs", Key=key)["Body"].read())


class Cluster:
    """Ray on hosts with one CPU each; the first one is the head."""

    def __init__(self, network: Network, shared: Shared, logs: Path):
        self.network, self.shared, self.logs = network, shared, logs
        self.hosts: list[Host] = []
        self.jobs: list[Job] = []

    def head(self, cpus: int = 1) -> Host:
        host = self._boot()
        flags = ["--head", "--port=6379", f"--dashboard-host={host.address}", "--dashboard-port=8265"]
        self._ray(host, cpus, *flags)
        self.dashboard = f"http://{host.address}:8265"
        return host

    def join(self, cpus: int = 1) -> Host:
        host = self._boot()
        self._ray(host, cpus, f"--address={self.hosts[0].address}:6379")
        return host

    def _boot(self) -> Host:
        host = self.network.add()
        host.environment = RAY | services.KEYS | {"AWS_ENDPOINT_URL": self.shared.s3.url, "SPFEM_HOME": "/tmp/home"}
        self.hosts.append(host)
        return host

    def _ray(self, host: Host, cpus: int, *flags: str) -> None:
        mine = [f"--node-ip-address={host.address}", f"--num-cpus={cpus}", "--disable-usage-stats"]
        host.run("ray", "start", *mine, "--object-store-memory=100000000", *flags, timeout=400)

    def alive(self) -> list[str]:
        """Addresses of the nodes that Ray counts as alive."""
        done = subprocess.run(
            [BIN / "ray", "list", "nodes", "--address", self.dashboard, "--format", "json"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return [node["node_ip"] for node in json.loads(done.stdout) if node["state"] == "ALIVE"]

    def submit(self, name: str, *flags: str) -> Job:
        """`ray job submit --working-dir . -- python recipes/cdrl_stage1.py ...`, from outside of the cluster."""
        job = Job(self, name, flags)
        self.jobs.append(job)
        return job

    def show(self) -> None:
        """Print what the jobs said."""
        for job in self.jobs:
            print(f"--- {job.name}\n{job.text()[-6000:]}")

    def close(self) -> None:
        for job in self.jobs:
            job.end()
        for host in self.hosts:
            host.kill()


class Job:
    """A submitted training run."""

    def __init__(self, cluster: Cluster, name: str, flags: tuple[str, ...]):
        self.cluster, self.name, self.output = cluster, name, cluster.logs / f"{name}.log"
        shared = cluster.shared
        split = cluster.logs / "split.json"
        for host in cluster.hosts:
            host.run("sh", "-c", f"cat > /tmp/home/split.json <<'END'\n{shared.split}\nEND")
        split.write_text(shared.split)
        places = ["--name", name, "--data.shards", "s3://faces/small", "--data.split", "/tmp/home/split.json"]
        places += ["--checkpoint.storage", "s3://runs", "--tracking.uri", shared.tracking]
        command = ["ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--"]
        command += ["python", "recipes/cdrl_stage1.py", *places, *flags]
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [str(BIN / "ray"), *command[1:]],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def steps(self) -> dict[str, int]:
        """The last step of each job that the status lines show."""
        return {m[1]: int(m[2]) for m in re.finditer(r"(\w+) +(?:step )?(\d+)/\d+", self.text())}

    def reach(self, job: str, step: int, timeout: float = 400) -> float:
        """Wait until the status line shows that step; returns the time (monotonic)."""

        def ready():
            if self.process.poll() is not None and self.process.returncode:
                raise AssertionError(f"{self.name} ended with status {self.process.returncode}\n{self.text()[-5000:]}")
            return self.steps().get(job, 0) >= step or self.process.poll() is not None

        wait_for(f"{self.name}: {job} at step {step}", ready, timeout, every=0.1)
        return time.monotonic()

    def wait(self, timeout: float = 480) -> str:
        """Wait for its end, which must be a good one; returns what it printed."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout} s\n{self.text()[-6000:]}") from None
        assert self.process.returncode == 0, f"{self.name}: {self.process.returncode}\n{self.text()[-6000:]}"
        return self.text()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def nodes(self) -> list[str]:
        """Addresses of the hosts on which Ray knows of a training worker of any time."""
        with urllib.request.urlopen(
            f"{self.cluster.dashboard}/api/v0/actors?limit=10000&detail=1", timeout=20
        ) as answer:
            actors = json.load(answer)["data"]["result"]["result"]
        by_id = {}
        with urllib.request.urlopen(f"{self.cluster.dashboard}/api/v0/nodes?limit=1000", timeout=20) as answer:
            for node in json.load(answer)["data"]["result"]["result"]:
                by_id[node["node_id"]] = node["node_ip"]
        return sorted(
            {by_id[a["node_id"]] for a in actors if "RayTrainWorker" in a["class_name"] and a["node_id"] in by_id}
        )
