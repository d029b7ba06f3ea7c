"""What is on its way to the tracking store: sent by a thread of its own, kept in a file while the store is away.

Putting an item costs a list append. Memory is bounded: past `limit` items, or past `limit_bytes` of pictures, they move to
the spool folder. Items arrive in the order they were put, spooled ones first. What cannot be delivered by `close` stays
in the spool folder, and the next outbox on the same folder sends it.
"""

from __future__ import annotations

import atexit
import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from spfem_dist.files import write_whole
from spfem_dist.redact import redact

log = logging.getLogger(__name__)

BATCH = 500
SPOOL_FILE = "waiting.jsonl"
TAKEN_FILE = "sending.jsonl"
REFUSED_FILE = "refused.jsonl"


@dataclass(frozen=True)
class Item:
    """One thing to deliver. kind: metric, tag, picture, artifact or status; `value` is what that kind holds.

    step: samples seen. time: milliseconds since 1970, fixed when the item was put, so sending twice adds nothing twice.
    picture: `value` is uint8 [H, W, 3] or, after spooling, PNG bytes. artifact: `value` is a path, `key` its folder.
    """

    kind: str
    key: str
    value: Any
    time: int
    step: int = 0

    def size(self) -> int:
        """Bytes that matter for memory: those of a picture."""
        return (
            self.value.nbytes
            if isinstance(self.value, np.ndarray)
            else len(self.value)
            if isinstance(self.value, bytes)
            else 0
        )


class Refused(Exception):
    """The store will never take these items (as opposed to: not now)."""


class Outbox:
    """A queue with a sending thread. `deliver(items)` sends or raises; `Refused` sets items aside, others are tried again."""

    def __init__(
        self,
        deliver: Callable[[list[Item]], None],
        spool: Path,
        name: str = "the tracking store",
        limit: int = 5000,
        limit_bytes: int = 64 * 2**20,
        interval: float = 1.0,
        longest_wait: float = 30.0,
    ):
        self._deliver, self._spool, self._name = deliver, Path(spool), name
        self._limit, self._limit_bytes, self._interval, self._longest_wait = limit, limit_bytes, interval, longest_wait
        self._items: list[Item] = []
        self._bytes = 0
        self._sending: list[Item] = []
        self._lost = 0
        self._failures = 0
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._closing = threading.Event()
        self._spool.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._work, name="spfem-tracking", daemon=True)
        self._thread.start()
        atexit.register(self.spool)

    def put(self, *items: Item) -> None:
        """Queue items for delivery; returns at once."""
        with self._lock:
            self._idle.clear()
            self._items += items
            self._bytes += sum(item.size() for item in items)
            if len(self._items) > self._limit or self._bytes > self._limit_bytes:
                self.spool()
        if len(self._items) > BATCH:
            self._wake.set()

    def spool(self) -> None:
        """Move everything in memory to the spool file, so that the process may die."""
        with self._lock:
            items, self._sending, self._items, self._bytes = self._sending + self._items, [], [], 0
            if not items:
                return
            try:
                with (self._spool / SPOOL_FILE).open("a", encoding="utf-8") as file:
                    file.writelines(_to_line(item) for item in items)
            except OSError as error:
                self._keep_newest(items, error)

    def _keep_newest(self, items: list[Item], error: OSError) -> None:
        """The spool cannot be written (a full disk): keep in memory what fits, and say what does not."""
        keep = items[-self._limit :]
        while sum(item.size() for item in keep) > self._limit_bytes:
            keep.remove(next(item for item in keep if item.size()))
        self._items, self._bytes = keep, sum(item.size() for item in keep)
        if len(keep) < len(items) and not self._lost:
            log.error("tracking items are being lost: %s cannot be written (%s); free space there", self._spool, error)
        self._lost += len(items) - len(keep)

    def waiting(self) -> int:
        """Number of items that have not been delivered."""
        with self._lock:
            return len(self._items) + len(self._sending) + sum(1 for _ in spooled(self._spool))

    def flush(self, timeout: float, patient: bool = False) -> bool:
        """Wait until everything is delivered, at most `timeout` seconds, or two failed tries where not `patient`.

        False when something is left.
        """
        deadline, failures, said = time.monotonic() + timeout, self._failures, False
        while not self._idle.is_set() and time.monotonic() < deadline:
            failed = self._failures >= failures + 2
            if failed and not patient:
                break
            if failed and not said:
                log.warning("waiting up to %.0f s for %s to take what is left", timeout, self._name)
                said = True
            if not failed:
                self._wake.set()
            self._idle.wait(0.1)
        return self._idle.is_set()

    def close(self, timeout: float = 20.0, patient: bool = False) -> int:
        """Deliver as `flush` does, leave the rest in the spool folder, stop; returns how many items are left."""
        self.flush(timeout, patient)
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=1.0)
        self.spool()
        atexit.unregister(self.spool)
        if self._lost:
            log.error("%d tracking items were lost for want of space in %s", self._lost, self._spool)
        left = sum(1 for _ in spooled(self._spool))
        if left:
            log.warning(
                "%d tracking items for %s wait in %s; they are sent when the run starts again",
                left,
                self._name,
                self._spool,
            )
        return left

    def _work(self) -> None:
        wait = self._interval
        while not self._closing.is_set():
            self._wake.wait(wait)
            self._wake.clear()
            try:
                self._send_everything()
                wait = self._interval
            except Exception as error:  # whatever went wrong, training goes on and the items are kept
                self.spool()
                if not self._failures:
                    log.warning(
                        "%s does not take data (%s); it is kept in %s and sent later",
                        self._name,
                        redact(error)[:300],
                        self._spool,
                    )
                self._failures += 1
                wait = min(max(2 * wait, 1.0), self._longest_wait)

    def _send_everything(self) -> None:
        sent = 0
        while not self._closing.is_set():
            sent += self._send_spooled()
            with self._lock:
                if (self._spool / SPOOL_FILE).exists():  # memory overflowed meanwhile, and that part is older
                    continue
                self._sending, self._items = self._items[:BATCH], self._items[BATCH:]
                self._bytes = sum(item.size() for item in self._items)
                batch = self._sending
                if not batch:
                    if self._failures and sent:  # said before whoever waits in `flush` is let go
                        log.warning("%s is back; %d items sent", self._name, sent)
                        self._failures = 0
                    self._idle.set()
                    break
            self._send(batch)
            sent += len(batch)
            with self._lock:
                self._sending = []

    def _send_spooled(self) -> int:
        """Deliver the spool file; overflow that comes meanwhile goes to a fresh one."""
        with self._lock:
            taken = self._spool / TAKEN_FILE
            if not taken.exists():
                if not (self._spool / SPOOL_FILE).exists():
                    return 0
                (self._spool / SPOOL_FILE).rename(taken)
        sent = 0
        try:
            for chunk in _chunks(_read(taken), BATCH):
                if self._closing.is_set():
                    break
                self._send(chunk)
                sent += len(chunk)
        finally:
            rest = list(islice(_read(taken), sent, None))
            if rest:
                write_whole(taken, "".join(_to_line(item) for item in rest))
            else:
                taken.unlink()
        return sent

    def _send(self, items: list[Item]) -> None:
        """Deliver `items`; those that the store will never take are set aside, and only those."""
        try:
            self._deliver(items)
        except Refused as error:
            if len(items) > 1:
                self._send(items[: len(items) // 2])
                self._send(items[len(items) // 2 :])
                return
            file = self._spool / REFUSED_FILE
            with file.open("a", encoding="utf-8") as lines:
                lines.write(_to_line(items[0]))
            log.error(
                "%s refuses %s %r: %s; it is kept in %s",
                self._name,
                items[0].kind,
                items[0].key,
                redact(error)[:300],
                file,
            )


def spooled(folder: Path) -> Iterator[Item]:
    """The items that wait in a spool folder, oldest first."""
    for name in (TAKEN_FILE, SPOOL_FILE):
        if (folder / name).exists():
            yield from _read(folder / name)


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def png(image: np.ndarray) -> bytes:
    """`image`, uint8 [H, W, 3] RGB, as PNG bytes."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def _to_line(item: Item) -> str:
    data = dict(vars(item))
    if item.kind == "picture":
        data["value"] = base64.b64encode(item.value if isinstance(item.value, bytes) else png(item.value)).decode()
    return json.dumps(data) + "\n"


def _read(file: Path) -> Iterator[Item]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                data = json.loads(line)
                if data["kind"] == "picture":
                    data["value"] = base64.b64decode(data["value"])
                yield Item(**data)
            except (ValueError, TypeError, KeyError):  # a line cut off when the process died
                log.warning("%s line %d is not a whole tracking item and is left out", file, number)


def _chunks(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
