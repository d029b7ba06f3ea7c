"""Stage 2 made small: a corpus of four speakers, priors that nobody trained, and the flags that make a run a matter of seconds."""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from cdrl_stage2 import CDRLGenerator
from documented import words_of
from doors import Ended, command, process
from once import made_once
from small_corpus import SPLIT, four_speakers

from spfem_dist.config import Data
from spfem_dist.priors import ccrl, cerl
from spfem_dist.priors.prior import build_prior, save_prior
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.training.world import PlainWorld

STAGE1 = "runs/cdrl-stage1"
RAY = f"python recipes/cdrl_stage2.py --priors {STAGE1}"
LOCAL, DRY = f"{RAY} --local", f"{RAY} --dry-run"
TORCHRUN = f"torchrun --nproc-per-node 2 recipes/cdrl_stage2.py --priors {STAGE1}"
#: Six steps of four samples, every loss logged; each checkpoint is there before the next step.
BRIEF = ["--ned.steps", "6", "--ned.global-batch", "4", "--tracking.uri", "", "--tracking.log-every-steps", "1"]
BRIEF += ["--tracking.pictures-every-steps", "0", "--validation.every-steps", "3", "--validation.samples", "2"]
BRIEF += ["--checkpoint.background", "False", "--ned.windows", "8"]
BRIEF += ["--ned.renderer", "residual", "--pretraining.enabled", "False"]
#: Before them, as many of the pre-training.
PRETRAINED = ["--pretraining.enabled", "True", "--pretraining.steps", "6", "--pretraining.global-batch", "8"]


@dataclass(frozen=True)
class Toy:
    """Where everything lies. stage1: laid out as a finished stage-1 run leaves its priors."""

    shards: Path
    split: Path
    stage1: Path

    @classmethod
    def within(cls, folder: Path) -> "Toy":
        """As it lies in a folder."""
        return cls(folder / "shards", folder / "split.json", folder / "stage1")

    @property
    def data(self) -> Data:
        """The data of a run on this corpus."""
        return Data(shards=str(self.shards), split=str(self.split), size=32, frames_per_recording=10)

    def flags(self, storage, *more) -> list[str]:
        """The recipe's flags for the run `r` in `storage`; of two equal ones the later counts."""
        places = ["--data.shards", self.shards, "--data.split", self.split, "--data.size", "32"]
        places += ["--checkpoint.storage", storage, "--name", "r"]
        return [str(word) for word in (*places, *BRIEF, *more)]

    def words(self, line, storage, *more) -> list[str]:
        """A documented command with these priors and flags."""
        return words_of(line, {STAGE1: self.stage1}, *self.flags(storage, *more))

    def run(self, **changes) -> CDRLGenerator:
        """The same as a configuration, for tests within this process."""
        run = CDRLGenerator(name="r", data=self.data, priors=(str(self.stage1),))
        run.tracking.uri, run.ned.global_batch, run.scaling.workers = "", 4, 1
        run.pretraining.enabled, run.ned.windows, run.ned.renderer = False, 8, "residual"
        return run.model_copy(update=changes)


def toy_of(factory) -> Toy:
    """That of all test files, which changes none. factory: pytest's tmp_path_factory."""
    return Toy.within(made_once(factory, "toy-stage2", make_toy))


def make_toy(folder: Path) -> Toy:
    """Prepare the corpus and save the priors in `folder`."""
    toy = Toy.within(folder)
    four_speakers(toy.shards)
    toy.split.write_text(json.dumps(SPLIT))
    save_priors(toy.stage1, toy.data, ShardReader.of(toy.data).index.feature_dim)
    return toy


def save_priors(stage1: Path, data: Data, feature_dim: int) -> None:
    """Untrained priors for `data`, as the finished stage-1 run `stage1`."""
    for name, settings in (("ccrl", ccrl.Settings()), ("cerl", cerl.Settings())):
        torch.manual_seed(0)
        prior = build_prior(settings, data, feature_dim, pretrained=False)
        save_prior(stage1 / name / "model", prior, settings=settings, data=data, feature_dim=feature_dim, facts={})
    (stage1 / "run.json").write_text("{}")


def alone(toy: Toy, storage, *flags, before=None) -> Ended:
    """One process, without Ray."""
    return command(*toy.words(LOCAL, storage, *flags), before=before)


def two_workers(toy: Toy, storage, *flags) -> Ended:
    """Two processes with torchrun's variables."""
    return command(*toy.words(RAY, storage, *flags), workers=2, timeout=500)


def started(line: str, toy: Toy, storage, *flags) -> Ended:
    """A documented line in processes of its own: torchrun, or Ray."""
    launcher, *words = toy.words(line, storage, *flags)
    if launcher == "torchrun":  # of this environment, on a port that is free
        words = ["-m", "torch.distributed.run", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", *words]
    return process(*words)


def losses(storage, job="ned") -> dict[tuple[int, str], float]:
    """Everything that the run logged of a job, but what the optimisers say of themselves."""
    rows = json.loads((Path(storage) / "r" / job / "history.json").read_text())
    skip = ("learning_rate", "gradient_norm")
    return {(r["step"], key): v for r in rows for key, v in r["values"].items() if not key.endswith(skip)}


def killed_after_step_five() -> None:
    """For `command(before=...)`: the process kills itself once it has said that step 5 is done."""
    show = PlainWorld.show

    def show_and_die(world, status):
        show(world, status)
        if status.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    PlainWorld.show = show_and_die
