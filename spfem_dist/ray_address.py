"""Where Ray runs: before it is imported, how its processes authenticate and whether the cluster that RAY_ADDRESS names is there; then
its start on this machine.

The address is asked first, since Ray itself tries a dead one for a minute or more.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from urllib.parse import urlsplit

from spfem_dist.redact import redact

#: Seconds for a connection.
PATIENCE_S = 5.0
#: How often Ray is started on this machine before that has failed.
STARTS = 3


class NoCluster(RuntimeError):
    """No cluster answers at RAY_ADDRESS, or none could be started here; the message says what to do."""


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
    except ValueError:  # whose text may hold a part of a password
        raise NoCluster(
            f"RAY_ADDRESS is {redact(address)!r}, which is no address: give host:6379, or unset it"
        ) from None
    if parts.scheme in ("http", "https"):
        raise NoCluster(
            f"RAY_ADDRESS is {redact(address)}, the address of a dashboard, which takes `ray job submit` alone: submit the command as a job "
            "(ray job submit --working-dir . -- ...), or unset RAY_ADDRESS"
        )
    try:
        socket.create_connection((host or "", port), timeout=PATIENCE_S).close()
    except OSError as error:
        raise NoCluster(
            f"no Ray cluster answers at RAY_ADDRESS {address} ({error.strerror or error}): {away}"
        ) from None


def start_here(cpus: int) -> None:
    """Start Ray on this machine, with so many CPUs. Raises NoCluster where a busy machine keeps it from starting STARTS times.

    Ray gives the parts of a node 15 s to come up, and then ends the node; no setting changes that.
    """
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
            return
        except Exception as error:
            if type(error) is not Exception or "during startup" not in str(error):  # Ray has no class for it
                raise
            load = os.getloadavg()[0] / (os.cpu_count() or 1)
            busy = f"Ray did not start within its time; this machine has {load:.1f} processes for each core"
            if attempt == STARTS:
                raise NoCluster(
                    f"{busy}, and it was tried {STARTS} times: try again when less runs beside it, or train without Ray (--local)"
                ) from error
            print(f"{busy}: it is started again", file=sys.stderr, flush=True)
