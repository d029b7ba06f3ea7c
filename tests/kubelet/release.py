"""The chart's release as it is run here: its values, what the user made before, and the pods that it comes to."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import kuberay
from charts import of_kind, one, rendered
from comparing import TINY
from kubelet import Pod, Pods
from network import BIN, Host, Network, wait_for
from services import bucket_client
from small_corpus import SPLIT

Object = dict[str, Any]
NAMESPACE, OPERATOR = "ml", "kuberay-system"
S3_PORT = 9000
#: What nobody may print or keep: credentials that only Secrets hold.
S3_KEY = {"AWS_ACCESS_KEY_ID": "canary-key-id-4c1f", "AWS_SECRET_ACCESS_KEY": "canary-secret-key-9be27d"}
MORE = {"WORKERS_OWN_SECRET": "canary-of-the-environment-53aa"}
RUN = "rendered"


def values(s3: str) -> Object:
    """What a user with a store at that address would write to train stage 1 on two small CPU pods."""
    words = list(TINY)
    small = {"cpu": 1, "memory": "2Gi", "sharedMemory": "512Mi", "objectStore": "128Mi", "scratch": "4Gi"}
    return {
        "job": {
            "name": RUN,
            "workers": 2,
            "gpu": False,
            "flags": {
                name.removeprefix("--"): _typed(value) for name, value in zip(words[::2], words[1::2], strict=True)
            },
        },
        "storage": {
            "shards": "s3://faces/small",
            "split": "/etc/spfem/split.json",
            "runs": "s3://runs",
            "s3": {"endpoint": f"http://{s3}:{S3_PORT}", "region": "us-east-1", "existingSecret": "store"},
        },
        "ray": {
            "head": small,
            "workerGroups": [{"name": "cpu", "replicas": 2, **small}],
            "env": {
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "DS_ACCELERATOR": "cpu",
                "RAY_worker_niceness": "0",
            },
            "envFromSecrets": ["more"],
            "extraVolumes": [
                {"name": "split", "configMap": {"name": "split"}},
                {"name": "more", "secret": {"secretName": "more"}},
            ],
            "extraVolumeMounts": [
                {"name": "split", "mountPath": "/etc/spfem", "readOnly": True},
                {"name": "more", "mountPath": "/etc/more", "readOnly": True},
            ],
        },
        "mlflow": {"artifacts": "s3://mlflow/artifacts", "workers": 1},
        "networkPolicy": {"storage": {"cidrs": [f"{s3}/32"], "ports": [S3_PORT]}},
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "split", "namespace": "{{ .Release.Namespace }}"},
                "data": {"split.json": json.dumps(SPLIT)},
            }
        ],
    }


def _typed(text: str) -> object:
    try:
        return {"True": True, "False": False}[text] if text in ("True", "False") else int(text)
    except ValueError:
        return text


def secret(name: str, data: dict[str, str]) -> Object:
    """What `kubectl create secret generic NAME` makes."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": data,
    }


def workloads(objects: list[Object]) -> list[Object]:
    """The pods of Deployments and StatefulSets, as their controllers make them."""
    found = []
    for item in of_kind(objects, "Deployment", "StatefulSet"):
        for number in range(item["spec"]["replicas"]):
            pod, name = copy.deepcopy(item["spec"]["template"]), f"{item['metadata']['name']}-{number}"
            for claim in item["spec"].get("volumeClaimTemplates", []):
                volume = {"claimName": f"{claim['metadata']['name']}-{name}"}
                pod["spec"]["volumes"].append({"name": claim["metadata"]["name"], "persistentVolumeClaim": volume})
            meta = {"name": name, "namespace": item["metadata"]["namespace"], "labels": pod["metadata"]["labels"]}
            found.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod["spec"]})
    return found


def bare(name: str, namespace: str) -> Object:
    """A pod of someone else's: a place in the network without containers."""
    return {"metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}, "spec": {"containers": []}}


class Release:
    """The chart, installed and run: a store for S3 outside, MLflow, PostgreSQL, a Ray cluster and the pod that submits."""

    def __init__(self, network: Network, folder: Path):
        self.seconds: dict[str, float] = {}
        self.told: set[tuple[str, bytes]] = set()
        self.looks, self._over = 0, threading.Event()
        self.store: Host = network.add()
        self.objects = rendered(values(self.store.address))
        job = one(self.objects, "RayJob")
        self.cluster = kuberay.cluster_of(job)
        made = kuberay.objects_of(self.cluster)
        given = [secret("store", S3_KEY), secret("more", MORE)]
        ours = [item for item in [*self.objects, *made] if "namespace" in item["metadata"]]
        self.pods = Pods(network, folder, [*given, *ours])
        for manifest in [*workloads(self.objects), *of_kind(made, "Pod"), kuberay.submitter_of(job, self.cluster)]:
            self.pods.add(manifest)
        self.stranger, self.operator = (
            self.pods.add(bare(*who)) for who in (("stranger", NAMESPACE), ("operator", OPERATOR))
        )

    def pod(self, part: str) -> Pod:
        """The first pod whose label `spfem/component` says so."""
        return self.all(part)[0]

    def all(self, part: str) -> list[Pod]:
        return [pod for pod in self.pods.pods.values() if pod.labels.get("spfem/component") == part]

    @property
    def secrets(self) -> dict[str, str]:
        """Every secret value of the namespace, by a name; without the names of users that lie beside their passwords."""
        return {
            f"{item['metadata']['name']}/{key}": value
            for item in self.pods.kinds("Secret")
            for key, value in self.pod("head").values("Secret", item["metadata"]["name"]).items()
            if not key.endswith("USERNAME")
        }

    def look_at_arguments(self) -> None:
        """Note which secrets stand among the arguments of a process, which every user of its node may read; until `close`."""
        secrets = {name: value.encode() for name, value in self.secrets.items()}
        while not self._over.wait(0.3):
            self.looks += 1
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    words = process.read_bytes()
                    self.told |= {
                        (name, words.replace(b"\0", b" ")) for name, value in secrets.items() if value in words
                    }

    def start_store(self, shards: Path) -> None:
        """moto's server over HTTP at an address of its own, with the shards in it."""
        words = [BIN / "moto_server", "-H", self.store.address, "-p", S3_PORT]
        self._moto = self.store.start(*words, output=self.pods.folder / "moto.log")
        url = f"http://{self.store.address}:{S3_PORT}"
        self.bucket = bucket_client(url)
        wait_for("moto", lambda: subprocess.run(["curl", "-sf", url], capture_output=True).returncode == 0, 120)
        for name in ("faces", "runs", "mlflow"):
            self.bucket.create_bucket(Bucket=name)
        for file in shards.iterdir():
            if not file.name.startswith("."):
                self.bucket.upload_file(str(file), "faces", f"small/{file.name}")

    def run(self) -> None:
        """`helm install`, and what KubeRay does until the job has ended."""
        begin = time.monotonic()
        threading.Thread(target=self.look_at_arguments, daemon=True).start()
        self.pods.connect()
        # Pods of Ray one after the other: all at once is much for two cores, and a raylet waits 15 s for its agents.
        lasting = [
            [*self.all("postgresql"), *self.all("mlflow")],
            *([pod] for pod in self.all("head") + self.all("worker")),
        ]
        for pods in lasting:
            for pod in pods:
                pod.start()
            for pod in pods:
                pod.wait_ready()
        self.seconds["until all pods are ready"] = time.monotonic() - begin
        submitter, begin = self.pod("submitter"), time.monotonic()
        submitter.start()
        submitter.wait_done()
        self.seconds["from the submission to its end"] = time.monotonic() - begin
        self.status = self.ask_head()
        self.passed, self.refused = self.pods.flows()

    def ask_head(self, token: str | None = None) -> Object:
        """What the operator asks the head from its own namespace: the state of the job."""
        head = f"http://{self.cluster['metadata']['name']}-head-svc.{NAMESPACE}.svc.cluster.local:8265"
        path = f"/api/jobs/{kuberay.submission_of(self.pod('submitter').manifest)}"
        if token is None:
            token = self.secrets[f"{kuberay.token_name(self.cluster)}/auth_token"]
        return json.loads(self.fetch(self.operator, head + path, {"Authorization": f"Bearer {token}"}))

    def keys(self, bucket: str) -> list[str]:
        """Keys of a bucket."""
        pages = self.bucket.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, bucket: str, key: str) -> bytes:
        return self.bucket.get_object(Bucket=bucket, Key=key)["Body"].read()

    def fetch(self, pod: Pod, url: str, headers: dict[str, str] | None = None) -> str:
        """A page as a pod gets it, by its names and in its network."""
        config = "".join(f'header = "{name}: {value}"\n' for name, value in (headers or {}).items())
        hosts = pod.folder / "etc/hosts"
        words = ["nsenter", f"--net=/run/netns/{pod.network}", "unshare", "--mount", "sh", "-c"]
        words += [f'mount --bind "{hosts}" /etc/hosts; exec curl -sS --fail --max-time 20 --config - "{url}"']
        done = subprocess.run(words, input=config, capture_output=True, text=True)
        assert done.returncode == 0, f"{pod.name}: {url}: {done.stderr}"
        return done.stdout

    def reaches(self, source: Pod, target: Pod, port: int) -> bool:
        """Whether a connection between two pods is let through."""
        code = f"import socket; socket.create_connection(('{target.address}', {port}), 3).close()"
        words = ["nsenter", f"--net=/run/netns/{source.network}", sys.executable, "-c", code]
        return subprocess.run(words, capture_output=True).returncode == 0

    def show(self) -> None:
        for pod in self.pods.pods.values():
            print(f"=== {pod.name} {pod.failure}\n{pod.text()[-3000:]}")

    def close(self) -> None:
        self._over.set()
        self.pods.close()
        self.store.kill()


def logs(release: Release) -> dict[Path, str]:
    """Everything that the pods printed, and Ray's own logs in their volumes."""
    folder = release.pods.folder
    files = [*folder.glob("*/*.log"), *folder.glob("*/volumes/tmp/ray/session_*/logs/**/*")]
    return {file: file.read_text(errors="replace") for file in files if file.is_file() and not file.is_symlink()}
