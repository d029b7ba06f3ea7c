"""An S3 of one's own, over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager

from moto.moto_api._internal import moto_api_backend
from moto.server import ThreadedMotoServer


@contextmanager
def moto_s3() -> Iterator[str]:
    """The address of a server that lives, with all that it holds, while inside; empty at first, though moto keeps its buckets in the process."""
    moto_api_backend.reset()
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
