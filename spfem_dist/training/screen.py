"""What a person sees while a run trains: a live bar on a terminal, a short line now and then in a log.

Every loss of every step is in MLflow and in `RUN/JOB/history.json`; the screen shows the first few.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich import progress as bars
from rich.console import Console, RenderableType
from rich.text import Text

from spfem_dist.console import plain_console

#: Losses that are shown; more would not be read.
HEADLINES = 4
#: Width of a line in a log, columns.
LINE_WIDTH = 120


def seconds_between_lines() -> float:
    """How often a log gets a line for each job, seconds: SPFEM_STATUS_SECONDS, or 20."""
    return float(os.environ.get("SPFEM_STATUS_SECONDS") or 20.0)


@dataclass(frozen=True)
class Status:
    """Where a job stands.

    losses: means since the last status, by name, in the order in which a step computes them. samples_per_s counts all workers. data_wait_share is of the time of a step, 0 to 1.
    memory_gb is the peak of this worker. mfu: share of the device's peak, None where that is not known. seconds_left is an estimate.
    The figures of speed are None until the first steps (warm-up) are over.
    """

    job: str
    step: int
    steps: int
    losses: dict[str, float]
    samples_per_s: float | None = None
    data_wait_share: float | None = None
    step_ms: float | None = None
    memory_gb: float | None = None
    mfu: float | None = None
    seconds_left: float | None = None

    @property
    def headlines(self) -> list[str]:
        """The first losses with their last name and value, and how many more there are: the job's own, then those that guide it."""
        names = sorted(self.losses, key=lambda name: name.startswith("guidance/"))
        shown = [f"{name.split('/')[-1]} {self.losses[name]:.3f}" for name in names[:HEADLINES]]
        return shown + ([f"+{len(self.losses) - HEADLINES}"] if len(self.losses) > HEADLINES else [])

    @property
    def speed(self) -> list[str]:
        """Speed, waiting, memory and time left, as far as they are known."""
        figures = [
            (self.samples_per_s, lambda v: f"{v:.1f} samples/s"),
            (self.data_wait_share, lambda v: f"data wait {v:.1%}"),
            (self.step_ms, lambda v: f"{v:.0f} ms"),
            (self.memory_gb, lambda v: f"{v:.2f} GB"),
            (self.mfu, lambda v: f"MFU {v:.1%}"),
            (self.seconds_left, lambda v: f"{clock(v)} left"),
        ]
        return [write(value) for value, write in figures if value is not None]

    def line(self, width: int = LINE_WIDTH) -> str:
        """One line of at most `width` columns. Losses give way to speed where both do not fit."""
        parts, losses = [f"{self.job} {self.step}/{self.steps}"], self.headlines
        while losses and len(" | ".join([*parts, *losses, *self.speed])) > width:
            losses = losses[:-1]
        return " | ".join([*parts, *losses, *self.speed])[:width]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a process that should not import this package to carry them."""
        return asdict(self)


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Screen:
    """Shows the statuses of the jobs of one run: `with Screen() as screen: screen.show(status); screen.say("...")`.

    quiet: show nothing; what goes wrong is still printed by whoever raises it.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or plain_console(soft_wrap=False)
        self.quiet = quiet
        self._bars: _Bars | None = None
        self._tasks: dict[str, bars.TaskID] = {}
        self._printed: dict[str, float] = {}

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._tasks = None, {}

    def say(self, line: str) -> None:
        """Print a line as it is: names in square brackets are no markup, and a log is not wrapped."""
        if not self.quiet:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, status: Status) -> None:
        """Move the bar of the status's job; in a log print its line if the last one is long enough ago, or it is the last step."""
        if self.quiet:
            return
        if self.console.is_terminal:
            self._bar(status)
            return
        now, ended = time.monotonic(), status.step >= status.steps
        if ended or now - self._printed.get(status.job, float("-inf")) >= seconds_between_lines():
            self._printed[status.job] = now
            self.say(status.line())

    def _bar(self, status: Status) -> None:
        if self._bars is None:
            self._bars = _Bars(console=self.console)
            self._bars.start()
        if status.job not in self._tasks:
            self._tasks[status.job] = self._bars.add_task(status.job, total=status.steps, status=status)
        self._bars.update(self._tasks[status.job], completed=status.step, status=status)


class _Bars(bars.Progress):
    """A bar for each job, with a row of figures below it."""

    def __init__(self, console: Console) -> None:
        columns = (bars.TextColumn("{task.description}", markup=False), bars.BarColumn(), bars.MofNCompleteColumn())
        super().__init__(*columns, console=console)

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            status: Status = task.fields["status"]
            yield self.make_tasks_table([task])
            yield Text(
                "  " + "  ".join([*status.speed, *status.headlines]), style="dim", overflow="ellipsis", no_wrap=True
            )
