"""Frames a second from S3 whose every answer comes late: our loader beside plain WebDataset through fsspec.

python benchmarks/s3_latency.py              # a small synthetic corpus in moto's server, 0 to 100 ms added to each request
python benchmarks/s3_latency.py --smoke      # few frames, one latency: does it run?

A server and, before it, a proxy that waits are processes of their own on this machine, so bandwidth is theirs and not a data centre's:
what is compared is what latency does. A row gives the micro-batches of `benchmarks/loader.py`, one pass over the groups:

  plain          WebDataset over fsspec's files, as an opener of three lines makes it; decoded as tutorials do
  first epoch    ours with its threads and prefetch, nothing fetched before: whole shards, checked against the index
  later epochs   ours, the shards in the local folder and decoded frames in memory as far as it goes
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import fsspec
import torch
import tyro
from figures import print_line
from loader import GROUPS, make_shards, measure, our_batches, plain_batches  # beside this file
from rich.console import Console
from rich.table import Table

from spfem_dist.config import Data
from spfem_dist.shard_format import ShardIndex
from spfem_dist.streaming.loader import Loader, Source
from spfem_dist.streaming.views import CONTENT

ROOT = Path(__file__).resolve().parents[1]

BUCKET = "faces"
ROWS = ("plain", "first epoch", "later epochs")


@contextmanager
def served(shards: Path) -> Iterator[str]:
    """The shards in a bucket behind a proxy; yields the proxy's address. Environment and processes are put back."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    store, address = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    proxy = [str(ROOT / "tests" / "faulty_s3.py"), "--upstream", store, "--port", str(ports[1])]
    processes = [
        subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(ports[0])], **quiet),  # type: ignore[call-overload]
        subprocess.Popen([sys.executable, *proxy], **quiet),  # type: ignore[call-overload]
    ]
    os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    try:
        _wait_for(f"{store}/moto-api/")
        _wait_for(f"{address}/-/faults")
        fs = fsspec.filesystem("s3")
        fs.mkdir(BUCKET)
        for path in [*shards.glob("*.tar"), *shards.glob("index.json")]:
            fs.put_file(str(path), f"{BUCKET}/{path.name}")
        yield address
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def _wait_for(address: str, patience_s: float = 120.0) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.2)
    sys.exit(f"{address} does not answer")


def delay(address: str, milliseconds: int) -> None:
    """From now on every answer comes so much later."""
    setting = {"share": float(milliseconds > 0), "kinds": ["slow"], "seconds": milliseconds / 1e3}
    request = urllib.request.Request(f"{address}/-/faults", json.dumps(setting).encode(), method="PUT")
    urllib.request.urlopen(request, timeout=30).close()


def one_round(shards: Path, groups: int, size: int, number: int) -> dict[str, float]:
    """Frames/s of every row."""
    batches = groups // GROUPS
    names = sorted(path.name for path in shards.glob("*.tar"))

    def speed(iterator: Iterator[torch.Tensor]) -> float:
        frames, wall, _ = measure(iterator)
        return frames / wall

    with tempfile.TemporaryDirectory() as cache:
        data = Data(shards=f"s3://{BUCKET}", split="none", size=size, decoder="pyav", cache=cache)
        source = Source(data)

        def ours(seed: int) -> float:
            with Loader(source.data, CONTENT, seed, 0, 1, GROUPS, draws_per_group=1, source=source) as loader:
                return speed(our_batches(loader, batches))

        plain = speed(plain_batches([f"s3://{BUCKET}/{name}" for name in names], size, True, number))
        return {"plain": plain, "first epoch": ours(number), "later epochs": ours(number + 1000)}


def main(
    shards: Path | None = None,
    size: int = 64,
    latencies: tuple[int, ...] = (0, 20, 100),
    rounds: int = 2,
    smoke: bool = False,
) -> None:
    """Every latency (ms) in turn, `rounds` times; print the table and one line of JSON."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    schemes = importlib.import_module(
        "webdataset.gopen"
    ).gopen_schemes  # the package's attribute of this name is a function
    schemes["s3"] = lambda url, mode="rb", bufsize=8192, **_: fsspec.open(url, mode).open()
    latencies, rounds = ((20,), 1) if smoke else (latencies, rounds)
    with tempfile.TemporaryDirectory() as folder:
        place = shards or make_shards(Path(folder), smoke, size)
        groups = sum(len(shard.groups) for shard in ShardIndex.load(place).shards)
        results: dict[int, list[dict[str, float]]] = {milliseconds: [] for milliseconds in latencies}
        with served(place) as address:
            for number in range(rounds):
                for milliseconds, found in results.items():
                    delay(address, milliseconds)
                    found.append(one_round(place, groups, size, number))
    table = Table("latency", *(f"{row}, frames/s" for row in ROWS), "first epoch / plain")
    facts = {}
    for milliseconds, found in results.items():
        row = {name: statistics.median(r[name] for r in found) for name in ROWS}
        ratio = statistics.median(r["first epoch"] / r["plain"] for r in found)
        facts[str(milliseconds)] = row | {"ratio": ratio}
        table.add_row(f"{milliseconds} ms", *(f"{row[name]:,.0f}" for name in ROWS), f"{ratio:.2f}")
    Console().print(table)
    print_line("s3_latency", latencies=facts, size=size, rounds=rounds)


if __name__ == "__main__":
    tyro.cli(main)
