"""Every generator's room with its recipe, and the flags that make a run of it a matter of seconds."""

from dataclasses import dataclass
from types import ModuleType

import cdrl_stage2
import icface_stage2
import sserd_stage2
from documented import words_of
from doors import Ended, command
from toy_stage2 import STAGE1, Toy

from spfem_dist.config import GuidedRun

#: Every loss logged; each checkpoint is there before the next step.
BRIEF = ["--tracking.uri", "", "--tracking.log-every-steps", "1", "--tracking.pictures-every-steps", "0"]
BRIEF += ["--validation.every-steps", "3", "--validation.samples", "2", "--checkpoint.background", "False"]
BRIEF += ["--pretraining.enabled", "False"]


@dataclass(frozen=True)
class Room:
    """kind: the package's, and its job's name in the recipe. recipe: the module. flags: what else makes it small."""

    kind: str
    recipe: ModuleType
    flags: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The documented command that trains it in one process."""
        return f"python recipes/{self.recipe.__name__}.py --priors {STAGE1} --local"

    def words(self, toy: Toy, storage, *more) -> list[str]:
        """That command on the toy corpus: six steps of four samples, the run `r` in `storage`."""
        size = [f"--{self.kind}.steps", "6", f"--{self.kind}.global-batch", "4"]
        places = ["--data.shards", toy.shards, "--data.split", toy.split, "--data.size", "32", "--name", "r"]
        flags = [*places, "--checkpoint.storage", storage, *BRIEF, *size, *self.flags, *more]
        return words_of(self.line, {STAGE1: toy.stage1}, *map(str, flags))

    def train(self, toy: Toy, storage, *more, before=None, workers=1) -> Ended:
        """Run it; several workers have torchrun's variables."""
        words = self.words(toy, storage, *more)
        if workers > 1:
            words.remove("--local")
        return command(*words, before=before, workers=workers, timeout=500)


NED = Room("ned", cdrl_stage2, ("--ned.windows", "8", "--ned.renderer", "residual"))
ICFACE = Room("icface", icface_stage2)
SSERD = Room("sserd", sserd_stage2)
ROOMS = (NED, ICFACE, SSERD)


def run_of(room: Room, toy: Toy, priors=()) -> GuidedRun:
    """The room's run as a configuration, for tests within this process; without its pre-training."""
    (run_class,) = (
        value
        for value in vars(room.recipe).values()
        if isinstance(value, type) and issubclass(value, GuidedRun) and value is not GuidedRun
    )
    run = run_class(name="r", data=toy.data, priors=priors)
    run.tracking.uri, run.scaling.workers, run.pretraining.enabled = "", 1, False
    getattr(run, room.kind).global_batch = 4
    return run
