"""`spfem`: prepare recordings, evaluate what was trained, look after weights. Training is started by the recipes."""

from __future__ import annotations

import os
import sys

import tyro
from pydantic import ValidationError

from spfem_dist.prepare.plan import PrepareSettings

app = tyro.extras.SubcommandApp()
evaluate = tyro.extras.SubcommandApp()
weights = tyro.extras.SubcommandApp()
app.command(evaluate, name="evaluate")
app.command(weights, name="weights")


@app.command(name="prepare")
def prepare(settings: tyro.conf.OmitArgPrefixes[PrepareSettings]) -> None:
    """Turn recordings into shards: `spfem prepare mead ROOT --out shards/mead`."""
    from spfem_dist.prepare import job

    job.run(settings)


@evaluate.command(name="priors")
def evaluate_priors(run: tyro.conf.Positional[str], released: str = "", probe_groups: int = 48) -> None:
    """Score the priors of a finished run on held-out speakers and sentences.

    Args:
        run: Folder of the run, for instance runs/cdrl-stage1 or s3://bucket/runs/cdrl-stage1.
        released: Folder of a run with the released form, scored in the same table.
        probe_groups: Training groups on which the linear probes learn.
    """
    from spfem_dist.evaluation.runs import evaluate_run

    evaluate_run(run, released, probe_groups)


@weights.command(name="list")
def list_weights() -> None:
    """Show every known weights file: source, licence, size, and whether it is here."""
    from rich.console import Console

    from spfem_dist import weights as registry

    Console().print(registry.table())


@weights.command(name="pull")
def pull_weights(name: tyro.conf.Positional[str]) -> None:
    """Fetch weights that may be fetched, and verify them.

    Args:
        name: Name in `spfem weights list`, for instance face-mesh.
    """
    from spfem_dist import weights as registry

    print(f"{name}: {registry.pull(name)}")


@weights.command(name="check")
def check_weights() -> None:
    """Verify the weights that are here against their hashes."""
    from spfem_dist import weights as registry

    problems = 0
    for name, state, detail in registry.check():
        print(f"{name}: {state}{f' ({detail})' if detail else ''}")
        problems += state not in ("ok", "missing")
    sys.exit(1 if problems else 0)


def main() -> None:
    """Entry point of `spfem`; an error is one message, with its origin under SPFEM_TRACEBACK=1."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    try:
        app.cli(description=__doc__)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        print("bad settings:\n" + "\n".join(lines), file=sys.stderr)
        sys.exit(2)
    except (OSError, RuntimeError, ValueError) as error:
        if os.environ.get("SPFEM_TRACEBACK"):
            raise
        sys.exit(f"error: {error}\n(set SPFEM_TRACEBACK=1 to see where it came from)")
