"""What the end-to-end tests share: commands run as a user runs them, and the losses they left."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
#: DeepSpeed's master weights are single precision whatever the network's is: their rounding grows some times over in each step at the
#: recipe's learning rates, and hardly at a tenth of them.
EXACT = ["--zero.precision", "fp64", "--ccrl.optimizer.lr", "2e-4", "--cerl.optimizer.lr", "2e-4"]

ENVIRONMENT = (
    os.environ
    | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    | {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "SPFEM_HOME": "",
    }
)


def call(*command, cwd=ROOT, timeout=400, **environment):
    """Run a command as a user would; returns the finished process with its output as text."""
    return subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env=ENVIRONMENT | {"PATH": f"{BIN}:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def ok(done):
    """The process, which must have ended well."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def losses(storage, name, job):
    """The training and validation losses of a job by step."""
    history = json.loads((Path(storage) / name / job / "history.json").read_text())
    skip = ("learning_rate", "gradient_norm")
    return {
        (row["step"], key): value
        for row in history
        for key, value in row["values"].items()
        if key.startswith(("train/", "val/")) and not key.endswith(skip)
    }
