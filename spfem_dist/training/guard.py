"""Training that is broken never looks finished: updates left out for want of finite gradients are counted and shown, too many of them
end the run, and no checkpoint or export holds a number that is not finite.

Whether a gradient is finite every rank finds out alike, where the norm is computed: DeepSpeed's optimisers in their step, the plain ones
of ZeRO-0 in `engines.guarded`. No step waits for the host on account of this module: what it counts is read when a point is logged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from spfem_dist.saved import not_finite
from spfem_dist.stage import Job
from spfem_dist.training.world import World, gathered

#: Updates over which the share of those left out is taken: the last ones, and at a run's beginning at least so many.
WINDOW, LEAST = 100, 10


class TrainingError(RuntimeError):
    """Training cannot go on; the message says what was seen and what to do."""


def tensors_of(engine: Any) -> Iterator[tuple[str, Tensor]]:
    """What this rank holds of a network and of its optimiser, by name: weights, buffers, the optimiser's own copies and its states."""
    seen: set[int] = set()
    for name, parameter in engine.module.named_parameters():
        seen.add(id(parameter))
        yield name, getattr(parameter, "ds_tensor", parameter)  # ZeRO-3's part of it
    yield from engine.module.named_buffers()
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for number, (parameter, state) in enumerate(inner.state.items()):
        if torch.is_tensor(parameter) and id(parameter) not in seen:
            yield f"optimiser, master weights {number}", parameter
        for key, value in state.items():
            if torch.is_tensor(value):
                yield f"optimiser, {key} {number}", value


class Guard:
    """Watches the networks of one job while it trains. Every rank calls every method equally often.

    share: of the updates of a network, of its last WINDOW, that may be left out; beyond it the run ends.
    """

    def __init__(self, job: Job, world: World, trained: Mapping[str, Any], share: float, step: int) -> None:
        self.job, self.world, self.trained, self.share = job, world, trained, share
        self.checkpoint = ""  # the last one of this job, to go back to
        self._looked = step
        self._known = {name: left_out(engine) for name, engine in trained.items()}
        self._recent: dict[str, deque[tuple[int, int]]] = {name: deque() for name in trained}
        self._bad: dict[str, set[str]] = {name: set() for name in trained}
        self._hooks: dict[str, list[Any]] = {}

    def updated(self) -> None:
        """An optimiser step ended: where it left an update out, the gradients of the following ones are looked at one by one, for a
        name. Costs nothing as long as all is well."""
        for name, engine in self.trained.items():
            if engine.skipped_steps > self._known[name] and name not in self._hooks:
                bad = self._bad[name]
                self._hooks[name] = [
                    parameter.register_hook(_noting(key, bad))
                    for key, parameter in engine.module.named_parameters()
                    if parameter.requires_grad
                ]

    def look(self, step: int) -> dict[str, int]:
        """Updates of each network that were left out from the last look up to `step`, where there are any. A collective then.

        Raises TrainingError where the share is passed.
        """
        found = {}
        since, self._looked = step - self._looked, step
        for name, engine in self.trained.items():
            total = left_out(engine)
            new, self._known[name] = total - self._known[name], total
            recent = self._recent[name]
            recent.append((since, new))
            while sum(steps for steps, _ in recent) - recent[0][0] >= WINDOW:
                recent.popleft()
            if new:
                found[name] = new
                missed, steps = sum(n for _, n in recent), max(LEAST, sum(n for n, _ in recent))
                if missed > self.share * steps:
                    bad = self._named(engine, set().union(*gathered(self.world, self._bad[name])))
                    raise TrainingError(
                        f"{self.job.name}: at step {step}, {missed} of the last {sum(n for n, _ in recent)} updates of {name} were "
                        f"left out because their gradients were not finite{bad}, more than zero.skipped_share {self.share:g}. "
                        f"{self._mend()}"
                    )
            else:
                for hook in self._hooks.pop(name, ()):
                    hook.remove()
        return found

    def check(self, step: int, about: str) -> None:
        """Raise TrainingError that says `about` what, and names the tensor, where any rank holds one that is not finite. A collective."""
        mine = []
        for name, engine in self.trained.items():
            held = dict(tensors_of(engine))
            mine += [f"{name}: {key} of rank {self.world.rank}" for key in not_finite(held)]
        bad = [line for lines in gathered(self.world, mine) for line in lines]
        if bad:
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise TrainingError(
                f"{self.job.name}: at step {step} {about}; {bad[0]}{more} holds numbers that are not finite. {self._mend()}"
            )

    def bad_loss(self, step: int, means: Mapping[str, float]) -> None:
        """Raise TrainingError where a mean loss or monitor is not finite, with the first tensor that is not either. A collective then."""
        bad = sorted(key for key, value in means.items() if value != value or abs(value) == float("inf"))
        if bad:
            seen = f"{', '.join(bad)} became {means[bad[0]]}"
            self.check(step, seen)
            raise TrainingError(f"{self.job.name}: {seen} at step {step}; all weights are finite. {self._mend()}")

    def _named(self, engine: Any, bad: set[str]) -> str:
        first = next((name for name, _ in engine.module.named_parameters() if name in bad), "")
        return f" (first that of {first})" if first else ""

    def _mend(self) -> str:
        name, rate = self.job.name, self.job.settings.optimizer.lr
        change = f"--{name}.optimizer.lr (now {rate:g}) or --{name}.optimizer.clip"
        if not self.checkpoint:
            return f"There is no checkpoint yet: lower {change}, and start anew under another --name"
        return (
            f"The last checkpoint, {self.checkpoint}, is sound: the same command goes on from it; should it end here again, change "
            f"{change} and give --checkpoint.allow-other True, or another --name to start anew"
        )


def left_out(engine: Any) -> int:
    """Updates of a network that were left out since its training began. Reads the device where the optimiser counts there."""
    counted = getattr(engine.optimizer, "left_out", None)
    if counted is not None:
        engine.skipped_steps += int(counted)
        counted.zero_()
    return engine.skipped_steps


def _noting(name: str, bad: set[str]) -> Any:
    def note(gradient: Tensor) -> None:
        if not gradient.isfinite().all():
            bad.add(name)

    return note
