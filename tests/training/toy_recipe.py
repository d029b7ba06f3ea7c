"""A recipe with a network small enough to train in a second: what the training tests run, through the real door.

python tests/training/toy_recipe.py --local --first.steps 20
"""

import os
import signal
import threading
import time

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import nn

from spfem_dist.config import Checkpoint, Optimizer, Run, Tracking, Validation
from spfem_dist.job_settings import JobSettings
from spfem_dist.records import Batch, Seeds
from spfem_dist.shares import held_out_share, share_of
from spfem_dist.stage import Job, job_of_one
from spfem_dist.training.launch import main


class ToyRun(Run):
    """Two jobs that learn the same."""

    first: JobSettings = Field(default_factory=JobSettings)
    second: JobSettings = Field(default_factory=JobSettings)


class ToyNetwork(nn.Module):
    """Predicts the mean of its input; one linear layer wide enough for every ZeRO stage to shard."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 1))

    def forward(self, batch: Batch):
        signal_ = batch.speech.flatten(1).to(self.layers[0].weight.dtype)
        error = (self.layers(signal_).squeeze(1) - signal_.mean(1)) ** 2
        return {"toy/error": error.mean()}, {"toy/first_sample": batch.sample[0].double()}


class ToyStage:
    """Batches are functions of the sample number. Variables let a test happen at a step (from 0), not at a time.

    SPFEM_TOY_SIGNAL="8:KILL 12:TERM": the last rank sends itself these signals; each once, if SPFEM_TOY_MARKER begins a file's name.
    SPFEM_TOY_SLOW=7: from there on each batch takes a second. SPFEM_TOY_MEET=folder: step 3 waits for the other job.
    """

    name = "toy"
    reads_shards = False

    def jobs(self, run: ToyRun):
        return list(run.jobs())

    def job(self, run: ToyRun, name: str, rank: int, size: int, device: torch.device) -> Job:
        settings = run.jobs()[name]
        share = share_of(settings.global_batch, rank, size, settings.micro_batch)
        held_out = held_out_share(settings, run.validation.samples, rank, size)

        def make(first: int, count: int) -> Batch:
            rows = [
                torch.randn(16, generator=torch.Generator().manual_seed(run.seed * 100_003 + k))
                for k in range(first, first + count)
            ]
            numbers = torch.arange(first, first + count)
            empty = torch.zeros(count, 1, 1)
            return Batch(
                empty,
                torch.stack(rows).view(count, 1, 1, 1, 16),
                empty.long(),
                empty[..., 0].long(),
                empty.bool(),
                numbers,
                Seeds(tuple(range(first, first + count))),
                [str(k) for k in range(count)],
            )

        def batches(start: int):
            step = start // settings.global_batch
            while True:
                _happen(name, step, last=rank == size - 1)
                for span in share.spans():
                    yield make(start + span.start, len(span)), 0.0
                start += settings.global_batch
                step += 1

        counts = {"groups": 4, "groups_in_index": 4, "samples_per_epoch": 16, "bytes_per_epoch": 64}
        return job_of_one(
            name,
            ToyNetwork(),
            settings,
            batches,
            lambda: [make(10_000 + span.start, len(span)) for span in held_out.spans()],
            {"name": "toy", "digest": "0", "source": "none", "counts": counts},
            export=export,
        )

    def check(self, run: ToyRun, name: str) -> None:
        """Nothing can keep it from training."""


def export(networks, folder) -> None:
    weights = nn.ModuleDict(networks).state_dict()
    save_file({key: value.contiguous().clone() for key, value in weights.items()}, folder / "model.safetensors")


def _happen(name: str, step: int, last: bool) -> None:
    for planned in os.environ.get("SPFEM_TOY_SIGNAL", "").split():
        at, _, what = planned.partition(":")
        if step == int(at) and last:
            marker = os.environ.get("SPFEM_TOY_MARKER", "")
            if not os.path.exists(f"{marker}.{at}"):
                if marker:
                    open(f"{marker}.{at}", "w").close()
                os.kill(os.getpid(), signal.Signals[f"SIG{what}"])
                if threading.current_thread() is not threading.main_thread():
                    time.sleep(2)  # under Ray the main thread, which hears signals, looks for them once a second
    if step >= int(os.environ.get("SPFEM_TOY_SLOW", "1000000")):
        time.sleep(1)
    if (meeting := os.environ.get("SPFEM_TOY_MEET")) and step == 3:
        open(os.path.join(meeting, name), "w").close()
        patience = time.monotonic() + 240
        while len(os.listdir(meeting)) < 2:
            if time.monotonic() > patience:
                raise TimeoutError(f"{name}: the other job did not come")
            time.sleep(0.1)


def toy() -> ToyRun:
    optimizer = Optimizer(lr=1e-2, schedule="constant")
    return ToyRun(
        name="toy",
        recipe="toy",
        first=JobSettings(steps=20, global_batch=8, optimizer=optimizer),
        second=JobSettings(enabled=False, steps=10, global_batch=8, optimizer=optimizer),
        checkpoint=Checkpoint(every_steps=6, background=False),  # a step is known from which a killed run goes on
        tracking=Tracking(uri="", log_every_steps=1, pictures_every_steps=0),
        validation=Validation(every_steps=10),
    )


if __name__ == "__main__":
    main(toy, ToyStage())
