"""Commands as a user types them, each in a process of its own.

The processes are forked from one that has done the heavy imports (which cost seconds each), so a test can afford many.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Imported before the first fork.
PRELOADED = ["deepspeed", "spfem_dist.cli", "spfem_dist.training.plain", "spfem_dist.priors.stage"]
PRELOADED += ["spfem_dist.prepare.job"]
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


def command(*words, cwd=ROOT, timeout=400, before=None, **environment) -> Ended:
    """Run `spfem ...` or `python SCRIPT ...` in `cwd` and wait for its end.

    before: a function of a test module that is called in the process first, to break something there.
    """
    words = [str(word) for word in words]
    settings = os.environ | {"SPFEM_HOME": "", "DS_ACCELERATOR": "cpu", "COLUMNS": "200"} | environment
    with tempfile.TemporaryDirectory() as scratch:
        files = [str(Path(scratch) / name) for name in ("out", "err")]
        process = _FORKS.Process(target=_run, args=(words, str(cwd), dict(settings), files, before))
        process.start()
        process.join(timeout)
        late = process.is_alive()
        if late:
            process.kill()
            process.join()
        out, err = (Path(file).read_text() if Path(file).exists() else "" for file in files)
        code = None if late else process.exitcode
        process.close()
    return Ended(" ".join(words), code, out, err)


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
    if words[0] == "spfem":
        from spfem_dist.cli import main

        sys.argv = words
        main()
    else:
        assert words[0] == "python", f"neither spfem nor a recipe: {words}"
        sys.argv = words[1:]
        sys.path.insert(0, str((Path(cwd) / words[1]).parent))
        runpy.run_path(words[1], run_name="__main__")
