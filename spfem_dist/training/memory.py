"""Memory of a process that trains on a CPU: kept between steps, not given back to the system and asked for again."""

from __future__ import annotations

import ctypes

#: Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_memory() -> None:
    """Let the C library keep what one training step frees for the next.

    glibc makes every block above 32 MB a mapping of its own and hands it back when it is freed, so that the system clears the same
    pages anew at each step: more than a quarter of the time of a step whose tensors are that large. Does nothing where the library has no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
