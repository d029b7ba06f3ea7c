"""Memory for what is read again every epoch: opened groups and decoded recordings, within one bound."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any


class MemoryCache:
    """Keeps values until `limit_mb` MiB are full, then keeps what it has and takes no more.

    Every group is read equally often, in a new order each epoch: under such a scan, evicting the least recently used
    throws out what is needed next and a cache a little too small never hits, while the first that fit hit in every
    epoch. Safe to use from several threads.
    """

    def __init__(self, limit_mb: int):
        self.limit = limit_mb << 20
        self.used = 0
        self.hits = 0
        self.misses = 0
        self._kept: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any | None:
        """The kept value, or None."""
        with self._lock:
            value = self._kept.get(key)
            self.hits += value is not None
            self.misses += value is None
            return value

    def has_room(self, size: int) -> bool:
        """Whether a value of `size` bytes would be kept."""
        return self.used + size <= self.limit

    def put(self, key: Hashable, value: Any, size: int) -> bool:
        """Keep `value` of `size` bytes if it fits; whether it is kept."""
        with self._lock:
            if key in self._kept:
                return True
            if self.used + size > self.limit:
                return False
            self._kept[key] = value
            self.used += size
            return True
