"""The page served: on this machine alone unless said otherwise, with no call to anywhere, and nothing left when it ends."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import os
import shutil
import signal
import socket
import sys
import threading
from importlib import resources
from pathlib import Path
from typing import Any

from spfem_dist import weights
from spfem_dist.generators.load import load_generator
from spfem_dist.web.editor import Editor
from spfem_dist.web.examples import examples
from spfem_dist.web.films import Limits, suffix_of
from spfem_dist.web.visits import SWEPT_EVERY, Visits

#: Gradio asks its makers for news and counts its starts unless these are set before it is imported.
SILENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
_INSTALL = "the page needs gradio: pip install 'spfem-dist[web]'"


def serve(
    address: str = "127.0.0.1",
    port: int = 7860,
    generator: str = "shipped",
    limits: Limits | None = None,
    tried: bool = True,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM. generator: as `load_generator` takes it. tried: with example films.

    Raises ModuleNotFoundError where gradio is missing, OSError where the address or port cannot be had, and what loading raises.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _want_gradio()
    here = listening(address, port)
    with here:
        visits = Visits()
        try:
            os.environ.update(SILENT, GRADIO_TEMP_DIR=str(visits.root))
            weights.ensure("face-mesh")
            films = examples() if tried else []
            editor = Editor(visits, load_generator(generator), generator, limits)
            _run(editor, films, here, address)
        finally:
            visits.close()


def application(editor: Editor, films: list[Path], hosts: list[str] | None = None) -> Any:
    """The page as an ASGI application. hosts: names of this server that a browser may use, None: any."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response

    from spfem_dist.web.page import page

    limits, visits = editor.limits, editor.visits
    outer = FastAPI(openapi_url=None)
    if hosts is not None:  # a page elsewhere whose name points to this machine is not to reach it
        outer.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)

    async def upload(request: Request) -> Response:
        """In place of gradio's, which keeps files by the names and contents that users gave them."""
        size = request.headers.get("content-length", "")
        if not size.isdigit():
            return PlainTextResponse("The size of the upload is not stated.", status_code=411)
        if int(size) > limits.bytes + 10_000:  # what surrounds the file in the request
            return PlainTextResponse(f"Films of up to {limits.megabytes} MB are taken here.", status_code=413)
        async with request.form(max_files=1, max_fields=1) as form:
            file = form.get("files")
            if file is None or isinstance(file, str):
                return PlainTextResponse("There is no film in the upload.", status_code=400)
            path = visits.upload(suffix_of(file.filename or ""))
            await run_in_threadpool(_copied, file.file, path)
        return JSONResponse([str(path)])

    async def progress(request: Request) -> Response:
        """The browser asks how far its upload is, which here it knows better."""
        return PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    outer.add_route("/gradio_api/upload", upload, methods=["POST"])
    outer.add_route("/gradio_api/upload_progress", progress, methods=["GET"])
    return gr.mount_gradio_app(
        outer,
        page(editor, films),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=limits.bytes,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        theme=gr.themes.Base(
            primary_hue="teal",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        css=resources.files("spfem_dist.web").joinpath("page.css").read_text(),
    )


def _run(editor: Editor, films: list[Path], here: socket.socket, address: str) -> None:
    import uvicorn

    local = loopback(address)
    application_ = application(editor, films, ["127.0.0.1", "localhost", "[::1]"] if local else None)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = uvicorn.Config(application_, log_level="error", access_log=False, timeout_graceful_shutdown=2)
    host = f"[{address}]" if ":" in address else address
    print(f"http://{host}:{here.getsockname()[1]}/ (Ctrl-C ends it, and deletes what was dropped)", flush=True)
    if not local:
        print(
            f"{address} is no address of this machine alone: whoever reaches it can drop films here and use its processor, "
            "without a password and unencrypted. Put a server with both before it.",
            flush=True,
        )
    server = uvicorn.Server(config)
    # Pages that are open when it stops are cut off; each would be a page of traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
    ended = threading.Event()
    threading.Thread(target=_sweep, args=(editor.visits, ended), daemon=True).start()
    try:
        server.run(sockets=[here])
    finally:
        ended.set()


def _sweep(visits: Visits, ended: threading.Event) -> None:
    while not ended.wait(SWEPT_EVERY):
        visits.sweep()


def _copied(source: Any, path: Path) -> None:
    with path.open("xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _want_gradio() -> None:
    """Before anything else is done; it is imported later, when its settings are there."""
    if importlib.util.find_spec("gradio") is None:
        raise ModuleNotFoundError(_INSTALL)


def loopback(address: str) -> bool:
    """Whether only this machine reaches `address`."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def listening(address: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError where it cannot."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family)
    except OSError as error:
        raise OSError(
            f"{address}:{port} cannot be listened on ({error.strerror}): give another --port or --address"
        ) from error
