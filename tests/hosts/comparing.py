"""Losses of a run on hosts against those of one process."""

from __future__ import annotations

#: Both priors in seconds: a few steps of a small picture, computed in double so that only faults make a difference.
TINY = (
    *("--data.size", "32", "--zero.precision", "fp64", "--tracking.log-every-steps", "1"),
    *("--tracking.pictures-every-steps", "4", "--validation.every-steps", "4", "--validation.samples", "4"),
    *("--checkpoint.every-steps", "4", "--ccrl.steps", "8", "--ccrl.global-batch", "4"),
    *("--cerl.steps", "6", "--cerl.global-batch", "4"),
)

#: The content prior alone, for long enough that much can happen to it.
LONG = (
    *("--data.size", "32", "--zero.precision", "fp64", "--tracking.log-every-steps", "1"),
    *("--tracking.pictures-every-steps", "0", "--validation.every-steps", "10", "--validation.samples", "4"),
    *("--cerl.enabled", "False", "--ccrl.steps", "60", "--ccrl.global-batch", "4"),
    # A fifteenth of the recipe's: at its own, with so few samples, what single-precision updates round has grown to 1e-4
    # by step 60 between one process and two that nothing disturbs.
    *("--ccrl.optimizer.lr", "2e-4"),
)


def losses_of(history: list[dict]) -> dict[tuple[int, str], float]:
    """Training and validation losses of a history, by step and name."""
    skip = ("learning_rate", "gradient_norm")
    return {
        (row["step"], key): value
        for row in history
        for key, value in row["values"].items()
        if key.startswith(("train/", "val/")) and not key.endswith(skip)
    }


def same_losses(history: list[dict], wanted: dict[tuple[int, str], float], within: float = 1e-5) -> float:
    """Assert that every loss of every step is there and agrees; returns the largest difference."""
    found = losses_of(history)
    assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())[:8]
    largest = max((abs(found[key] - wanted[key]), key) for key in wanted)
    assert largest[0] <= within, largest
    return largest[0]


def curves(client, shared, run: str, prior: str) -> dict[str, list]:
    """The points of every loss of a prior in MLflow, by name, in order."""
    run_id = shared.json(f"{run}/{prior}/state.json")["mlflow_run"]
    names = [n for n in client.get_run(run_id).data.metrics if n.startswith(("train/", "val/"))]
    return {name: sorted(client.get_metric_history(run_id, name), key=lambda point: point.step) for name in names}
