"""`spfem plan --simulate`: the plan's largest size in virtual time, and what breaks first beyond it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from spfem_dist.config import Run
from spfem_dist.corpora.splits import Split
from spfem_dist.planning import limits, show_simulation
from spfem_dist.planning.constants import Constants
from spfem_dist.planning.predict import Prediction, Shape
from spfem_dist.planning.simulate import Case, simulate
from spfem_dist.shard_format import ShardIndex
from spfem_dist.shard_table import TABLED_FROM
from spfem_dist.streaming.order import Order
from spfem_dist.streaming.reader import ShardReader

#: Checkpoints of a short run that looks for limits.
PROBED = 6
#: Bytes of an index for each utterance group, as JSON and as a table (`benchmarks/index.py`).
GROUP_BYTES = {False: 700, True: 144}


@dataclass(frozen=True)
class SimulationOptions:
    """hours: to simulate. lost: hours at which hosts are lost, None draws them. until: largest size of the search, 0 for none.

    shards_times: so many times the shards that there are. graphs: file to draw to, with the job's name put after its own.
    """

    hours: float = 24.0
    lost: tuple[float, ...] | None = None
    until: int = 4096
    shards_times: int = 1
    graphs: Path | None = None


def opened_index(run: Run) -> ShardIndex:
    """The index of the run's shards."""
    return ShardReader.of(run.data).index


def simulated(
    console: Console,
    run: Run,
    shape: Shape,
    planned: Prediction,
    constants: Constants,
    per_node: int,
    name: str,
    index: ShardIndex | None,
    how: SimulationOptions,
) -> dict[str, Any]:
    """Print the simulated run beside `planned`, and what breaks first; returns the figures."""
    services = constants.services.model_copy(update={"patience_s": run.storage.patience_s})
    constants = constants.model_copy(update={"services": services})
    elastic = not isinstance(run.scaling.workers, int)
    case = Case(
        run, name, shape, constants, planned.workers, per_node, planned.global_batch, elastic=elastic, seed=run.seed
    )
    if index is not None:
        case = with_data(case, index, how.shards_times)
    began = time.perf_counter()
    outcome = simulate(case, how.hours, how.lost)
    took = time.perf_counter() - began
    show_simulation.show(console, outcome, planned)
    console.print(f"{outcome.hours:.1f} hours were simulated in {took:.1f} s")
    steps = PROBED * run.checkpoint.every_steps
    outcomes = dict(limits.probed(case, how.until, steps)) if how.until else {}
    found = limits.reached(outcomes) if outcomes else []
    if found:
        show_simulation.show_limits(console, found, outcomes)
    if how.graphs:
        show_simulation.draw(how.graphs.with_stem(f"{how.graphs.stem}-{name}"), outcome, found)
    return {
        "hours": outcome.hours,
        "steps": outcome.steps,
        "step_s": outcome.step_s,
        "samples": outcome.samples,
        "samples_per_s": outcome.samples / max(1e-9, 3600 * outcome.hours),
        "start_s": outcome.start_s,
        "checkpoints": outcome.checkpoints,
        "upload_s": outcome.upload_s,
        "stall_s": outcome.stall_s,
        "refused_share": outcome.refused_share,
        "lost_hosts": outcome.losses,
        "outage_s": outcome.outage_s,
        "mlflow_busy": outcome.mlflow_busy,
        "took_s": took,
        "limits": {
            row.limit.name: {"bound": row.limit.bound, "breaks_at": row.breaks_at} | {"values": row.values}
            for row in found
        },
    }


def with_data(case: Case, index: ShardIndex, times: int) -> Case:
    """The case with the order of its training part over so many times these shards."""
    if times > 1:
        index = ShardIndex.model_construct(**dict(index) | {"shards": list(index.shards) * times})
    order = Order(index, Split.of(case.run.data).part("train"), case.run.seed)
    groups = order.coverage.groups
    sizes = np.array([shard.bytes for shard in index.shards], float)
    table = groups > TABLED_FROM
    return replace(case, order=order, shard_bytes=sizes, index_bytes=groups * GROUP_BYTES[table], index_once=table)
