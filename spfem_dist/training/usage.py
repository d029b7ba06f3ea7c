"""The help of a recipe that fits a screen: its commands, and the options that people use first. `--help-all` has every option."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from rich.table import Table

from spfem_dist.config import JobSettings, Run
from spfem_dist.console import plain_console
from spfem_dist.redact import redact

#: Fields of every run that people set first; what a recipe adds to `Run`, and the length of each job, come before and after.
FIRST = ("name", "data.shards", "data.split", "scaling.workers", "zero.precision", "checkpoint.storage", "tracking.uri")
ASKED = ("-h", "--help")


def show_if_asked(arguments: Sequence[str], made: Run, text: str, program: str, flags: dict[str, str]) -> None:
    """End the process with the short help where `arguments` ask for it. flags: further options with their meaning.

    text: what stands above the options, with the commands that run it. program: the name behind `usage:`.
    """
    if not any(word in ASKED for word in arguments):
        return
    console = plain_console(soft_wrap=False)
    console.print(f"usage: {program} [OPTIONS]\n\n{text.strip()}\n", markup=False, highlight=False, soft_wrap=True)
    console.print(options(made, flags))
    count = sum(1 for _ in fields(made))
    console.print(f"All {count} settings with their meaning: {program} --help-all", highlight=False, soft_wrap=True)
    sys.exit(0)


def with_help_all(arguments: Sequence[str], made: Run) -> list[str]:
    """The arguments for the parser that knows every option: `--help-all` is its `--help`, and shows no password among `made`."""
    if "--help-all" in arguments:
        made.tracking.uri = redact(made.tracking.uri)  # MLFLOW_TRACKING_URI may hold one
    return ["--help" if word == "--help-all" else word for word in arguments]


def options(made: Run, flags: dict[str, str]) -> Table:
    """Option, default and meaning of what people use first; fits 80 columns."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    known = {name: (value, meaning) for name, value, meaning in fields(made)}
    own = [name for name in type(made).model_fields if name not in Run.model_fields and name in known]
    jobs = [f"{job}.{field}" for job in made.jobs() for field in ("steps", "global_batch")]
    for name in (*own, *FIRST, *jobs):
        value, meaning = known[name]
        default = f" [{_written(value)}]" if _written(value) else ""
        table.add_row(f"--{name.replace('_', '-')}", f"{_first_sentence(meaning)}{default}")
    for flag, meaning in flags.items():
        table.add_row(flag, meaning)
    return table


def fields(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted name, value and meaning of every setting below `section`."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            if not isinstance(value, JobSettings) or value.enabled:
                yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, field.description or ""


def _first_sentence(meaning: str) -> str:
    return re.split(r"; |\. |: for ", meaning)[0].rstrip(".")


def _written(value: Any) -> str:
    return redact(" ".join(map(str, value)) if isinstance(value, tuple) else value)
