"""What one check found, and how findings are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from spfem_dist.redact import redact

Status = Literal["ok", "warning", "failed"]

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@dataclass(frozen=True)
class Finding:
    """One row: `failed` keeps a run from starting or ending well, `warning` may.

    found: what is there. fix: what to do, empty where all is well. figures: numbers for other programs, with their unit in the name.
    """

    check: str
    status: Status
    found: str
    fix: str = ""
    figures: dict[str, float] = field(default_factory=dict)


def public(text: object) -> str:
    """`text` on one line, without secrets, at most 400 characters."""
    shown = redact(" ".join(str(text).split()))
    return shown if len(shown) <= 400 else f"{shown[:400]}..."


def guarded(check: str, fix: str, judge: Callable[[], Finding]) -> Finding:
    """`judge()`; where it raises, a failed finding with the reason and `fix`. One broken check hides no other."""
    try:
        return judge()
    except Exception as error:  # every reason is the user's to read
        return Finding(check, "failed", public(str(error) or repr(error)), fix)


def table_of(findings: Iterable[Finding]) -> Table:
    """One row for each check: status, what was found, what to do."""
    table = Table(show_lines=False, expand=True)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", ratio=3, overflow="fold")
    table.add_column("what to do", ratio=2, overflow="fold")
    for finding in findings:
        colour = COLOURS[finding.status]
        table.add_row(finding.check, Text(finding.status, colour), Text(finding.found), Text(finding.fix))
    return table


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """The findings for a program: `ok` is false where any check failed."""
    return {"ok": all(f.status != "failed" for f in findings), "checks": [asdict(f) for f in findings]}
