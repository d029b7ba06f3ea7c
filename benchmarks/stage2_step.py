"""A stage-2 step through the project's loop against the same four phases in plain PyTorch, side by side in one process.

    python benchmarks/stage2_step.py            # 20 steps of each, in turn
    python benchmarks/stage2_step.py --smoke    # 2 steps of each: does it run?

Both train NED's networks on the same batches with the same optimisers, under untrained priors. Ours goes through one DeepSpeed
engine for each network (ZeRO-1, one process) and named losses; the other is forward, backward, clip and step for each phase.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
import tyro
from figures import print_line
from pydantic import Field
from rich.console import Console

from spfem_dist.config import GuidedRun
from spfem_dist.generators import ned
from spfem_dist.generators.ned import Settings as NED
from spfem_dist.prepare import job as prepare
from spfem_dist.prepare.plan import PrepareSettings
from spfem_dist.priors import ccrl, cerl
from spfem_dist.priors.prior import build_prior, save_prior
from spfem_dist.shares import share_of
from spfem_dist.training import engines
from spfem_dist.training.loop import Sums, optimiser_step


class Guided(GuidedRun):
    """Stage 2 as recipes/cdrl_stage2.py has it."""

    ned: NED = Field(default_factory=NED)


def shards_and_priors(folder: Path) -> Guided:
    """A run on a corpus of three speakers, rendered into `folder`, with priors as they are before training."""
    corpus = PrepareSettings(out=folder / "shards", identities=3, synthetic_sentences=3, local=True)
    prepare.run(corpus, Console(quiet=True))
    run = Guided(priors=(str(folder / "ccrl"), str(folder / "cerl")))
    run.data.shards, run.data.split, run.scaling.workers, run.tracking.uri = str(corpus.out), "none", 1, ""
    run.data.frames_per_recording = 10
    for name, settings in (("ccrl", ccrl.Settings()), ("cerl", cerl.Settings())):
        prior = build_prior(settings, run.data, 160)
        save_prior(folder / name, prior, settings=settings, data=run.data, feature_dim=160)
    return run


def main(steps: int = 20, smoke: bool = False) -> None:
    """Time both and print the ratio of medians (below 1: ours is faster)."""
    steps = 2 if smoke else steps
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    engines.connect(device)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as scratch:
        run = shards_and_priors(Path(scratch))
        torch.manual_seed(0)
        job = ned.Stage().job(run, "ned", 0, 1, device)
        plain = {name: copy.deepcopy(network).to(device) for name, network in job.networks.items()}
        optimizers = {
            n: engines.optimizer_for(list(plain[n].parameters()), s, "none") for n, s in job.optimizers.items()
        }
        share = share_of(run.ned.global_batch, 0, 1)
        trained = {
            n: engines.make_engine(network, job.optimizers[n], run.zero, share, device)
            for n, network in job.networks.items()
        }
        stream, sums = job.batches(0), Sums(device)
        for number in range(steps + 2):
            batch, again = next(stream)[0], next(stream)[0]
            began = time.perf_counter()
            optimiser_step(job, trained, iter([(batch, 0.0)]), share, device, sums)
            middle = time.perf_counter()
            for phase in job.phases:
                with engines.only(plain, phase.trains):
                    losses, _ = phase.losses(plain, again)
                    torch.stack(list(losses.values())).sum().backward()
                torch.nn.utils.clip_grad_norm_(plain[phase.trains].parameters(), job.optimizers[phase.trains].clip)
                optimizers[phase.trains].step()
                optimizers[phase.trains].zero_grad()
            ended = time.perf_counter()
            if number >= 2:  # the first steps allocate
                ours.append(middle - began)
                theirs.append(ended - middle)
        job.close()
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"stage-2 step, {share.batch} samples: ours {mine * 1e3:.0f} ms, plain PyTorch {other * 1e3:.0f} ms, ratio {mine / other:.3f}"
    )
    print_line("stage2_step", ours_s=mine, plain_s=other, ratio=mine / other, steps=steps)


if __name__ == "__main__":
    tyro.cli(main)
