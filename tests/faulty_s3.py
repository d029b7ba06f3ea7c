"""An S3 server that fails: a seeded proxy in front of moto's server, counting what it did.

python tests/faulty_s3.py --upstream http://127.0.0.1:5000 --port 5001 --share 0.3 --seed 0

GET /-/faults answers with the counts as JSON; PUT /-/faults sets `share`, `kinds` and `seconds`, or `down: true`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

#: error: 500; busy: 503 SlowDown; slow: the answer comes late; refuse: the connection is reset before the request is carried out;
#: lost: it is carried out, and the connection reset before the answer; reset: reset in the middle of the body; cut: closed there;
#: short: a body shorter than the object that claims to be whole.
KINDS = ("error", "busy", "slow", "refuse", "lost", "reset", "cut", "short")
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "server", "date"}
_ANSWERS = {"error": (500, "InternalError"), "busy": (503, "SlowDown")}


class FaultyS3(ThreadingHTTPServer):
    """share: of requests that fail. seconds: of a slow answer. Attributes: `faults` and `requests`, counted by kind and method."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str, address=("127.0.0.1", 0), share=0.0, seed=0, kinds=KINDS, seconds=0.5):
        super().__init__(address, _Proxy)
        self.upstream = urlsplit(upstream)
        self.share, self.kinds, self.seconds, self.down = share, tuple(kinds), seconds, False
        self.faults: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self._random, self._lock = random.Random(seed), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def start(self) -> FaultyS3:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def draw(self, method: str, key: str) -> str:
        """The fault of the next request, or ''."""
        with self._lock:
            self.requests[method] += 1
            if self.down:
                return "refuse"
            kind = self._random.choice(self.kinds) if self.kinds and self._random.random() < self.share else ""
            if kind in ("reset", "cut", "short") and method != "GET":
                kind = "error"
            if kind:
                self.faults[kind] += 1
                self.faults[f"{method} {_class(key)}"] += 1
                self.faults["all"] += 1
            return kind

    def handle_error(self, request, client_address) -> None:
        """Clients that went away are what this server is about."""


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Expect", "").lower() == "100-continue":
            pass  # the base class has answered it
        body = self.rfile.read(size) if size else b""
        if self.path == "/-/faults":
            return self._control(body)
        kind = self.server.draw(self.command, self.path)
        if kind == "refuse":
            return self._reset()
        if kind in _ANSWERS:
            status, code = _ANSWERS[kind]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            return self._answer(status, [("Content-Type", "application/xml")], text)
        if kind == "slow":
            time.sleep(self.server.seconds)
        status, headers, content = self._forward(body)
        if kind == "lost":
            return self._reset()
        if kind in ("reset", "cut", "short") and len(content) > 1:
            part = content[: len(content) // 2]
            self._answer(status, headers, part, claim=len(part) if kind == "short" else len(content))
            if kind != "short":
                self.wfile.flush()
                time.sleep(0.02)
                self._reset() if kind == "reset" else self._close()
            return None
        return self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _control(self, body: bytes) -> None:
        server = self.server
        if self.command == "PUT":
            for key, value in json.loads(body).items():
                setattr(server, key, value)
        counts = {"faults": server.faults, "requests": server.requests, "share": server.share}
        self._answer(200, [("Content-Type", "application/json")], json.dumps(counts).encode())

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(self.server.upstream.hostname, self.server.upstream.port, timeout=60)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP | {"expect"}}
            upstream.request(self.command, self.path, body=body or None, headers=headers)
            answer = upstream.getresponse()
            kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP]
            return answer.status, kept, answer.read()
        finally:
            upstream.close()

    def _answer(self, status, headers, content: bytes, claim: int | None = None) -> None:
        self.send_response_only(status)
        for key, value in headers:
            if key.lower() != "content-length" or self.command == "HEAD":
                self.send_header(key, value)
        if self.command != "HEAD" and status not in (204, 304):
            self.send_header("Content-Length", str(len(content) if claim is None else claim))
        elif not any(key.lower() == "content-length" for key, _ in headers):
            self.send_header("Content-Length", "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self) -> None:
        """End the connection by RST: the peer reads ECONNRESET."""
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()

    def _close(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.close()

    def log_message(self, *_arguments) -> None:
        return


def _class(key: str) -> str:
    """Which kind of file a request is for: shard, index, checkpoint or another one of a run, or a listing."""
    path = key.split("?")[0]
    if path.endswith(".tar"):
        return "shard"
    if "checkpoint_" in path:
        return "checkpoint"
    return "index" if path.endswith("/index.json") else "file" if "." in path.rsplit("/", 1)[-1] else "listing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--share", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.5)
    given = parser.parse_args()
    server = FaultyS3(given.upstream, (given.host, given.port), given.share, given.seed, KINDS, given.seconds)
    print(f"serving on {server.url}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
