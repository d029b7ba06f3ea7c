"""Whether the Ray cluster that RAY_ADDRESS names is there: asked first, since Ray itself tries a dead address for a minute or more."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

#: Seconds for a connection.
PATIENCE_S = 5.0


class NoCluster(RuntimeError):
    """RAY_ADDRESS names no cluster that answers; the message says what to do."""


def refuse_dead_address() -> None:
    """Raise NoCluster where RAY_ADDRESS is set and nothing answers there. Seconds at most."""
    address = os.environ.get("RAY_ADDRESS", "")
    if not address or address in ("auto", "local"):
        return
    away = "start Ray there (`ray start --head`), correct RAY_ADDRESS, or unset it to start Ray on this machine"
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port or (10001 if parts.scheme == "ray" else 6379)
    except ValueError as error:
        raise NoCluster(
            f"RAY_ADDRESS is {address!r}, which is no address ({error}): give host:6379, or unset it"
        ) from None
    if parts.scheme in ("http", "https"):
        raise NoCluster(
            f"RAY_ADDRESS is {address}, the address of a dashboard, which takes `ray job submit` alone: submit the command as a job "
            "(ray job submit --working-dir . -- ...), or unset RAY_ADDRESS"
        )
    try:
        socket.create_connection((host or "", port), timeout=PATIENCE_S).close()
    except OSError as error:
        raise NoCluster(
            f"no Ray cluster answers at RAY_ADDRESS {address} ({error.strerror or error}): {away}"
        ) from None
