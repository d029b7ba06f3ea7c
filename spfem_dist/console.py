"""The console of every command: brackets in the names that it prints are no markup, and passwords in them are not shown."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text

from spfem_dist.redact import redact


class _Plain(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's own; colours are those of a `Text`."""
        super().print(*(redact(item) if isinstance(item, str) else item for item in objects), **options)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """As rich's own, which would read markup in it whatever the console says."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)


def plain_console(soft_wrap: bool = True, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints every text as it is. soft_wrap: long lines are the terminal's to wrap; tables want it off."""
    return _Plain(soft_wrap=soft_wrap, stderr=stderr, quiet=quiet, markup=False, highlight=False, emoji=False)
