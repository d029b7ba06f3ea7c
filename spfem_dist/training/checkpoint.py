"""What a checkpoint holds, how it is written and how a rank reads its own part back.

A checkpoint folder holds a folder for each network (DeepSpeed's shards, one file for each rank), `state.json` (where the run stands) and
`history.jsonl` (every logged point so far, so that an interrupted run ends with the same history as an uninterrupted one).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spfem_dist.faults import inject
from spfem_dist.training import watchdog
from spfem_dist.training.world import World, fetched


class CheckpointError(RuntimeError):
    """A checkpoint that cannot continue this run; the message says why and what to do."""


@dataclass
class Progress:
    """Where a run stands: optimiser steps done, samples seen, what was logged, and the arithmetic counted at its first step."""

    step: int = 0
    samples: int = 0
    world: int = 1
    zero_stage: int = 0
    flops_per_sample: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def save(trained: Mapping[str, Any], progress: Progress, world: World, metrics: dict[str, float]) -> None:
    """Write every rank's part and commit it through `world`. A collective."""
    watchdog.doing("writing a checkpoint")
    folder = Path(tempfile.mkdtemp(prefix="spfem-checkpoint-"))
    try:
        for name, engine in trained.items():
            engine.save_checkpoint(str(folder), tag=name, save_latest=False)
        if world.rank == 0:
            state = asdict(progress)
            history = state.pop("history")
            (folder / "state.json").write_text(json.dumps(state))
            (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
            for stray in folder.glob("*.py"):  # DeepSpeed's recovery script: the export does that job
                stray.unlink()
        inject.during("checkpoint", progress.step)
        world.commit({"step": progress.step, "samples": progress.samples, **metrics}, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def restore(trained: Mapping[str, Any], location: str, world: World) -> Progress:
    """Load this rank's part of the checkpoint at `location` into the engines, by name. A collective.

    Raises CheckpointError when the checkpoint was written by another number of workers or another ZeRO stage.
    """
    wanted = ["state.json", "history.jsonl"]
    wanted += [f"{name}/{part}" for name in trained for part in ("*model_states.pt", f"*_rank_{world.rank}_*")]
    stage = next(iter(trained.values())).zero_optimization_stage()
    with fetched(location, wanted) as folder:
        state = json.loads((folder / "state.json").read_text())
        if state["zero_stage"] != stage:
            raise CheckpointError(
                f"{location} was written with zero.stage {state['zero_stage']}, this run has {stage}: "
                f"continue with --zero.stage {state['zero_stage']}, or start under another --name"
            )
        if state["world"] != world.size and state["zero_stage"] > 0:
            raise CheckpointError(
                f"{location} holds optimiser shards of {state['world']} workers, this run has {world.size}: "
                f"continue with --scaling.workers {state['world']}, or start under another --name"
            )
        for name, engine in trained.items():
            loaded, _ = engine.load_checkpoint(str(folder), tag=name)
            if loaded is None:
                raise CheckpointError(
                    f"DeepSpeed found no checkpoint files under {location}/{name}; start under another --name"
                )
        lines = (folder / "history.jsonl").read_text().splitlines()
    return Progress(**state, history=[json.loads(line) for line in lines])
