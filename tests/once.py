"""What several test files need and none changes, made once for all processes of a test run."""

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def made_once(factory, name: str, fill: Callable[[Path], None]) -> Path:
    """The folder that `fill` filled in the first process of this test run that asked for `name`.

    factory: pytest's tmp_path_factory. Where filling failed, whoever asks next tries again in another folder.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of all workers
    made = base / f"{name}.made"
    with FileLock(base / f"{name}.lock"):
        if not made.exists():
            folder = factory.mktemp(name)
            fill(folder)
            made.write_text(str(folder))
        return Path(made.read_text())
