"""How long a worker takes to open an index of very many shards and to find any sample of it, and in how much memory.

    python benchmarks/index.py                       # 1,000,000 shards of 25 groups, 4 draws each: 100,000,000 samples
    python benchmarks/index.py --smoke               # a small one: does it run?

The index alone is made, of groups of four recordings, in a temporary folder (4 GB). A process of its own then opens it as a worker does.
The same index as JSON, where it is small enough (--json-shards), is what the table is compared with.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import tyro
from figures import print_line

from spfem_dist.corpora.splits import Part
from spfem_dist.emotions import SEVEN
from spfem_dist.shard_format import IndexFacts, ShardIndex, digest_of
from spfem_dist.shard_table import SCHEMA, name_table
from spfem_dist.streaming.order import Order
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.streaming.views import CONTENT

RECORDINGS = 4
SPEAKERS = 20_000


@dataclass
class Options:
    """What is measured."""

    shards: int = 1_000_000
    """Shards of the index."""
    groups: int = 25
    """Utterance groups of each."""
    draws: int = 4
    """Samples of each group for each epoch."""
    json_shards: int = 20_000
    """Shards of the index that is measured as JSON too."""
    seed: int = 0
    """Of the order, and of which samples are looked for."""
    smoke: bool = False
    """A few shards only."""
    opened: str = ""
    """Internal: open the index in this folder, and say how that went."""


def batches(shards: int, groups: int, digests: list[str]) -> Iterator[pa.RecordBatch]:
    """The table, made column by column."""
    emotions = [e.value for e in SEVEN[:RECORDINGS]]

    def words(numbers: np.ndarray, values: list[str]) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32)), pa.array(values))

    def offsets(n: int, each: int) -> pa.Array:
        return pa.array(np.arange(n + 1, dtype=np.int32) * each)

    for first in range(0, shards, 4096):
        some = range(first, min(first + 4096, shards))
        n, m = len(some) * groups, len(some) * groups * RECORDINGS
        shown = np.arange(m) % RECORDINGS
        ones = pa.array(np.ones(m, np.int32))
        frames = pa.array((60 + np.arange(m) % 60).astype(np.int32))
        names = words(shown, [f"{e}-1-1" for e in emotions])
        kind = SCHEMA.field("groups").type.value_type
        recordings = pa.StructArray.from_arrays(
            [names, words(shown, emotions), ones, ones, frames], fields=list(kind.field("recordings").type.value_type)
        )
        speaker = np.repeat(np.array(some) % SPEAKERS, groups)
        keys = [f"S{s % SPEAKERS:05d}_{s}x{g}" for s in some for g in range(groups)]
        place = np.tile(np.arange(groups, dtype=np.int64) * 262_144, len(some))
        columns = [
            pa.array(keys),
            words(speaker, [f"S{s:05d}" for s in range(SPEAKERS)]),
            words(np.arange(n), [key.split("_")[1] for key in keys]),
            pa.array(place),
            pa.array(np.full(n, 262_144, np.int64)),
            pa.ListArray.from_arrays(offsets(n, RECORDINGS), recordings),
        ]
        entries = pa.StructArray.from_arrays(columns, fields=list(kind))
        size = pa.array(np.full(len(some), groups * 262_144 + 1024, np.int64))
        names = pa.array([f"shard-{s:06d}.tar" for s in some])
        digest = pa.array([digests[s] for s in some])
        lists = pa.ListArray.from_arrays(offsets(len(some), groups), entries)
        yield pa.RecordBatch.from_arrays([names, size, digest, lists], schema=SCHEMA)


def make(folder: Path, shards: int, groups: int) -> None:
    """Write the index."""
    digests = [hashlib.sha256(str(s).encode()).hexdigest() for s in range(shards)]
    with pa.OSFile(str(folder / "index.arrows"), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as stream:
        for batch in batches(shards, groups, digests):
            stream.write_batch(batch)
    facts = {"corpus": "made", "fps": 25, "size": 64, "speech_features": "logmel", "feature_dim": 160}
    name_table(IndexFacts(format="", **facts, landmarks="none", digest=digest_of(digests)), folder, shards)


def opened(options: Options) -> None:
    """Open the index, arrange its order, and look for samples of epochs far away from each other, as resumed runs do."""

    def own() -> float:
        """MB that no other process can share: pages of mapped files are not among them."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3

    before, began = own(), time.perf_counter()
    index = ShardReader(options.opened).index
    loaded, index_mb = time.perf_counter() - began, own() - before
    began = time.perf_counter()
    order = Order(index, Part(speakers=None), options.seed, options.draws, serves=CONTENT.serves)
    arranged, order_mb = time.perf_counter() - began, own() - before - index_mb
    draw = random.Random(options.seed)
    times = []
    for epoch in (0, 7, 1_000):
        k = epoch * order.samples_per_epoch + draw.randrange(order.samples_per_epoch)
        began = time.perf_counter()
        order.sample(k)
        times.append(time.perf_counter() - began)
    began, near = time.perf_counter(), 20_000
    for n in range(near):
        order.sample(k // order.samples_per_epoch * order.samples_per_epoch + n)
    facts = {"shards": len(index.shards), "groups": order.groups, "samples_per_epoch": order.samples_per_epoch}
    facts |= {"load_s": loaded, "load_mb": index_mb, "order_s": arranged, "order_mb": order_mb, "resume_s": max(times)}
    facts |= {"next_sample_us": (time.perf_counter() - began) / near * 1e6, "peak_own_mb": own()}
    print_line("index", **facts)


def main(options: Options) -> None:
    """Make the index, then open it in a process of its own."""
    if options.opened:
        opened(options)
        return
    if options.smoke:
        options.shards, options.json_shards = 5_000, 500
    with tempfile.TemporaryDirectory() as scratch:
        for form, shards in (("json", options.json_shards), ("table", options.shards)):
            folder = Path(scratch) / form
            folder.mkdir()
            make(folder, shards, options.groups)
            if form == "json":
                index = ShardReader(str(folder)).index
                listed = ShardIndex.model_validate(
                    index.model_dump(exclude={"shards", "format"}) | {"shards": [s.model_dump() for s in index.shards]}
                )
                (folder / "index.arrows").unlink()
                listed.save(folder)
            size = sum(file.stat().st_size for file in folder.iterdir())
            print(f"{form}: {shards:,} shards, {size / 1e6:,.0f} MB", flush=True)
            line = [sys.executable, __file__, "--opened", str(folder), "--draws", str(options.draws)]
            subprocess.run([*line, "--seed", str(options.seed)], check=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
