"""Hosts out of namespaces: each has its own address, processes, /tmp, /dev/shm and home folder, on one bridge. Needs root.

A host dies with the first process of its namespace, as a machine does when its power goes; a link is cut at the bridge.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def unavailable() -> str:
    """Why there can be no hosts here, or ''."""
    if os.geteuid() != 0:
        return "hosts are made of network namespaces, which needs root"
    if missing := [name for name in ("ip", "tc", "unshare", "nsenter", "setpriv") if not shutil.which(name)]:
        return f"{', '.join(missing)} not found (Debian: iproute2, util-linux)"
    probe = f"spfemprobe{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if done.returncode:
        return f"network namespaces cannot be made here: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", probe], check=False)
    return ""


def ip(*words: object) -> str:
    """Run `ip WORDS`; its output. Raises with what it said."""
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """A bridge with hosts on it. `address` is the bridge's own, where services that all hosts use may listen."""

    def __init__(self) -> None:
        self.hosts: list[Host] = []
        self.id, self.subnet = _free_subnet()
        self.bridge, self.address = f"spfb{self.id}", f"{self.subnet}.254"
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{self.address}/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")

    def add(self, memory_mb: int = 1024) -> Host:
        """One more host, with `memory_mb` MiB for its /tmp."""
        host = Host(self, len(self.hosts) + 1, memory_mb)
        self.hosts.append(host)
        host.boot()
        return host

    def close(self) -> None:
        """Take everything away, whatever state it is in."""
        for host in self.hosts:
            with suppress(Exception):
                host.kill()
        with suppress(Exception):
            ip("link", "delete", self.bridge)


class Host:
    """One host. `run` and `start` start programs in it."""

    def __init__(self, network: Network, number: int, memory_mb: int):
        self.network, self.number, self.memory_mb = network, number, memory_mb
        self.name, self.link = f"spfem{network.id}h{number}", f"spfv{network.id}-{number}"
        self.address = f"{network.subnet}.{number}"
        self.environment: dict[str, str] = {}
        self._keeper: subprocess.Popen | None = None

    def boot(self) -> None:
        """Make the namespaces and the link, and mount what is the host's own."""
        ip("netns", "add", self.name)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", self.link, "master", self.network.bridge, "up")
        for words in (("addr", "add", f"{self.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            ip("-n", self.name, *words)
        ip("-n", self.name, "link", "set", "lo", "up")
        spaces = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        dies_with_us = ["setpriv", "--pdeathsig", "KILL"]
        command = [*dies_with_us, "ip", "netns", "exec", self.name, "unshare", *spaces, "sh", "-c", self._mounts()]
        self._keeper = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{self.name} did not start")
        children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children").read_text().split()
        self.first = int(children[0])

    def _mounts(self) -> str:
        """What the first process does: private folders, but the project and its interpreter stay visible where they are."""
        kept = [str(p) for p in dict.fromkeys((ROOT, BIN.parent.resolve())) if str(p).startswith("/tmp/")]
        before = "".join(f"mkdir -p /mnt/spfem{i}; mount --bind {p} /mnt/spfem{i}; " for i, p in enumerate(kept))
        after = "".join(f"mkdir -p {p}; mount --move /mnt/spfem{i} {p}; " for i, p in enumerate(kept))
        return (
            f"set -e; hostname {self.name}; {before}"
            f"mount -t tmpfs -o size={self.memory_mb}m tmpfs /tmp; mount -t tmpfs -o size=512m tmpfs /dev/shm; {after}"
            "mkdir -p /tmp/home; echo ready; exec sleep infinity"
        )

    def command(self, *words: object) -> list[str]:
        return ["nsenter", "-t", str(self.first), "-n", "-m", "-p", "-u", "-i", f"--wd={ROOT}", "--", *map(str, words)]

    def variables(self) -> dict[str, str]:
        """The environment of the host's programs: this process's, less what is Ray's or a test's, and its own."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTEST_", "SPFEM_", "AWS_"))}
        mine = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": "/tmp/home",
            "TMPDIR": "/tmp",
            "GLOO_SOCKET_IFNAME": "eth0",
        }
        return kept | mine | self.environment

    def run(self, *words: object, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess:
        """Run a program to its end."""
        done = subprocess.run(
            self.command(*words), env=self.variables(), capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode:
            raise RuntimeError(
                f"{self.name}: {' '.join(map(str, words))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            )
        return done

    def start(self, *words: object, output: Path) -> subprocess.Popen:
        """Start a program; what it prints goes to `output`."""
        with output.open("w") as file:
            return subprocess.Popen(
                self.command(*words),
                env=self.variables(),
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def cut(self) -> None:
        """Pull the plug of its network: what it sends is lost, and nobody is told."""
        ip("link", "set", self.link, "down")

    def mend(self) -> None:
        """Plug the network in again."""
        ip("link", "set", self.link, "up")

    def slow(self, megabits: float, delay_ms: float = 0) -> str:
        """Limit both directions of its link; with a delay where the kernel has netem. Returns which it was."""
        outward = ["ip", "netns", "exec", self.name, "tc", "qdisc", "replace", "dev", "eth0", "root"]
        inward = ["tc", "qdisc", "replace", "dev", self.link, "root"]
        netem = ["netem", "delay", f"{delay_ms}ms", "rate", f"{megabits}mbit"]
        if all(subprocess.run([*side, *netem], capture_output=True).returncode == 0 for side in (outward, inward)):
            return "netem"
        bucket = ["tbf", "rate", f"{megabits}mbit", "burst", "32kb", "latency", "2s"]
        for side in (outward, inward):
            subprocess.run([*side, *bucket], check=True, capture_output=True)
        return "tbf"

    def hurry(self) -> None:
        """Take the limits of `slow` away."""
        for side in (["ip", "netns", "exec", self.name, "tc"], ["tc"]):
            device = self.link if side == ["tc"] else "eth0"
            subprocess.run([*side, "qdisc", "delete", "dev", device, "root"], capture_output=True)

    def kill(self) -> None:
        """The power goes: every process of the host ends at once, and its link with it."""
        if self._keeper is not None:
            with suppress(ProcessLookupError):
                os.kill(self.first, signal.SIGKILL)
            with suppress(ProcessLookupError):
                self._keeper.kill()
            self._keeper.wait()
            self._keeper = None
        for words in (("link", "delete", self.link), ("netns", "delete", self.name)):
            with suppress(RuntimeError):
                ip(*words)


def _free_subnet() -> tuple[int, str]:
    """A number and a subnet that no interface here has."""
    taken = ip("-o", "addr")
    for number in ((os.getpid() + k) % 200 for k in range(200)):
        if f" 10.213.{number}." not in taken:
            return number, f"10.213.{number}"
    raise RuntimeError("no free subnet in 10.213.0.0/16: delete what is left of earlier hosts (`ip link`)")


def wait_for(what: str, ready, timeout: float = 90, every: float = 0.3):
    """The first true answer of `ready()`; RuntimeError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with suppress(OSError):
            if answer := ready():
                return answer
        time.sleep(every)
    raise RuntimeError(f"{what}: not within {timeout:g} s")


def steps_of(text: str) -> dict[str, int]:
    """The last step of each training job that the status lines in `text` show."""
    return {found[1]: int(found[2]) for found in re.finditer(r"^(\w+) (\d+)/\d+", text, re.MULTILINE)}
