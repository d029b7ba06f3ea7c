"""One container of a pod: its root, environment and user, its command, and its probes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from images import Image, image_of

if TYPE_CHECKING:
    from kubelet import Pod

Object = dict[str, Any]


class Container:
    """One container of a pod."""

    def __init__(self, pod: Pod, manifest: Object):
        self.pod, self.manifest, self.name = pod, manifest, manifest["name"]
        self.image: Image = image_of(manifest["image"])
        self.security = pod.spec.get("securityContext", {}) | manifest.get("securityContext", {})
        self.log, self.root = pod.folder / f"{self.name}.log", pod.folder / self.name
        self.given = self._environment()
        self.environment = {"HOSTNAME": pod.name, "HOME": "/", **self.image.environment, **self.given}
        self.is_ready, self._next, self._started = False, 0.0, time.monotonic()
        self.probes: dict[str, int] = {}

    def start(self) -> None:
        command = self.manifest.get("command") or self.image.start[:]
        words = [self._expand(word, self.given) for word in [*command, *self.manifest.get("args", [])]]
        workdir = self.manifest.get("workingDir", self.image.workdir)
        alone = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        outside = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{self.pod.network}", *alone]
        inside = (
            f'exec chroot {shlex.quote(str(self.root / "root"))} {shlex.join(self._as_user())} env -C {workdir} "$@"'
        )
        self._started = time.monotonic()
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*outside, "sh", "-c", self._mounts() + inside, self.name, *words],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _as_user(self) -> list[str]:
        """How its processes come to be the manifest's user, without capabilities and without ways to get them."""
        user, group = self.security["runAsUser"], self.security.get("runAsGroup", 0)
        groups = ",".join(str(g) for g in dict.fromkeys((group, self.security.get("fsGroup", group))))
        assert user or not self.security.get("runAsNonRoot"), f"{self.name} runs as root and may not"
        words = ["setpriv", f"--reuid={user}", f"--regid={group}", f"--groups={groups}"]
        if self.security.get("capabilities", {}).get("drop") == ["ALL"]:
            words += ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]
        return words + ([] if self.security.get("allowPrivilegeEscalation", True) else ["--no-new-privs"])

    def _mounts(self) -> str:
        """A shell's words that build its root: this machine's, with the image's folders and the pod's volumes over it."""
        base, root, etc = (shlex.quote(str(p)) for p in (self.root, self.root / "root", self.pod.folder / "etc"))
        self.root.mkdir()
        lines = [
            "set -e; mount --make-rprivate /",
            f"hostname {self.pod.name}; mount -t tmpfs tmpfs {base}; mkdir {base}/upper {base}/work {base}/root",
            f"mount -t overlay overlay -o lowerdir=/,upperdir={base}/upper,workdir={base}/work {root}",
            f"chmod 0711 {root}/root; cp --remove-destination {etc}/* {root}/etc/",
            *(f"echo {shlex.quote(line)} >> {root}/etc/passwd" for line in self.image.users),
        ]
        binds = [(str(folder), place) for place, folder in self.image.folders.items()]
        binds += [(str(self.pod.volume(m["name"])), m["mountPath"]) for m in self.manifest.get("volumeMounts", [])]
        # A path may lead through a link, such as /var/run, which means another place in the root than outside.
        inside = {place: f'{root}"$(chroot {root} realpath -m {place})"' for _, place in binds}
        lines += [f"chroot {root} mkdir -p {place}" for place in inside]
        lines += [
            f"mount -t proc proc {root}/proc; mount -t sysfs -o ro sysfs {root}/sys",
            f"mount -t tmpfs -o mode=755 tmpfs {root}/dev; mkdir {root}/dev/shm; mount -t tmpfs -o size=64m tmpfs {root}/dev/shm",
            f"for d in null zero full random urandom; do touch {root}/dev/$d; mount --bind /dev/$d {root}/dev/$d; done",
            f"ln -s /proc/self/fd {root}/dev/fd; ln -s /proc/self/fd/1 {root}/dev/stdout; ln -s /proc/self/fd/2 {root}/dev/stderr",
            *(f"mount --bind {shlex.quote(source)} {inside[place]}" for source, place in binds),
        ]
        read_only = list(self.image.folders)
        read_only += [m["mountPath"] for m in self.manifest.get("volumeMounts", []) if m.get("readOnly")]
        lines += [f"mount -o remount,bind,ro {inside[place]}" for place in read_only]
        if self.security.get("readOnlyRootFilesystem"):
            lines.append(f"mount -o remount,ro {root}")
        return "\n".join(lines) + "\n"

    def _environment(self) -> dict[str, str]:
        """What the manifest gives beside the image's own: envFrom's, then env's, which may name earlier ones as $(NAME)."""
        given: dict[str, str] = {}
        for source in self.manifest.get("envFrom", []):
            kind, key = ("Secret", "secretRef") if "secretRef" in source else ("ConfigMap", "configMapRef")
            values = self.pod.values(kind, source[key]["name"])
            given |= {source.get("prefix", "") + name: value for name, value in values.items()}
        for item in self.manifest.get("env", []):
            where = item.get("valueFrom")
            given[item["name"]] = self._from(where) if where else self._expand(item.get("value", ""), given)
        return given

    def _from(self, source: Object) -> str:
        if reference := source.get("secretKeyRef"):
            return self.pod.values("Secret", reference["name"])[reference["key"]]
        if reference := source.get("configMapKeyRef"):
            return self.pod.values("ConfigMap", reference["name"])[reference["key"]]
        path = source["fieldRef"]["fieldPath"]
        if label := re.fullmatch(r"metadata\.labels\['(.+)'\]", path):
            return self.pod.labels[label[1]]
        fields = {
            "metadata.name": self.pod.name,
            "metadata.namespace": self.pod.namespace,
            "status.podIP": self.pod.address,
        }
        return fields[path]

    @staticmethod
    def _expand(text: str, values: dict[str, str]) -> str:
        """$(NAME) becomes its value where there is one, and $$ becomes $."""
        return re.sub(r"\$\$|\$\(([^)]+)\)", lambda m: "$" if m[0] == "$$" else values.get(m[1], m[0]), text)

    def probe(self) -> None:
        """Ask the probe that it is time for: the start, until it succeeds; then whether it is ready and alive."""
        if time.monotonic() < self._next or self.process.poll() is not None:
            return
        begun = "startupProbe" not in self.manifest or self.probes.get("startupProbe")
        kinds = ["readinessProbe", "livenessProbe"] if begun else ["startupProbe"]
        asked = [(kind, self.manifest[kind]) for kind in kinds if kind in self.manifest]
        for kind, probe in asked:
            if time.monotonic() - self._started < probe.get("initialDelaySeconds", 0):
                continue
            well = self._ask(probe)
            self.probes[kind] = self.probes.get(kind, 0) + well
            if kind == "readinessProbe":
                self.is_ready = well
        if begun and "readinessProbe" not in self.manifest:
            self.is_ready = True
        every = min([probe.get("periodSeconds", 10) for _, probe in asked], default=10)
        self._next = time.monotonic() + (every if self.is_ready else 1)

    def _ask(self, probe: Object) -> bool:
        wait = probe.get("timeoutSeconds", 1)
        if "exec" in probe:
            try:
                inside = self.inside(*probe["exec"]["command"])
            except (OSError, IndexError):  # its first process is not there yet, or not any more
                return False
            return subprocess.run(inside, env=self.environment, capture_output=True).returncode == 0
        http = probe["httpGet"]
        port = http["port"] if isinstance(http["port"], int) else self.pod.port(http["port"])
        headers = {item["name"]: item["value"] for item in http.get("httpHeaders", [])}
        request = urllib.request.Request(f"http://{self.pod.address}:{port}{http['path']}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=max(wait, 5)) as answer:
                return 200 <= answer.status < 400
        except (OSError, urllib.error.URLError):
            return False

    @property
    def first(self) -> int:
        """Its first process."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def inside(self, *words: str) -> list[str]:
        """`kubectl exec`: the command that runs these words in it."""
        enter = ["nsenter", "-t", str(self.first), "--net", "--mount", "--pid", "--uts", "--ipc", "--root", "--wd=/"]
        return [*enter, *self._as_user(), *words]

    def kill(self) -> None:
        with suppress(ProcessLookupError, AttributeError):
            os.killpg(self.process.pid, 9)
            self.process.wait()
        shutil.rmtree(self.root, ignore_errors=True)
