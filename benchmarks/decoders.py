"""Frames decoded a second by each decoder that is installed, of the same recordings in the same shards, on one CPU thread.

python benchmarks/decoders.py --shards shards/synthetic       # about a minute
python benchmarks/decoders.py --smoke                         # a few seconds, renders a small synthetic corpus

A request is what CCRL's micro-batches ask for: 6 frames anywhere in a recording, as uint8 [6, H, W, 3]. Rows take turns on each 24
recordings, so that the machine's other load meets all alike, and their pictures are compared with PyAV's. Rows whose library is not
installed are left out; torchcodec is none of this package's dependencies:

  pyav              what data.decoder pyav does
  dali-cpu          what data.decoder dali-cpu does
  torchcodec        `VideoDecoder(bytes)`, which first reads the whole recording to know where its frames are
  torchcodec quick  the same with seek_mode="approximate", which trusts the constant frame rate
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from figures import hardware, print_line, today
from loader import make_shards
from rich.console import Console

from spfem_dist.streaming.decode import decode_many
from spfem_dist.streaming.encoded import Request, UnusableDecoder

FRAMES, AT_ONCE = 6, 24
Decode = Callable[[Sequence[Request]], list[torch.Tensor]]


def by_torchcodec(requests: Sequence[Request], seek_mode: str) -> list[torch.Tensor]:
    """As `decode_many`."""
    from torchcodec.decoders import VideoDecoder

    found = []
    for request in requests:
        decoder = VideoDecoder(request.video, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode=seek_mode)
        found.append(decoder.get_frames_at(list(request.frames)).data)
    return found


def decoders() -> dict[str, Decode]:
    """The rows whose libraries are here."""
    rows: dict[str, Decode] = {"pyav": lambda requests: decode_many(requests, "pyav")}
    if importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali"):
        rows["dali-cpu"] = lambda requests: decode_many(requests, "dali-cpu")
    if importlib.util.find_spec("torchcodec"):
        rows["torchcodec"] = lambda requests: by_torchcodec(requests, "exact")
        rows["torchcodec quick"] = lambda requests: by_torchcodec(requests, "approximate")
    return rows


def requests_of(shards: Path, count: int, seed: int) -> Iterator[list[Request]]:
    """The first `count` recordings of the shards, 24 at a time, each with its frames drawn."""
    rng, found = np.random.default_rng(seed), []
    for sample in webdataset.WebDataset(sorted(map(str, shards.glob("*.tar"))), shardshuffle=False).decode():
        for recording in sample["json"]["recordings"]:
            name = recording["name"]
            frames = np.sort(rng.choice(len(sample[f"{name}.features.npy"]), FRAMES, replace=False)).tolist()
            found.append(Request(sample[f"{name}.{recording['video']}"], frames, name))
            if len(found) == AT_ONCE:
                yield found
                count, found = count - AT_ONCE, []
                if count <= 0:
                    return


def one_round(rows: dict[str, Decode], batches: list[list[Request]]) -> dict[str, tuple[float, float, int]]:
    """(frames a second on the wall, and of processor time, largest difference to PyAV's pictures) of every row."""
    wall, cpu, apart = defaultdict[str, float](float), defaultdict[str, float](float), defaultdict[str, int](int)
    for batch in batches:
        expected: list[torch.Tensor] = []
        for name, decode in rows.items():
            began = time.perf_counter(), time.process_time()
            pictures = decode(batch)
            wall[name] += time.perf_counter() - began[0]
            cpu[name] += time.process_time() - began[1]
            expected = expected or pictures
            for ours, theirs in zip(expected, pictures, strict=True):
                apart[name] = max(apart[name], int((ours.int() - theirs.int()).abs().max()))
    frames = FRAMES * sum(map(len, batches))
    return {name: (frames / wall[name], frames / cpu[name], apart[name]) for name in rows}


def main() -> None:
    """Make or take shards, run the rounds, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="folder of shards; empty renders a small synthetic corpus")
    parser.add_argument("--recordings", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one short round")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows, rounds = decoders(), 1 if asked.smoke else asked.rounds
    with tempfile.TemporaryDirectory() as folder:
        shards = asked.shards or make_shards(Path(folder), asked.smoke, 64)
        batches = list(requests_of(shards, AT_ONCE if asked.smoke else asked.recordings, asked.seed))
    console = Console()
    for name, decode in list(rows.items()):
        try:
            decode(batches[0])  # imports
        except UnusableDecoder as error:
            console.print(f"{name} is left out: {error}")
            del rows[name]
    results = [one_round(rows, batches) for _ in range(rounds)]
    side = next(iter(rows.values()))(batches[0][:1])[0].shape[1]
    figures: dict[str, Any] = {}
    for column, key in enumerate(("frames_per_s", "frames_per_cpu_s")):
        figures[key] = {name: round(statistics.median(result[name][column] for result in results)) for name in rows}
    figures["largest_difference"] = {name: max(result[name][2] for result in results) for name in rows}
    console.print(f"{len(batches) * AT_ONCE} recordings of {side} px, {rounds} rounds: {hardware()}, {today()}")
    for name in rows:
        console.print(
            f"{name:17} {figures['frames_per_s'][name]:8,} frames/s, {figures['frames_per_cpu_s'][name]:8,} of CPU time"
        )
    print_line("decoders", smoke=asked.smoke, rounds=rounds, side=side, **figures)


if __name__ == "__main__":
    main()
