"""`kubectl port-forward` in small: a port of this machine that leads to a port within a pod."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CLONE_NEWNET = 0x40000000


@contextmanager
def forward(network: str, port: int) -> Iterator[int]:
    """The number of a port on 127.0.0.1 that leads, while inside, to that port of 127.0.0.1 in a network namespace."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, network, port), daemon=True).start()
        yield server.getsockname()[1]


def _serve(server: socket.socket, network: str, port: int) -> None:
    """Accept out here, connect in there: a thread may be in another network than its process."""
    with suppress(OSError):
        while True:
            ours, _ = server.accept()
            try:
                theirs = _connect(network, port)
            except OSError:
                ours.close()
                continue
            for source, target in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _connect(network: str, port: int) -> socket.socket:
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{network}", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        return socket.create_connection(("127.0.0.1", port), 10)
    finally:
        libc.setns(here, CLONE_NEWNET)
        os.close(here)
        os.close(there)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
