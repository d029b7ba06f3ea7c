"""What produced a run: source revision, library versions, machine. Tags that let two runs be told apart later."""

from __future__ import annotations

import os
import platform
import shlex
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from spfem_dist.config import Run
from spfem_dist.redact import without_credentials
from spfem_dist.tracking.store import flatten

LIBRARIES = ("torch", "deepspeed", "ray", "mlflow", "accelerate", "webdataset", "transformers")


def revision(folder: Path | None = None) -> str:
    """The git commit of the source, with `+changes` where tracked files differ from it, or `unknown`."""
    folder = folder or Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def tags(run: Run) -> dict[str, str]:
    """Tags of the process that calls: recipe, seed, revision, versions, host, GPUs. Made by the driver for its workers,
    whose copy of the source may lie outside git."""
    found = {
        "recipe": run.recipe,
        "seed": str(run.seed),
        "git.commit": revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "gpu": _gpus(),
        "mlflow.source.name": f"recipes/{run.recipe}.py",
        "mlflow.source.type": "JOB" if os.environ.get("RAY_JOB_ID") else "LOCAL",
    }
    if found["git.commit"] != "unknown":
        found["mlflow.source.git.commit"] = found["git.commit"].removesuffix("+changes")
    for library in LIBRARIES:
        try:
            found[f"version.{library}"] = version(library)
        except PackageNotFoundError:
            continue
    return found


def command(run: Run) -> str:
    """A command that starts `run` again with all its settings, said one by one, so that no default can change it. It has no secrets:
    those of a URI are left out, and belong into the environment."""
    lines = [f"python recipes/{run.recipe}.py"]
    for key, value in flatten(without_credentials(run.model_dump(mode="json"))).items():
        values = value if isinstance(value, list) else [value]
        # The recipe is the script itself, and declares the methods of its jobs.
        if key != "recipe" and not key.endswith((".kind", ".settings_class")) and values:
            lines.append(shlex.join([f"--{key.replace('_', '-')}", *map(str, values)]))
    return " \\\n    ".join(lines) + "\n"


def note(run: Run, part: str | None = None) -> str:
    """Markdown for a person who finds the run later: what learns what from which data, and where it lies. part: one job; None for all."""
    jobs = {name: job for name, job in run.jobs().items() if part in (None, name)}
    lines = [
        f"- **{name}** ({job.form}): {job.steps:,} steps of {job.global_batch} samples" for name, job in jobs.items()
    ]
    priors = getattr(run, "priors", ())
    if priors:
        lines.append(f"- guided by {', '.join(f'`{name}`' for name in priors)}")
    speakers = f" (speakers: {' '.join(run.data.speakers)})" if run.data.speakers else ""
    lines.append(
        f"- shards `{run.data.shards}`, split `{run.data.split}`{speakers}, {run.data.size} pixels, seed {run.seed}"
    )
    lines.append(f"- ZeRO-{run.zero.stage}, {run.zero.precision}; checkpoints in `{run.folder()}`")
    return f"`recipes/{run.recipe}.py`\n\n" + "\n".join(lines)


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
