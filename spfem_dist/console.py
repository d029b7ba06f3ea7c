"""The console for messages that name files: brackets in a name are no markup, and long lines are the terminal's to wrap."""

from __future__ import annotations

from rich.console import Console


def plain_console() -> Console:
    """A console on standard output that prints every text as it is."""
    return Console(soft_wrap=True, markup=False, highlight=False, emoji=False)
