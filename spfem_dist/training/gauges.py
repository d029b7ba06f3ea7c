"""A run's figures as Ray metrics: Prometheus scrapes them from every node, `cluster/grafana/spfem.json` draws them.

Ray puts `ray_` before each name, so that `spfem_loss` is scraped as `ray_spfem_loss{run, part, rank, figure}`. MLflow keeps the
curves of a run; these show what runs now, beside the cluster's own figures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from spfem_dist.config import Run
from spfem_dist.training.loop import Recorder
from spfem_dist.training.world import World

#: Every gauge: what it says, and the tags it has beside `TAGS`.
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "spfem_samples_seen": ("Samples seen by the training run, its x-axis.", ()),
    "spfem_samples_per_second": ("Samples trained on each second by all workers, mean over the recent steps.", ()),
    "spfem_step_seconds": ("Length of an optimiser step, median over the recent steps, seconds.", ()),
    "spfem_step_seconds_max": ("The longest of the recent optimiser steps, seconds.", ()),
    "spfem_data_wait_share": ("Share of the recent step time that this worker waited for data, 0 to 1.", ()),
    "spfem_memory_gigabytes": ("Peak memory of this worker: of its GPU's allocator, or resident on a CPU, GB.", ()),
    "spfem_model_flops_utilisation": ("Share of the GPU's peak that the model's arithmetic uses, 0 to 1.", ()),
    "spfem_checkpoint_seconds": ("The last checkpoint: seconds of each of its figures.", ("figure",)),
    "spfem_loss": ("Training losses and monitors, mean over workers since the last point.", ("figure",)),
    "spfem_held_out": ("The same on held-out samples.", ("figure",)),
}
#: Not `job` or `instance`, which Prometheus gives every series itself.
TAGS = ("run", "part", "rank")

#: Figures of `perf/`, as tracking has them, that are gauges; of those marked True every worker has its own.
PERF = {
    "samples_per_s": ("spfem_samples_per_second", False),
    "step_time_p50": ("spfem_step_seconds", True),
    "step_time_max": ("spfem_step_seconds_max", True),
    "data_wait_share": ("spfem_data_wait_share", True),
    "memory_gb": ("spfem_memory_gigabytes", True),
    "mfu": ("spfem_model_flops_utilisation", True),
}
_CHECKPOINT = re.compile(r"perf/(checkpoint\w*)_s")


class Gauges:
    """A recorder that shows the newest figures and hands everything on to `then`, the recorder of rank 0."""

    def __init__(self, run: str, part: str, rank: int, then: Recorder | None = None) -> None:
        from ray.util.metrics import Gauge

        self._rank, self._then = rank, then
        self._gauges: dict[str, Any] = {}
        for name, (description, tags) in GAUGES.items():
            gauge = Gauge(name, description, tag_keys=(*TAGS, *tags))
            gauge.set_default_tags({"run": run, "part": part, "rank": str(rank)})
            self._gauges[name] = gauge

    def metrics(self, values: dict[str, float], samples: int) -> None:
        """Show `values`, named as in tracking (`train/...`, `val/...`, `perf/...`). Workers but rank 0 show their own speed alone."""
        for gauge, value, tags in shown(values, samples, everything=self._rank == 0):
            self._gauges[gauge].set(value, tags)
        if self._then is not None:
            self._then.metrics(values, samples)

    def picture(self, key: str, image: Any, samples: int) -> None:
        """Hand a picture on."""
        if self._then is not None:
            self._then.picture(key, image, samples)

    def text(self, name: str, content: str) -> None:
        """Hand a text on."""
        if self._then is not None:
            self._then.text(name, content)

    def secure(self) -> None:
        """See `Tracker.secure`."""
        if self._then is not None:
            self._then.secure()


def shown(values: Mapping[str, float], samples: int, everything: bool) -> list[tuple[str, float, dict[str, str]]]:
    """What the figures in `values` set: (gauge, value, tags). everything: also what is the same for all workers."""
    found: list[tuple[str, float, dict[str, str]]] = []
    for name, value in values.items():
        group, _, figure = name.partition("/")
        if group == "perf" and figure in PERF:
            gauge, each = PERF[figure]
            if each or everything:
                found.append((gauge, value, {}))
        elif not everything:
            continue
        elif part := _CHECKPOINT.fullmatch(name):
            found.append(("spfem_checkpoint_seconds", value, {"figure": part[1]}))
        elif group in ("train", "val"):
            found.append(("spfem_loss" if group == "train" else "spfem_held_out", value, {"figure": figure}))
    if everything:
        found.append(("spfem_samples_seen", samples, {}))
    return found


def beside(recorder: Recorder | None, run: Run, part: str, world: World) -> Recorder | None:
    """The recorder of this worker: under Ray one that shows gauges too, elsewhere `recorder` itself.

    part: the job's name.
    """
    if world.launcher != "ray":
        return recorder
    return Gauges(run.name, part, world.rank, recorder)
