"""Before Ray is imported: how its processes authenticate, and whether the cluster that RAY_ADDRESS names is there.

The address is asked first, since Ray itself tries a dead one for a minute or more.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from urllib.parse import urlsplit

#: Seconds for a connection.
PATIENCE_S = 5.0


class NoCluster(RuntimeError):
    """RAY_ADDRESS names no cluster that answers; the message says what to do."""


def authenticate() -> None:
    """Set RAY_AUTH_MODE where it is not set. Called before Ray is first imported, which reads it once.

    A Ray that this process starts for itself listens to the network; it gets a token that its own processes inherit and nobody
    else has. To a cluster that is there already nothing is added: its RAY_AUTH_MODE is the environment's business.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID") or "ray" in sys.modules:
        # Never left to Ray: a token file from an earlier start would turn authentication on for some processes only.
        os.environ["RAY_AUTH_MODE"] = "disabled"
        return
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


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
