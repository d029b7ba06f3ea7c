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
from network import BIN, ROOT, Host, Network, steps_of, wait_for

#: What `ray start` is given on every host: Ray's own words for noticing sooner that a host is gone.
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_raylet_start_wait_time_s": "200",
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
        host.environment |= {"SPFEM_STATUS_SECONDS": "0"}
        host.run("sh", "-c", f"cat > /tmp/home/split.json <<'END'\n{self.shared.split}\nEND")
        self.hosts.append(host)
        return host

    def _ray(self, host: Host, cpus: int, *flags: str) -> None:
        mine = [f"--node-ip-address={host.address}", f"--num-cpus={cpus}", "--disable-usage-stats"]
        host.run("ray", "start", *mine, "--object-store-memory=100000000", *flags, timeout=400)

    def rejoin(self, host: Host) -> None:
        """Start Ray again on a host that Ray gave up, as whoever watches over hosts does."""
        host.run("ray", "stop", "--force", timeout=60)
        self._ray(host, 1, f"--address={self.hosts[0].address}:6379")

    def repair(self) -> None:
        """Put a new host in the place of one that Ray no longer has."""
        alive = self.alive()
        for host in self.hosts[1:]:
            if host.address not in alive:
                self.hosts.remove(host)
                host.kill()
        while len(self.hosts) < 2:
            self.join()

    def drain(self, host: Host, seconds: int = 60) -> None:
        """Tell Ray that the host will be taken away, as the agent of a cloud does when a spot instance is reclaimed."""
        node = next(node for node in self.nodes() if node["node_ip"] == host.address and node["state"] == "ALIVE")
        words = ["--address", f"{self.hosts[0].address}:6379", "--node-id", node["node_id"]]
        words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot instance reclaimed"]
        self.hosts[0].run("ray", "drain-node", *words, "--deadline-remaining-seconds", seconds)

    def gone(self, host: Host, timeout: float = 90) -> float:
        """Wait until Ray counts the host as dead; returns the time (monotonic)."""
        wait_for(f"{host.name} counted as dead", lambda: host.address not in self.alive(), timeout)
        return time.monotonic()

    def alive(self) -> list[str]:
        """Addresses of the nodes that Ray counts as alive."""
        return [node["node_ip"] for node in self.nodes() if node["state"] == "ALIVE"]

    def nodes(self) -> list[dict]:
        """Every node that Ray has known."""
        return self.asked("v0/nodes?limit=1000")["data"]["result"]["result"]

    def training_workers(self) -> dict[str, tuple[str, str]]:
        """(Ray's job, address of the host) of every training worker that Ray knows of, of any time, by its actor."""
        by_id = {node["node_id"]: node["node_ip"] for node in self.nodes()}
        actors = self.asked("v0/actors?limit=10000&detail=1")["data"]["result"]["result"]
        workers = [a for a in actors if "RayTrainWorker" in a["class_name"] and a["node_id"] in by_id]
        return {worker["actor_id"]: (worker["job_id"], by_id[worker["node_id"]]) for worker in workers}

    def asked(self, what: str):
        """An answer of Ray's dashboard."""
        with urllib.request.urlopen(f"{self.dashboard}/api/{what}", timeout=20) as answer:
            return json.load(answer)

    def submit(self, name: str, *flags: str, program: tuple[str, ...] = ("recipes/cdrl_stage1.py",)) -> Job:
        """`ray job submit --working-dir . -- python recipes/cdrl_stage1.py ...`, from outside of the cluster."""
        job = Job(self, name, flags, program)
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

    def __init__(self, cluster: Cluster, name: str, flags: tuple[str, ...], program: tuple[str, ...]):
        self.cluster, self.name, self.output = cluster, name, cluster.logs / f"{name}.log"
        shared = cluster.shared
        places = ["--name", name, "--data.shards", "s3://faces/small", "--data.split", "/tmp/home/split.json"]
        places += ["--checkpoint.storage", "s3://runs", "--tracking.uri", shared.tracking]
        command = ["ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--"]
        command += ["python", *program, *places, *flags]
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
        return steps_of(self.text())

    def reach(self, step: int, timeout: float = 400) -> float:
        """Wait until a status line of `ccrl` shows that step; returns the time (monotonic)."""
        return self._until(f"step {step}", lambda: self.steps().get("ccrl", 0) >= step, timeout)

    def goes_on(self, workers: int, after: int, timeout: float = 400) -> float:
        """Wait for a step of so many resumed workers that is printed past character `after`; the time (monotonic)."""
        words = re.compile(rf"^ccrl: {workers} workers? resumed from .*\n(?:(?!ccrl: ).*\n)*ccrl \d+/", re.MULTILINE)
        return self._until(f"a step of {workers} after a resumption", lambda: words.search(self.text(), after), timeout)

    def _until(self, what: str, ready, timeout: float) -> float:
        def seen():
            if found := ready():
                return found
            status = self.process.poll()
            assert status is None, f"{self.name} ended with status {status} before {what}\n{self.text()[-5000:]}"
            return None

        wait_for(f"{self.name}: {what}", seen, timeout, every=0.1)
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
        """Stop it where it still runs: its driver too, which would hold the room that the next one needs."""
        if self.process.poll() is None:
            words = ["job", "stop", "--address", self.cluster.dashboard, self._submission()]
            with suppress(subprocess.TimeoutExpired):
                subprocess.run([BIN / "ray", *words], capture_output=True, timeout=120)
            self.process.kill()
            self.process.wait()

    def _submission(self) -> str:
        found = re.search(r"raysubmit_\w+", self.text())
        return found[0] if found else "none"

    def hosts(self) -> set[str]:
        """Addresses of the hosts on which Ray knows of a training worker of this job, of any time."""
        jobs = {job["job_id"] for job in self.cluster.asked("jobs/") if job["submission_id"] == self._submission()}
        return {address for job, address in self.cluster.training_workers().values() if job in jobs}
