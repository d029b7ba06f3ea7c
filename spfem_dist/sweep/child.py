"""The process of one trial: the launcher's own path, with a run that comes by standard input.

The first line is JSON: `script` (of the recipe), `run` (its settings), `values` (those of the trial), `local`. Where the input ends, whoever
started this process is gone: the run is stopped as by SIGTERM, with a checkpoint, so that the next attempt goes on from there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from spfem_dist.errors import errors_in_words
from spfem_dist.sweep.space import with_values
from spfem_dist.training.launch import recipe_at, start


def main() -> None:
    """Train; the process ends as a recipe does: 0, 1 (failed), 2 (a bad value) or 130 (stopped)."""
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_with_the_parent, name="parent", daemon=True).start()
    with errors_in_words():
        recipe, stage = recipe_at(asked["script"])
        run = with_values(type(recipe()).model_validate(asked["run"]), asked["values"])
        if start(run, stage, local=asked["local"]) == "stopped":
            sys.exit(130)


def _stop_with_the_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
