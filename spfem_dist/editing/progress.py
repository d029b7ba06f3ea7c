"""The status line while clips are edited: a bar on a terminal, a plain line now and then elsewhere, nothing for short work."""

from __future__ import annotations

import time
from types import TracebackType

from rich import progress as bars
from rich.console import Console

_SILENT_FOR, _PLAIN_LINE_EVERY = 2.0, 10.0  # seconds


class Progress:
    """Counts frames, or clips with their frames: `with Progress(console, 200, "frames") as p: p.advance(what="editing")`."""

    def __init__(self, console: Console, total: int, unit: str):
        self._console, self._total, self._unit = console, total, unit
        self._done, self._frames = 0, 0.0
        self._started = time.monotonic()
        self._last_line = self._started + _SILENT_FOR - _PLAIN_LINE_EVERY
        self._bar: bars.Progress | None = None
        self._task = bars.TaskID(0)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, what: str, steps: int = 1, frames: float = 1) -> None:
        """`steps` more of the total are done, which took `frames` frames."""
        self._done, self._frames = self._done + steps, self._frames + frames
        now = time.monotonic()
        seconds = max(now - self._started, 1e-3)
        if seconds < _SILENT_FOR:
            return
        rate = f"{self._frames / seconds:,.1f} frames/s"
        if self._console.is_terminal:
            self._show(what, rate)
        elif now - self._last_line >= _PLAIN_LINE_EVERY:
            self._last_line = now
            left = seconds * max(0, self._total - self._done) / max(1, self._done)
            self._console.print(f"{what} {self._done}/{self._total} {self._unit}  {rate}  about {left:,.0f} s left")

    def _show(self, what: str, rate: str) -> None:
        if self._bar is None:
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}", markup=False),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TextColumn(f"{self._unit}  {{task.fields[rate]}}", markup=False),
                bars.TimeRemainingColumn(elapsed_when_finished=True),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(what, total=self._total, rate=rate)
            self._bar.start()
        self._bar.update(self._task, completed=self._done, description=what, rate=rate)
