"""Training without Ray: in this process, or in the processes that torchrun or `accelerate launch` started."""

from __future__ import annotations

import torch.distributed as dist

from spfem_dist.config import Run
from spfem_dist.stage import Stage
from spfem_dist.training import engines, ready
from spfem_dist.training.runfolder import RunFolder, announce, pending_jobs
from spfem_dist.training.screen import Screen
from spfem_dist.training.worker import tracked, work
from spfem_dist.training.world import PlainWorld, device_of


def train_plain(run: Run, stage: Stage, quiet: bool = False) -> str:
    """Train every job of `run`, one after the other; returns `finished` or `stopped`. quiet: show no progress."""
    probe = PlainWorld(run.folder())
    run = run.model_copy(update={"scaling": run.scaling.model_copy(update={"workers": probe.size})})
    run = type(run).model_validate(run.model_dump())  # the batch must divide by the real number of processes
    digest = ready.shards(run, stage, Screen(quiet=quiet))
    engines.connect(device_of(probe))
    folder = RunFolder(run)
    if probe.rank != 0:
        return _jobs(run, stage, Screen(quiet=True), *_from_rank_zero(None))
    with folder.locked() as holder, Screen(quiet=quiet) as screen:
        resumed, changed = folder.open(), folder.bind_data(digest)
        announce(run, screen, resumed, f"{probe.launcher}, {probe.size} process{'es' if probe.size > 1 else ''}")

        def train(parent: str) -> str:
            told = _from_rank_zero((pending_jobs(run, stage, folder, screen), parent, holder))
            return _jobs(run, stage, screen, *told)

        return tracked(run, folder, changed, train)


def _jobs(run: Run, stage: Stage, screen: Screen, names: list[str], parent: str | None, holder: int) -> str:
    for name in names:
        world = PlainWorld(f"{run.folder()}/{name}", screen, holder)
        with world.stop_on_signals():
            if work(run, stage, name, world, parent) == "stopped":
                return "stopped"
    return "finished"


def _from_rank_zero(value: tuple[list[str], str | None, int] | None) -> tuple[list[str], str | None, int]:
    box = [value]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(box)
    assert box[0] is not None
    return box[0]
