"""Commands as a user types them, each in a process of its own.

The processes are forked from one that has done the heavy imports (which cost seconds each), so a test can afford many.
"""

import multiprocessing
import multiprocessing.connection
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: For `command(**ROOMS)`: methods that live among the tests alone are found.
ROOMS = {"SPFEM_ROOMS": str(ROOT / "tests" / "rooms")}

#: Imported before the first fork.
PRELOADED = ["deepspeed", "spfem_dist.cli", "spfem_dist.training.plain", "spfem_dist.priors.stage"]
PRELOADED += ["spfem_dist.prepare.job", "spfem_dist.compositors.dgad"]
#: What a command in a process of its own has beside the environment of the tests.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "SPFEM_HOME": ""}
#: Seconds after which a run is taken to hang; far more than a run needs, because the machine may be busy with others.
PATIENCE = 500
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(PRELOADED)


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit status and what it printed."""

    command: str
    code: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        """All output with line breaks and box drawing taken out, for looking up a phrase."""
        return " ".join((self.out + " " + self.err).translate(dict.fromkeys(map(ord, "│╭╮╰╯─"), " ")).split())


def command(*words, workers=1, cwd=ROOT, timeout=400, before=None, **environment) -> Ended:
    """Run `spfem ...` or `python SCRIPT ...` in `cwd` and wait for its end.

    workers: of a recipe, so many processes with the variables that torchrun gives to its own; where one fails the others are ended, and
    its status counts. Rank 0's output comes first. before: a function of a test module that is called in the process first, to break
    something there.
    """
    words = [str(word) for word in words]
    settings = os.environ | {"SPFEM_HOME": "", "DS_ACCELERATOR": "cpu", "COLUMNS": "200"} | environment
    with tempfile.TemporaryDirectory() as scratch:
        processes, outs, errs = [], [], []
        for ranked in _ranks(workers):
            files = [f"{scratch}/{name}-{len(processes)}" for name in ("out", "err")]
            outs, errs = [*outs, files[0]], [*errs, files[1]]
            processes.append(
                _FORKS.Process(target=_run, args=(words, str(cwd), dict(settings | ranked), files, before))
            )
            processes[-1].start()
        code = _ended(processes, timeout)
        out, err = ("".join(Path(file).read_text() for file in files if Path(file).exists()) for files in (outs, errs))
    return Ended(" ".join(words), code, out, err)


def process(*words, **environment) -> Ended:
    """Run `python *words` in a process of its own: a launcher, or a recipe that starts Ray."""
    line = [sys.executable, *map(str, words)]
    done = subprocess.run(
        line, cwd=ROOT, env=os.environ | ENVIRONMENT | environment, capture_output=True, text=True, timeout=PATIENCE
    )
    return Ended(" ".join(line), done.returncode, done.stdout, done.stderr)


def _ranks(workers) -> list[dict[str, str]]:
    """The variables of each process."""
    if workers == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(workers)}
    return [place | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(workers)]


def _ended(processes, timeout) -> int | None:
    """Wait for all processes, or the first that fails; its status, else 0. None where time is up."""
    deadline = time.monotonic() + timeout
    waiting = {process.sentinel: process for process in processes}
    failed: list[int] = []
    while waiting and not failed and time.monotonic() < deadline:
        for sentinel in multiprocessing.connection.wait(list(waiting), deadline - time.monotonic()):
            process = waiting.pop(sentinel)
            process.join()
            failed += [process.exitcode] if process.exitcode else []
    late = bool(waiting) and not failed
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()
        process.close()
    return None if late else next(iter(failed), 0)


def well(done: Ended) -> Ended:
    """The command, which must have ended well."""
    assert done.code == 0, f"{done.command} ended with {done.code}\n{done.out[-3000:]}\n{done.err[-3000:]}"
    return done


def _run(words, cwd, environment, files, before) -> None:
    for number, file in enumerate(files, 1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if before is not None:
        before()
    # pytest's own: a user's Python finds neither recipes nor what lies beside the tests.
    pytests = (ROOT / "recipes", ROOT / "tests")
    sys.path[:] = [entry for entry in sys.path if not any(map(Path(entry).is_relative_to, pytests))]
    if words[0] == "spfem":
        from spfem_dist.cli import main

        sys.argv = words
        main()
    else:
        assert words[0] == "python", f"neither spfem nor a recipe: {words}"
        sys.argv = words[1:]
        sys.path.insert(0, str((Path(cwd) / words[1]).parent))
        runpy.run_path(words[1], run_name="__main__")
