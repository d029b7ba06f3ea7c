"""A CCRL step through the project's loop against the same step in plain PyTorch, side by side in one process.

    python benchmarks/step.py            # 60 steps of each, in turn
    python benchmarks/step.py --smoke    # 3 steps of each: does it run?

Both train the same network on the same batches with the same optimiser. Ours goes through the DeepSpeed engine (ZeRO-1, one
process), named losses, the summed monitors and the stop check; the other is forward, backward, step and nothing else.
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
import tyro
from figures import print_line

from spfem_dist.config import Data, Run
from spfem_dist.priors import ccrl
from spfem_dist.priors.prior import build_prior
from spfem_dist.records import Batch, Seeds
from spfem_dist.shares import share_of
from spfem_dist.stage import job_of_one
from spfem_dist.training import engines
from spfem_dist.training.loop import Sums, optimiser_step

FEATURES = 160


def batch_of(run: Run, number: int) -> Batch:
    """A batch of the recipe's shape with random content: arithmetic does not depend on what is in it."""
    data, size = run.data, ccrl.Settings().global_batch
    generator = torch.Generator().manual_seed(number)
    shape = (size, 2, data.frames_per_recording)
    spread = torch.arange(shape[2]) * data.minimum_gap
    return Batch(
        frames=torch.randint(0, 256, (*shape, 3, data.size, data.size), dtype=torch.uint8, generator=generator),
        speech=torch.randn(*shape, data.speech_window, FEATURES, generator=generator),
        position=spread.expand(shape).clone(),
        emotion=torch.tensor([[0, 1]]).expand(size, 2).clone(),
        valid=torch.ones(shape, dtype=torch.bool),
        sample=torch.arange(size),
        seed=Seeds(tuple(range(1000 * number, 1000 * number + size))),
        keys=[str(i) for i in range(size)],
    )


def main(steps: int = 60, smoke: bool = False) -> None:
    """Time both and print the ratio of medians (below 1: ours is faster)."""
    steps = 3 if smoke else steps
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run, settings = Run(data=Data(), seed=0), ccrl.Settings()
    engines.connect(device)
    torch.manual_seed(0)
    network = build_prior(settings, run.data, FEATURES)
    plain = copy.deepcopy(network).to(device)
    optimizer = torch.optim.Adam(plain.parameters(), lr=settings.optimizer.lr, betas=settings.optimizer.betas)
    share = share_of(settings.global_batch, 0, 1)
    engine = engines.make_engine(network, settings.optimizer, run.zero, share, device)
    job = job_of_one("ccrl", network, settings, lambda _start: iter([]), lambda: [], {}, export=lambda *_: None)
    sums, ours, theirs = Sums(device), [], []
    for number in range(steps + 3):
        batch = batch_of(run, number)
        began = time.perf_counter()
        optimiser_step(job, {"ccrl": engine}, iter([(batch, 0.0)]), share, device, sums)
        middle = time.perf_counter()
        losses, _ = plain(batch.to(device))
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), settings.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad()
        ended = time.perf_counter()
        if number >= 3:  # the first steps allocate
            ours.append(middle - began)
            theirs.append(ended - middle)
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"CCRL step, {settings.global_batch} samples: ours {mine * 1e3:.0f} ms, plain PyTorch {other * 1e3:.0f} ms, ratio {mine / other:.3f}"
    )
    print_line("step", ours_s=mine, plain_s=other, ratio=mine / other, steps=steps)


if __name__ == "__main__":
    tyro.cli(main)
