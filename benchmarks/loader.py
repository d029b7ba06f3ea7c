"""How many training frames a second the loader gives, beside plain WebDataset + PyAV on the same shards.

python benchmarks/loader.py                                  # renders a small synthetic corpus, about 3 minutes
python benchmarks/loader.py --shards shards/synthetic --rounds 5
python benchmarks/loader.py --smoke                          # a few seconds, to see that it runs

Every row gives the same thing: CCRL micro-batches of 12 groups, 2 recordings of each in different emotions, 6 frames of
each recording as uint8 [12, 2, 6, 3, S, S] with the speech around each frame. One process, no background threads, rows
taking turns, so that the machine's other load meets all alike. A round is:

  plain          WebDataset().decode() and `container.decode(video=0)`, as tutorials write it: whole clips
  tuned          the same with one FFmpeg thread, stopping at the last frame that is needed
  cold           ours, each group once, nothing in memory before
  first epoch    ours as trained with: each group four times, nothing in memory before
  later epochs   ours, once memory holds what fits
  no memory      ours with data.decoded_cache_mb 0: only the needed part of each clip is decoded, every time
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
import webdataset
from figures import hardware, print_line, today
from rich.console import Console
from rich.table import Table

from spfem_dist.config import Data
from spfem_dist.prepare.job import run as prepare
from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.shard_format import ShardIndex
from spfem_dist.streaming.loader import Loader, Source
from spfem_dist.streaming.views import CONTENT

GROUPS, FRAMES, WINDOW = 12, 6, 5
ROWS = ("plain", "tuned", "cold", "first epoch", "later epochs", "no memory")


def plain_batches(tars: list[str], size: int, tuned: bool, seed: int) -> Iterator[torch.Tensor]:
    """Micro-batches by WebDataset and PyAV alone, as a short script would make them."""
    rng = np.random.default_rng(seed)
    samples = iter(webdataset.WebDataset(tars, shardshuffle=len(tars), seed=seed).shuffle(2 * GROUPS).decode())
    while len(group := list(islice(samples, GROUPS))) == GROUPS:
        yield torch.stack([plain_sample(sample, size, tuned, rng) for sample in group])


def plain_sample(sample: dict[str, Any], size: int, tuned: bool, rng: np.random.Generator) -> torch.Tensor:
    """uint8 [2, 6, 3, size, size]: matched frames of two emotions, and their speech windows (made and dropped)."""
    warps = [(pair["a"], pair["b"]) for pair in sample["json"]["warps"]]
    a, b = warps[rng.integers(len(warps))]
    videos = {r["name"]: r["video"] for r in sample["json"]["recordings"]}
    path = sample[f"{a}+{b}.warp.npy"]
    columns = np.sort(rng.choice(path.shape[1], FRAMES, replace=False))
    pictures = []
    for row, name in enumerate((a, b)):
        positions = path[row, columns]
        features = sample[f"{name}.features.npy"].astype(np.float32)
        around = np.clip(positions[:, None] + np.arange(WINDOW) - WINDOW // 2, 0, len(features) - 1)
        torch.from_numpy(features[around])
        frames = plain_decode(sample[f"{name}.{videos[name]}"], positions, tuned)
        if frames.shape[1] != size:
            frames = np.stack([cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in frames])
        pictures.append(torch.from_numpy(frames).permute(0, 3, 1, 2))
    return torch.stack(pictures)


def plain_decode(video: bytes, positions: np.ndarray, tuned: bool) -> np.ndarray:
    """uint8 [K, H, W, 3] by PyAV's own iteration."""
    with av.open(io.BytesIO(video)) as container:
        if not tuned:
            whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            return np.stack([whole[p] for p in positions])
        container.streams.video[0].codec_context.thread_count = 1
        needed, last, kept = set(positions.tolist()), int(positions.max()), {}
        for number, frame in enumerate(container.decode(video=0)):
            if number in needed:
                kept[number] = frame.to_ndarray(format="rgb24")
            if number == last:
                break
        return np.stack([kept[p] for p in positions])


def measure(batches: Iterator[torch.Tensor]) -> tuple[int, float, float]:
    """(frames given, seconds on the wall, seconds of processor time) of an iterator, to its end."""
    wall, cpu, frames = time.perf_counter(), time.process_time(), 0
    for batch in batches:
        frames += batch.shape[0] * batch.shape[1] * batch.shape[2]
    return frames, time.perf_counter() - wall, time.process_time() - cpu


def our_batches(loader: Loader, count: int) -> Iterator[torch.Tensor]:
    """Frames of the loader's first `count` micro-batches."""
    return (batch.frames for batch, _ in islice(loader, count))


def one_round(data: Data, number: int, batches: int) -> dict[str, tuple[int, float, float]]:
    """Every row once; `batches` micro-batches are one pass over the groups."""
    tars = sorted(str(path) for path in Path(data.shards).glob("*.tar"))

    def ours(draws: int, source: Source, seed: int) -> Callable[[int], Iterator[torch.Tensor]]:
        loader = Loader(source.data, CONTENT, seed, 0, 1, GROUPS, draws_per_group=draws, source=source)
        return lambda count: our_batches(loader, count)

    def row(name: str) -> Iterator[torch.Tensor]:
        if name in ("plain", "tuned"):
            return plain_batches(tars, data.size, name == "tuned", number)
        if name == "no memory":
            return ours(1, Source(data.model_copy(update={"decoded_cache_mb": 0})), number)(batches)
        if name == "later epochs":
            return ours(4, warm, number + 1000)(4 * batches)
        return ours(1, Source(data), number)(batches) if name == "cold" else ours(4, warm, number)(4 * batches)

    warm = Source(data)
    return {name: measure(row(name)) for name in ROWS}


def make_shards(folder: Path, smoke: bool, size: int) -> Path:
    """A small synthetic corpus, prepared as a user would."""
    settings = PrepareSettings(
        corpus="synthetic",
        out=folder / "shards",
        identities=4 if smoke else 8,
        synthetic_sentences=3 if smoke else 6,
        size=size,
        local=True,
    )
    prepare(settings, Console(stderr=True))
    return settings.out


def report(results: list[dict[str, tuple[int, float, float]]], data: Data, smoke: bool) -> dict[str, Any]:
    """Print the table and the JSON line; returns the figures of the line."""
    wall = {name: statistics.median(r[name][0] / r[name][1] for r in results) for name in ROWS}
    cpu = {name: statistics.median(r[name][0] / r[name][2] for r in results) for name in ROWS}
    figures = {
        "smoke": smoke,
        "size": data.size,
        "rounds": len(results),
        "frames_per_s": {name: round(value) for name, value in wall.items()},
        "frames_per_cpu_s": {name: round(value) for name, value in cpu.items()},
        "ratio_to_plain": {name: round(wall[name] / wall["plain"], 2) for name in ROWS},
        "ratio_to_tuned": {name: round(wall[name] / wall["tuned"], 2) for name in ROWS},
        "cpu_ratio_to_plain": {name: round(cpu[name] / cpu["plain"], 2) for name in ROWS},
        "cpu_ratio_to_tuned": {name: round(cpu[name] / cpu["tuned"], 2) for name in ROWS},
    }
    table = Table(title=f"Training frames at {data.size} px: {hardware()}, {today()}")
    for column in ("", "frames/s", "x plain", "x tuned", "frames/CPU s", "x plain", "x tuned"):
        table.add_column(column, justify="left" if not column else "right")
    for name in ROWS:
        cells = [name]
        for rates in (wall, cpu):  # processor time tells more where other work shares the machine
            cells += [f"{rates[name]:,.0f}", *(f"{rates[name] / rates[other]:.1f}" for other in ("plain", "tuned"))]
        table.add_row(*cells)
    Console().print(table)
    return print_line("loader", **figures)


def main() -> None:
    """Make or take shards, run the rounds, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="folder of shards; empty renders a small synthetic corpus")
    parser.add_argument("--size", type=int, default=64, help="side of the frames, pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="one short round")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        shards = asked.shards or make_shards(Path(folder), asked.smoke, asked.size)
        data = Data(shards=str(shards), split="none", size=asked.size, decoder="pyav", prefetch=0)
        groups = sum(len(shard.groups) for shard in ShardIndex.load(shards).shards)
        if groups < GROUPS:
            raise SystemExit(f"{shards} holds {groups} utterance groups; a batch takes {GROUPS}: name larger shards")
        one_round(data, 0, 1)  # imports, file cache
        rounds = 1 if asked.smoke else asked.rounds
        report([one_round(data, n, groups // GROUPS) for n in range(rounds)], data, asked.smoke)


if __name__ == "__main__":
    main()
