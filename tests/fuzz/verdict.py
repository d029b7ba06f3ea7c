"""What may not happen, whatever a command was given."""

import os
import re
import signal
from pathlib import Path

from children import PATIENCE, Ended

#: Part of every secret that is planted.
CANARY = "qanary"
#: Characters of a message beyond which nobody reads it; for flags that it does not know tyro lists all that are alike.
LONGEST = 10_000
MARKUP = "MarkupError"
_MOST_READ = 2**25
_FRAME = re.compile(r'\s*File "(?:.*/)?((?:spfem_dist|recipes)/[^"]+)", line (\d+), in (\S+)')

#: A Ctrl-C that falls into a callback of numba's compiler is lost there, which ctypes says by itself; the next one is heard.
_LOST = re.compile(
    r"Exception ignored on calling ctypes callback function: .*llvmlite.*?\nKeyboardInterrupt: ?\n", re.DOTALL
)


def faults(ended: Ended, before: dict[Path, tuple[int, int]], folder: Path, given: int = 0) -> list[str]:
    """Every fault of a command that ended so, beginning with its kind. before: `files` of its folder, when it began.
    given: characters of the command, which a message may repeat.
    """
    said, found = f"{ended.out}\n{ended.err}", []
    if ended.interrupted:
        said = _LOST.sub("", said)
    if ended.stopped == "time":
        found.append(f"hang: still there {PATIENCE:.0f} s after Ctrl-C")
    elif ended.stopped == "memory" or ended.status == -signal.SIGKILL:
        found.append(f"memory: {ended.peak / 2**30:.1f} GiB")
    elif ended.status < 0:
        found.append(f"signal: {signal.Signals(-ended.status).name}")
    if "Traceback (most recent call last)" in said:
        found.append(f"traceback: {_origin(said)}")
    if ended.status > 0 and not said.strip():
        found.append(f"silence: status {ended.status}")
    if ended.status > 0 and len(ended.err) > LONGEST + 2 * given:
        found.append(f"length: {len(ended.err):,} characters")
    if CANARY in said:
        found.append(f"secret: printed, {_around(said)}")
    if MARKUP in said:
        found.append(f"markup: {MARKUP}")
    for path, state in files(folder).items():
        if state != before.get(path) and (CANARY in path.name or CANARY.encode() in _content(path)):
            found.append(f"secret: in the file {path.relative_to(folder)}")
    return found


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file below."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            state = path.lstat()
            found[path] = (state.st_size, state.st_mtime_ns)
    return found


def _content(path: Path) -> bytes:
    if not path.is_file() or path.is_symlink():
        return b""
    with path.open("rb") as file:
        return file.read(_MOST_READ)


def _origin(said: str) -> str:
    """The last line of the first traceback, and where in the project it came from."""
    first = said.partition("Traceback (most recent call last)")[2]
    lines = [line for line in first.splitlines()[1:] if line.strip()]
    error = next((line for line in lines if not line.startswith((" ", "|"))), "?")
    places = _FRAME.findall(first.partition(error)[0])
    where = f" at {places[-1][0]}:{places[-1][1]} in {places[-1][2]}" if places else ""
    return f"{error[:160]}{where}"


def _around(said: str) -> str:
    at = said.index(CANARY)
    return repr(said[max(0, at - 60) : at + 30])
