"""A kubelet in small: pods out of namespaces, with the addresses, volumes, environment, users and probes of their manifests.

A pod is a network namespace on one bridge. Each of its containers has a root of its own, laid over this machine's and closed to writing
where the manifest says so; the processes run as the manifest's user, without capabilities.
"""

from __future__ import annotations

import base64
import os
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import policies
from container import Container
from network import Network, ip

Object = dict[str, Any]


class Pods:
    """All pods of a test, and the objects that they refer to."""

    def __init__(self, network: Network, folder: Path, objects: list[Object]):
        self.network, self.folder = network, folder
        self.objects = {
            (item["kind"], item["metadata"]["namespace"], item["metadata"]["name"]): item for item in objects
        }
        self.pods: dict[str, Pod] = {}

    def add(self, manifest: Object) -> Pod:
        """A pod with an address; it is not started yet."""
        pod = Pod(self, manifest, f"{self.network.subnet}.{len(self.pods) + 11}")
        self.pods[pod.name] = pod
        return pod

    def kinds(self, kind: str) -> list[Object]:
        return [item for (found, *_), item in self.objects.items() if found == kind]

    def connect(self) -> None:
        """Give every pod its network, the names of all services, and the rules of the policies that choose it."""
        peers = [pod.peer for pod in self.pods.values()]
        names = [line for service in self.kinds("Service") for line in self._names(service)]
        for pod in self.pods.values():
            pod.plug_in(names)
            policies.enforce(
                pod.network, policies.rules_of(pod.peer, peers, self.kinds("NetworkPolicy"), self.network.address)
            )

    def _names(self, service: Object) -> list[str]:
        """A service's names as lines of /etc/hosts: those of the pod that it chooses."""
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        chosen = [
            pod
            for pod in self.pods.values()
            if pod.namespace == namespace and service["spec"]["selector"].items() <= pod.labels.items()
        ]
        assert len(chosen) == 1, f"service {name} chooses {[pod.name for pod in chosen]}: one pod is emulated"
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            number = target if isinstance(target, int) else chosen[0].port(target)
            assert number == port["port"], (
                f"service {name}: port {port['port']} leads to {number}, which is not emulated"
            )
        full = f"{name}.{namespace}.svc.cluster.local"
        return [f"{chosen[0].address} {full} {name}.{namespace}.svc {name}.{namespace} {name}"]

    def flows(self) -> tuple[set[policies.Flow], set[policies.Flow]]:
        """Every connection that passed, and every one that was refused, at either end."""
        names = {pod.address: pod.name for pod in self.pods.values()}
        passed, refused = set(), set()
        for pod in self.pods.values():
            here, not_here = policies.seen(pod.network, pod.peer, names)
            passed |= here
            refused |= not_here
        return passed, refused

    def close(self) -> None:
        for pod in self.pods.values():
            with suppress(Exception):
                pod.kill()


class Pod:
    """One pod. `start` runs its init containers one after the other, then its containers, and asks their probes."""

    def __init__(self, pods: Pods, manifest: Object, address: str):
        self.pods, self.manifest, self.address = pods, manifest, address
        meta = manifest["metadata"]
        self.name, self.namespace, self.labels, self.spec = (
            meta["name"],
            meta["namespace"],
            meta["labels"],
            manifest["spec"],
        )
        number = address.rpartition(".")[2]
        self.network, self.link = f"spfem{pods.network.id}p{number}", f"spfv{pods.network.id}-{number}"
        self.folder = pods.folder / self.name
        self.peer = policies.Peer(self.name, self.namespace, tuple(sorted(self.labels.items())), address)
        self.running: dict[str, Container] = {}
        self.made: list[Container] = []
        self.restarts = 0
        self.failure, self.thread = "", threading.Thread(target=self._live, daemon=True)
        self._over = threading.Event()

    def plug_in(self, names: list[str]) -> None:
        """Make its network, and the files by which it knows names."""
        bridge = self.pods.network
        ip("netns", "add", self.network)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.network)
        ip("link", "set", self.link, "master", bridge.bridge, "up")
        for words in (
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", bridge.address),
        ):
            ip("-n", self.network, *words)
        etc = self.folder / "etc"
        etc.mkdir(parents=True)
        hosts = ["127.0.0.1 localhost", f"{self.address} {self.name}", *names]
        (etc / "hosts").write_text("\n".join(hosts) + "\n")
        (etc / "hostname").write_text(self.name + "\n")
        (etc / "resolv.conf").write_text(f"search {self.namespace}.svc.cluster.local svc.cluster.local cluster.local\n")

    def port(self, name: str) -> int:
        """The container port of that name."""
        [found] = [
            port["containerPort"]
            for c in self.spec["containers"]
            for port in c.get("ports", [])
            if port.get("name") == name
        ]
        return found

    def start(self) -> None:
        for volume in self.spec.get("volumes", []):
            self._make_volume(volume)
        self.thread.start()

    def wait(self, what: str, ready, timeout: float) -> None:
        """Wait until `ready()`; a container that ends badly ends the wait."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self.failure:
                raise AssertionError(f"{self.name}: {self.failure}\n{self.text()[-5000:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} was not {what} within {timeout:g} s\n{self.text()[-5000:]}")
            time.sleep(0.3)

    def wait_ready(self, timeout: float = 400) -> None:
        self.wait("ready", lambda: self.is_ready, timeout)

    def wait_done(self, timeout: float = 480) -> None:
        """Wait until all containers of a pod that ends have ended well."""
        self.wait("done", lambda: not self.thread.is_alive() and not self.failure, timeout)

    @property
    def is_ready(self) -> bool:
        return len(self.running) == len(self.spec["containers"]) and all(c.is_ready for c in self.running.values())

    def text(self) -> str:
        """What its containers have printed."""
        return "".join(f"--- {p.stem}\n{p.read_text(errors='replace')}" for p in sorted(self.folder.glob("*.log")))

    def _live(self) -> None:
        try:
            for container in self.spec.get("initContainers", []):
                first = Container(self, container)
                self.made.append(first)
                first.start()
                if status := first.process.wait():
                    self.failure = f"init container {first.name} ended with status {status}"
                    return
            for container in self.spec["containers"]:
                self.running[container["name"]] = made = Container(self, container)
                self.made.append(made)
                made.start()
            self._watch()
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"

    def _watch(self) -> None:
        """Ask the probes until all containers have ended, or one of them ended that should not."""
        while not self._over.is_set():
            ended = {c.name: c.process.poll() for c in self.running.values()}
            if self.spec.get("restartPolicy") == "Never":
                if bad := {name: status for name, status in ended.items() if status}:
                    self.failure = f"ended with a status: {bad}"
                if None not in ended.values():
                    return
            for container in self.running.values():
                if ended[container.name] is None:
                    container.probe()
                elif self.spec.get("restartPolicy") != "Never":
                    self._restart(container)
            self._over.wait(0.5)

    def _restart(self, container: Container) -> None:
        """Start a container again that has ended; the volumes keep what it wrote."""
        self.restarts += 1
        if self.restarts > 5:
            self.failure = (
                f"{container.name} ended {self.restarts} times, now with status {container.process.returncode}"
            )
            self._over.set()
            return
        self._over.wait(5)
        container.kill()
        self.running[container.name] = made = Container(self, container.manifest)
        self.made.append(made)
        made.start()

    def _make_volume(self, volume: Object) -> None:
        """A folder for the volume, its files those of the object that it shows."""
        place = self.volume(volume["name"])
        place.mkdir(parents=True, exist_ok="persistentVolumeClaim" in volume)
        if (given := volume.get("emptyDir")) is not None:
            if given.get("medium") == "Memory":
                size = given["sizeLimit"].replace("Gi", "g").replace("Mi", "m")
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
        elif "configMap" in volume or "secret" in volume:
            kind, name = (
                ("ConfigMap", volume["configMap"]["name"])
                if "configMap" in volume
                else ("Secret", volume["secret"]["secretName"])
            )
            for key, value in self.values(kind, name).items():
                (place / key).write_text(value)
                (place / key).chmod(0o644)
        else:
            assert "persistentVolumeClaim" in volume, (
                f"{self.name}: the kind of volume {volume['name']} is not emulated"
            )
        group = self.spec.get("securityContext", {}).get("fsGroup", 0)
        os.chown(place, 0, group)
        place.chmod(0o2777)

    def volume(self, name: str) -> Path:
        """The folder that is the volume of that name; a claim's is the same for every pod."""
        [given] = [volume for volume in self.spec["volumes"] if volume["name"] == name]
        if claim := given.get("persistentVolumeClaim"):
            return self.pods.folder / "claims" / self.namespace / claim["claimName"]
        return self.folder / "volumes" / name

    def values(self, kind: str, name: str) -> dict[str, str]:
        """What a Secret or ConfigMap of its namespace holds."""
        item = self.pods.objects.get((kind, self.namespace, name))
        assert item is not None, f"{self.name}: there is no {kind} {name}"
        if kind == "ConfigMap":
            return item.get("data", {})
        return {key: base64.b64decode(value).decode() for key, value in item.get("data", {}).items()} | item.get(
            "stringData", {}
        )

    def kill(self) -> None:
        """End everything in it, at once."""
        self._over.set()
        for _ in range(2):  # the thread may be about to start another
            for container in self.made:
                container.kill()
            with suppress(RuntimeError):
                self.thread.join(10)
        for volume in self.spec.get("volumes", []):
            if volume.get("emptyDir", {}).get("medium") == "Memory":
                subprocess.run(["umount", "-l", self.volume(volume["name"])], capture_output=True)
        for words in (("link", "delete", self.link), ("netns", "delete", self.network)):
            with suppress(RuntimeError):
                ip(*words)
