"""Who may work on a run: one process at a time, each with a number that is higher than all before it.

RUN/lock/000007.json    the seventh holder: its process and host, a token, how often its heart has beaten, and whether it has let go

The highest number holds the run. Once that one has let go, or is dead, whoever wants the run creates the next number, which storage
grants to one alone (`storage.create`). A process of this host is looked for; one of another host is dead when its heart has not beaten
for STALE_AFTER_S, by the clock of the one who watches: no clocks of two hosts are compared. The number goes into every manifest, and
a holder looks whether it still holds the run before it commits or removes anything: one that was taken for dead does no harm.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from spfem_dist.files import write_whole
from spfem_dist.redact import redact
from spfem_dist.storage import create, is_local, open_filesystem

log = logging.getLogger(__name__)

#: The holder's heart beats so often; one of another host whose heart stands still for so long is dead, seconds.
HEARTBEAT_S, STALE_AFTER_S = 10.0, 60.0
#: Pause between two looks at such a heart, seconds.
_LOOK_S = 1.0

#: Tokens of the locks that this process holds.
_held: set[str] = set()


class RunConflict(RuntimeError):
    """The run's name is taken by something else; the message says by what and what to do."""


class RunLock:
    """The lock of the run in `location` (a folder, or s3://bucket/prefix), which is called `name`."""

    def __init__(self, location: str, name: str = "") -> None:
        self.location = location.rstrip("/")
        self.name = name or self.location.rsplit("/", 1)[-1]
        self.fs, root = open_filesystem(self.location)
        self.folder = f"{root}/lock"

    def highest(self) -> int:
        """The number of the last who held the run, or 0."""
        return max(self._numbers(), default=0)

    def holder(self) -> dict[str, Any]:
        """Who holds the run, or held it when it died: `number`, `host`, `pid`, `created`, `started`, ...; empty where nobody does."""
        number = self.highest()
        found = self._read(number) if number else {}
        return {} if found.get("released") else found

    def check(self, number: int) -> None:
        """Raise RunConflict where the holder `number` has lost the run to another."""
        if (highest := self.highest()) > number:
            raise RunConflict(
                f"run {self.name!r} in {self.location} was taken over by {self._words(self._read(highest))}, for this process gave no "
                "sign of life for a while: it ends, and commits and removes nothing any more"
            )

    @contextmanager
    def held(self) -> Iterator[int]:
        """Hold the run while inside; gives the holder's number. Raises RunConflict where another living process holds it."""
        before = self.highest()
        if before:
            holder = self._read(before)
            if self._alive(before, holder):
                raise self._taken(holder)
        me = _me()
        mine, number = me | {"number": before + 1, "token": uuid.uuid4().hex, "beats": 0}, before + 1
        self.fs.makedirs(self.folder, exist_ok=True)
        _held.add(mine["token"])
        try:
            if not create(self.fs, self._path(number), json.dumps(mine).encode()):
                raise self._taken(self._read(number))
            if self.highest() > number:  # whoever took its time to look found a number that is gone
                self.fs.rm(self._path(number))
                raise self._taken(self._read(self.highest()))
            for old in self._numbers():
                if old < number:
                    with suppress(FileNotFoundError):
                        self.fs.rm(self._path(old))
            yield from self._hold(number, mine)
        finally:
            _held.discard(mine["token"])

    def _hold(self, number: int, mine: dict[str, Any]) -> Iterator[int]:
        stopped = threading.Event()
        beat = threading.Thread(target=self._beat, args=(number, mine, stopped), name="run-lock", daemon=True)
        beat.start()
        try:
            yield number
        finally:
            stopped.set()
            beat.join()
            try:
                self._write(number, mine | {"released": True})
            except OSError as error:  # what ended the run is news; the next start watches a heart that stands still
                log.warning("the lock of %s could not be let go: %s", self.location, redact(str(error)))

    def _beat(self, number: int, mine: dict[str, Any], stopped: threading.Event) -> None:
        beats, failing = 0, False
        while not stopped.wait(HEARTBEAT_S):
            try:
                if self.highest() > number:
                    log.error("run %r in %s was taken over by another process", self.name, self.location)
                    return
                beats += 1
                self._write(number, mine | {"beats": beats})
                failing = False
            except Exception as error:  # the next beat tries again, whatever it was
                if not failing:
                    log.warning("the lock of %s could not be renewed, trying on: %s", self.location, redact(str(error)))
                failing = True

    def _alive(self, number: int, holder: dict[str, Any]) -> bool:
        """Whether the holder `number` works still."""
        if holder.get("released"):
            return False
        me = _me()
        if holder and all(holder.get(key) == me[key] for key in ("host", "boot", "namespace")):
            same = _birth(holder["pid"]) == holder["birth"]
            return same and (holder["pid"] != os.getpid() or holder["token"] in _held)
        log.warning(
            "run %r in %s is held by %s: watching for %g s whether that is alive",
            *(self.name, self.location, self._words(holder), STALE_AFTER_S),
        )
        until = time.monotonic() + STALE_AFTER_S
        while time.monotonic() < until:
            time.sleep(min(_LOOK_S, STALE_AFTER_S / 10))
            if self.highest() > number:
                return True
            if (now := self._read(number)) != holder:
                return not now.get("released")
        return False

    def _taken(self, holder: dict[str, Any]) -> RunConflict:
        return RunConflict(
            f"run {self.name!r} in {self.location} is being trained by {self._words(holder)}. Wait for it or stop it; to train a "
            "second run beside it give another --name."
        )

    @staticmethod
    def _words(holder: dict[str, Any]) -> str:
        if not holder:
            return "another process"
        return f"process {holder['pid']} on {holder['host']} since {holder['started']}"

    def _numbers(self) -> list[int]:
        try:
            found = self.fs.ls(self.folder, detail=False)
        except FileNotFoundError:
            return []
        return [int(match[1]) for path in found if (match := re.search(r"/(\d+)\.json$", path))]

    def _path(self, number: int) -> str:
        return f"{self.folder}/{number:06d}.json"

    def _read(self, number: int) -> dict[str, Any]:
        """What a holder wrote; empty where it is gone, or its maker died before it had written."""
        try:
            found = json.loads(self.fs.cat_file(self._path(number)))
            return found if {"pid", "host", "started", "token", "birth"} <= set(found) else {}
        except (FileNotFoundError, ValueError, TypeError):
            return {}

    def _write(self, number: int, content: dict[str, Any]) -> None:
        if is_local(self.fs):
            write_whole(Path(self._path(number)), json.dumps(content))
        else:
            self.fs.pipe_file(self._path(number), json.dumps(content).encode())


def _me() -> dict[str, Any]:
    """This process and its place. A number of a process means something within one boot of one machine and one namespace alone:
    containers may share a host's name."""
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "namespace": _namespace(),
        "pid": process.pid,
        "created": process.create_time(),
        "birth": _birth(process.pid),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _birth(pid: int) -> str:
    """When the process `pid` was born; '' where there is none. A number comes back after a while, a number with its birth does not.

    In ticks since the machine started where /proc says so: seconds of the wall clock move when that is set.
    """
    if stat := _text(f"/proc/{pid}/stat"):
        state, *fields = stat.rsplit(")", 1)[-1].split()
        return "" if state in "ZX" else fields[18]  # dead, and not yet buried by its parent
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
