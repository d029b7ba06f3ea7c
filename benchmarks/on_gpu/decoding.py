"""How many frames a second are decoded out of the tars' bytes."""

from __future__ import annotations

import io
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from spfem_dist.prepare.shards import encode_video
from spfem_dist.streaming.decode import choose_decoder, decode_many
from spfem_dist.streaming.encoded import Request

#: Clips of a measurement (one batch of DALI's), and frames of each.
CLIPS, FRAMES = 32, 75


def clip(size: int, seed: int) -> np.ndarray:
    """uint8 [FRAMES, size, size, 3]: a smooth picture that drifts, so that motion is coded as in a recording of a face."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 12, 12)).astype(np.float32))
    wide = torch.nn.functional.interpolate(coarse, size=(2 * size, 2 * size), mode="bicubic").clamp(0, 255)[0]
    fine = torch.from_numpy(rng.normal(0, 4, (3, 2 * size, 2 * size)).astype(np.float32))
    picture = (wide + fine).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    places = [(int(size / 4 * (1 + np.sin(t / 9))), int(size / 4 * (1 + np.cos(t / 7)))) for t in range(FRAMES)]
    return np.stack([picture[y : y + size, x : x + size] for y, x in places])


def tar_of(codec: str, size: int) -> bytes:
    """A tar with four encoded clips."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(4):
            video = encode_video(clip(size, number), 25.0, codec)  # type: ignore[arg-type]
            member = tarfile.TarInfo(f"{number}.{'webm' if codec == 'vp9' else 'mp4'}")
            member.size = len(video)
            tar.addfile(member, io.BytesIO(video))
    return out.getvalue()


def frames_per_second(codec: str, size: int, decoder: str, tiny: bool = False) -> dict[str, Any]:
    """Of whole clips, and of six frames out of each clip; PyAV on one thread and on all cores.

    Raises RuntimeError where the GPU's decoder refused, with DALI's words.
    """
    from spfem_dist.streaming import dali

    with tarfile.open(fileobj=io.BytesIO(tar_of(codec, size))) as tar:
        videos = [tar.extractfile(member).read() for member in tar.getmembers()]  # type: ignore[union-attr]
    chosen = choose_decoder(decoder)
    device = "cuda" if chosen == "dali-gpu" else None
    clips = 4 if tiny else CLIPS
    rng = np.random.default_rng(0)
    whole = [Request(videos[n % len(videos)], range(FRAMES), f"clip {n}") for n in range(clips)]
    few = [r._replace(frames=np.sort(rng.choice(FRAMES, 6, replace=False)).tolist()) for r in whole]
    found: dict[str, Any] = {}
    if chosen == "pyav":
        found["whole_one_thread"] = rate(whole[: max(1, clips // 8)], chosen, device, 1)
    threads = 1 if device else os.cpu_count() or 1
    found["whole"], found["training"] = (rate(requests, chosen, device, threads) for requests in (whole, few))
    if device:
        if dali.refused:
            raise RuntimeError(f"the GPU's decoder refused {codec} of {size} px: {next(iter(dali.refused.values()))}")
        ours, theirs = (decode_many(whole[:1], way, device)[0].float().cpu() for way in (chosen, "pyav"))  # type: ignore[arg-type]
        found["difference_to_pyav"] = float((ours - theirs).abs().mean())
    return found | {"threads": threads, "clip_kb": len(videos[0]) / 1e3}


def rate(requests: list[Request], decoder: Any, device: str | None, threads: int, seconds: float = 3.0) -> float:
    """Frames/s over about so many seconds, after one round that is not counted."""

    def once(pool: ThreadPoolExecutor | None) -> int:
        if pool is None:
            frames = decode_many(requests, decoder, device)
        else:
            frames = [f for some in pool.map(lambda r: decode_many([r], decoder, device), requests) for f in some]
        if device:
            torch.cuda.synchronize()
        return sum(len(f) for f in frames)

    pool = ThreadPoolExecutor(threads) if threads > 1 else None
    once(pool)
    frames, began = 0, time.perf_counter()
    while True:
        frames += once(pool)
        if (taken := time.perf_counter() - began) > seconds:
            return frames / taken
