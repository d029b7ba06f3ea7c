"""The status line while shards are made: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich import progress as bars
from rich.console import Console

_PLAIN_LINE_EVERY = 10.0  # seconds


class Progress:
    """Counts clips and frames: `with Progress(console, clips) as progress: progress.advance(clips, frames)`."""

    def __init__(self, console: Console, total: int):
        self._console, self._total = console, total
        self._clips = self._frames = 0
        self._started = self._last_line = time.monotonic()
        self._bar = bars.Progress(
            bars.TextColumn("preparing", markup=False),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("clips  {task.fields[rates]}", markup=False),
            bars.TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal or not total,
        )
        self._task = self._bar.add_task("prepare", total=total, rates="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def advance(self, clips: int, frames: int) -> None:
        """`clips` more clips are done, which gave `frames` more frames."""
        self._clips, self._frames = self._clips + clips, self._frames + frames
        now = time.monotonic()
        seconds = max(now - self._started, 1e-3)
        rates = f"{self._clips / seconds:,.1f} clips/s  {self._frames / seconds:,.0f} frames/s"
        self._bar.update(self._task, advance=clips, rates=rates)
        if not self._console.is_terminal and now - self._last_line >= _PLAIN_LINE_EVERY:
            self._last_line = now
            left = seconds * (self._total - self._clips) / self._clips if self._clips else 0
            self._console.print(f"preparing {self._clips}/{self._total} clips  {rates}  about {left:,.0f} s left")
