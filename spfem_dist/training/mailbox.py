"""The mailbox: an actor beside the driver. It imports nothing, so that its process is there at once."""

from __future__ import annotations

from typing import Any


class DriverMailbox:
    """The one place that driver and workers share: a request to stop, lines to print, an error not worth repeating.

    Lines come this way and not through Ray's log forwarding, so that the terminal shows the run and nothing else;
    everything that a worker prints is in Ray's logs all the same.
    """

    def __init__(self) -> None:
        self._stopping = False
        self._failure = ""
        self._lines: list[str] = []
        self._statuses: dict[str, dict[str, Any]] = {}

    def stop(self) -> None:
        """Ask for a stop."""
        self._stopping = True

    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stopping

    def fail(self, message: str) -> None:
        """Remember the first permanent failure."""
        self._failure = self._failure or message

    def failure(self) -> str:
        """The permanent failure, or ''."""
        return self._failure

    def say(self, line: str) -> None:
        """Leave a line for the driver to print."""
        self._lines.append(line)

    def show(self, status: dict[str, Any]) -> None:
        """Leave where a job stands (`screen.Status.as_dict`); of each job the newest is kept."""
        self._statuses[status["job"]] = status

    def take(self) -> tuple[list[str], list[dict[str, Any]]]:
        """The lines and the statuses left since the last call."""
        left = self._lines, list(self._statuses.values())
        self._lines, self._statuses = [], {}
        return left
