"""Errors of storage, and how a command ends on an error: one message that a user can act on; the traceback is there for who asks."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial, wraps
from typing import Any, TypeVar

from pydantic import ValidationError

from spfem_dist.redact import redact

log = logging.getLogger(__name__)
T = TypeVar("T")
#: Characters of a message that a person reads.
_LONGEST = 4000


class UnreachableStorage(OSError):
    """Storage that did not answer, or refused, after all attempts."""


class RefusedStorage(UnreachableStorage, PermissionError):
    """Storage that does not let us in; waiting would not help."""


@contextmanager
def after_an_error(what: str) -> Iterator[None]:
    """Within, what is still done on account of an error that is on its way: where that fails too, it is logged and the first one told."""
    try:
        yield
    except Exception as error:
        log.warning("%s: %s: %s", what, type(error).__name__, redact(str(error)))


def about(path: object, error: Exception) -> str:
    """What the error says, beginning with `path` where it does not name it."""
    said = str(error)
    return said if str(path) in said else f"{path}: {said}"


def readable(error: object) -> str:
    """What the error says, without passwords; of a message that repeats pages of somebody's file, beginning and end."""
    said = redact(error)
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST * 3 // 4]} [...] {said[-_LONGEST // 4 :]}"


def read_words(parse: Callable[[list[str]], T], words: Sequence[str]) -> T:
    """What `parse` makes of the words of a command line. Where it ends the process because it refuses them, it shows them without passwords.

    parse: may be called twice.
    """
    words, shown = list(words), [redact(word) for word in words]
    if shown == words:
        return parse(words)
    refusal = io.StringIO()
    try:
        with redirect_stderr(refusal):
            return parse(words)
    except SystemExit as end:
        if not end.code:
            raise
    parse(shown)
    print(readable(refusal.getvalue()), file=sys.stderr)  # it was the password itself that is refused
    sys.exit(2)


def later(function: Callable[..., T]) -> Callable[..., Callable[[], T]]:
    """A function of the same parameters that gives the call, which is then made: a command line is read to its end before anything runs."""

    @wraps(function)
    def bound(*arguments: Any, **settings: Any) -> Callable[[], T]:
        return partial(function, *arguments, **settings)

    return bound


def call_by_words(function: Callable[..., object]) -> None:
    """Call `function` with what the command line of this process says of its parameters; one that is refused is shown without passwords."""
    import tyro

    read_words(lambda words: tyro.cli(later(function), args=words), sys.argv[1:])()


@contextmanager
def errors_in_words(title: str = "bad configuration") -> Iterator[None]:
    """End the process with one message: status 2 for a bad value (named, under `title`), 1 for what failed.

    Ctrl-C ends it with one line and status 130. No message shows a password. With SPFEM_TRACEBACK=1 what failed is raised as it is. Defects (TypeError,
    KeyError, ...) are never caught.
    """
    try:
        yield
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, e['loc'])) or 'run'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        print(readable(f"{title}:\n" + "\n".join(lines)), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(f"\n{str(stop) or 'stopped'}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `spfem ... | head`: whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (OSError, RuntimeError, ValueError) as error:
        if os.environ.get("SPFEM_TRACEBACK"):
            raise
        sys.exit(f"error: {readable(error)}\n(set SPFEM_TRACEBACK=1 to see where it came from)")
