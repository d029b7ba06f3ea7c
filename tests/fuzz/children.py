"""A command in a process of its own, forked from this one after the heavy imports, and what became of it: time and memory are bounded."""

import atexit
import contextlib
import os
import resource
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Resident memory at which a command is ended, bytes.
MEMORY = 4 * 2**30
#: The largest file that a command may write, bytes.
LARGEST_FILE = 2**28
#: Seconds of work after which a command gets Ctrl-C, as a person would give it, and seconds in which it has to end then.
WORK, PATIENCE = 12.0, 60.0


@dataclass(frozen=True)
class Ended:
    """How a command ended. status: as a shell has it, negative for a signal. peak: of resident memory, bytes. interrupted: by Ctrl-C.

    stopped: why it was killed from outside, `time` or `memory`, or nothing.
    """

    status: int
    out: str
    err: str
    seconds: float
    peak: int
    interrupted: bool = False
    stopped: str = ""


def run(
    words: list[str], folder: Path, environment: dict[str, str], work: float = WORK, patience: float = PATIENCE
) -> Ended:
    """`spfem ...` or `python SCRIPT ...` in `folder`. work: seconds until Ctrl-C."""
    return call(lambda: as_program(words), folder, environment, work, patience)


def call(
    function: Callable[[], object],
    folder: Path,
    environment: dict[str, str],
    work: float = WORK,
    patience: float = PATIENCE,
    memory: int = MEMORY,
) -> Ended:
    """`function` as the whole of a program."""
    said = [folder.parent / f"{folder.name}.{name}" for name in ("out", "err")]
    sys.stdout.flush()
    sys.stderr.flush()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            _confine(folder, environment, said)
            status = _program(function)
        finally:
            os._exit(status)
    status, peak, interrupted, stopped = _watched(child, began, work, patience, memory)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it left behind
    out, err = (file.read_bytes().decode(errors="replace") if file.exists() else "" for file in said)
    for file in said:
        file.unlink(missing_ok=True)
    return Ended(status, out, err, time.monotonic() - began, peak, interrupted, stopped)


def _watched(child: int, began: float, work: float, patience: float, memory: int) -> tuple[int, int, bool, str]:
    """Wait for the end; status, peak, whether it got Ctrl-C, and why it was killed."""
    peak, interrupted, stopped, pause = 0, 0.0, "", 0.002
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), max(peak, usage.ru_maxrss * 1024), interrupted > 0, stopped
        peak = max(peak, _resident(child))
        now = time.monotonic()
        if peak > memory:
            stopped = "memory"
        elif interrupted and now - interrupted > patience:
            stopped = "time"
        if stopped:
            os.kill(child, signal.SIGKILL)
        elif now - began > work and not interrupted:
            interrupted = now
            os.kill(child, signal.SIGINT)
        time.sleep(pause)
        pause = min(pause * 1.2, 0.05)


def _resident(child: int) -> int:
    try:
        return int(Path(f"/proc/{child}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):  # it has ended
        return 0


def _confine(folder: Path, environment: dict[str, str], said: list[Path]) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, file in enumerate(said, 1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until there is a command to stop
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


def as_program(words: list[str]) -> None:
    """What the interpreter would be started with."""
    if words[0] == "spfem":
        from spfem_dist.cli import main

        sys.argv = words
        main()
    else:
        sys.argv = words[1:]
        sys.path.insert(0, str(Path(words[1]).parent))
        runpy.run_path(words[1], run_name="__main__")


def _program(function: Callable[[], object]) -> int:
    """Call it, and end as the interpreter does: threads are waited for, what was registered for the end is called."""
    try:
        status = 0
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            function()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has ended
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    return status & 0xFF
