"""What one training process does for one job, whoever started it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path

import torch
from accelerate.utils import set_seed

from spfem_dist.config import Run
from spfem_dist.errors import after_an_error
from spfem_dist.faults import inject
from spfem_dist.saved import refuse_not_finite
from spfem_dist.stage import Job, Stage
from spfem_dist.storage import open_filesystem, set_retry_policy
from spfem_dist.tracking import tracker as tracking
from spfem_dist.tracking.models import register_model
from spfem_dist.training import engines, gauges, loop
from spfem_dist.training.held_out import HeldOut
from spfem_dist.training.memory import keep_memory
from spfem_dist.training.runfolder import RunFolder
from spfem_dist.training.screen import Status
from spfem_dist.training.world import World, device_of, from_rank_zero

#: How a job ended, in MLflow's words.
END = {"finished": tracking.FINISHED, "stopped": tracking.KILLED, "failed": tracking.FAILED}


def work(run: Run, stage: Stage, name: str, world: World, parent_run: str | None) -> str:
    """Train the job `name` of `run` in this process; returns `finished` or `stopped`. Every rank calls it.

    parent_run: MLflow id of the run that this job's curves belong under; None where tracking is off.
    """
    set_retry_policy(run.storage)
    device = device_of(world)
    if device.type == "cpu":
        torch.set_num_threads(run.scaling.threads_per_worker)
        keep_memory()
    engines.connect(device)
    set_seed(run.seed)  # initial weights are the same on every rank and at every start
    # Of a run between two sizes this is the one that it has now, in tracking too.
    run = run.model_copy(update={"scaling": run.scaling.model_copy(update={"workers": world.size})})
    with inject.armed(run, name, world), closing(stage.job(run, name, world.rank, world.size, device)) as job:
        folder = RunFolder(run)
        if world.rank != 0:
            with _watched(run, world, ""):
                outcome = loop.train(job, run, world, device, gauges.beside(None, run, name, world), _Nobody())
            _export(job, run, outcome, folder, world)
            return outcome.status
        return _lead(run, job, world, device, folder, parent_run)


def _lead(run: Run, job: Job, world: World, device: torch.device, folder: RunFolder, parent_run: str | None) -> str:
    """Rank 0: the same training, with tracking, a status line and the export."""
    known = folder.read(f"{job.name}/state.json", {})
    tracker = tracking.start(
        run,
        job.name,
        parent_run_id=parent_run,
        resume_run_id=known.get("mlflow_run"),
        tags={"launcher": world.launcher, "method": job.kind},
        samples=known.get("samples", 0),
    )
    try:
        folder.write(f"{job.name}/state.json", {"status": "running", "mlflow_run": tracker.run_id})
        facts = job.dataset
        tracker.dataset(facts["name"], facts["digest"], facts["source"], facts["counts"])
        recorder = HeldOut(folder, job.name, tracker) if run.tracking.held_out else tracker
        with _watched(run, world, tracker.run_id):
            outcome = loop.train(job, run, world, device, gauges.beside(recorder, run, job.name, world), world)
        tracker.flush(
            run.tracking.wait_s, patient=True
        )  # the last points are there before the registered model refers to them
        exported = _export(job, run, outcome, folder, world, tracker.run_id, facts["digest"])
        folder.write(f"{job.name}/history.json", outcome.progress.history)
    except BaseException as error:
        with after_an_error(f"the MLflow run of {job.name} could not be ended"):
            tracker.finish(_end_of(error), f"{type(error).__name__}: {error}")
        with after_an_error(f"{folder.location}/{job.name}/state.json could not be written"):
            failed = {"status": "failed", "mlflow_run": tracker.run_id, "reason": str(error)[:2000]}
            folder.write(f"{job.name}/state.json", failed)
        raise
    tracker.finish(END[outcome.status], outcome.status, run.tracking.wait_s, patient=outcome.status == "finished")
    folder.write(
        f"{job.name}/state.json",
        {"status": outcome.status, "mlflow_run": tracker.run_id, "step": outcome.progress.step}
        | {"samples": outcome.progress.samples, "model": exported},
    )
    return outcome.status


def tracked(run: Run, folder: RunFolder, tags: dict[str, str], train: Callable[[str], str]) -> str:
    """Train within the MLflow run of the whole: what `train(its id)` returns, `finished` or `stopped`, the run is told, and its failure too."""
    parent = tracking.start_parent(run, folder.read("state.json", {}).get("mlflow_run"), tags)
    try:
        folder.update_state(mlflow_run=parent)
        status = train(parent)
    except BaseException as error:
        with after_an_error(f"the MLflow run of {run.name} could not be ended"):
            tracking.finish_parent(run, parent, _end_of(error), f"{type(error).__name__}: {error}")
        raise
    tracking.finish_parent(run, parent, END[status])
    return status


def _end_of(error: BaseException) -> str:
    """What MLflow is told of a run that this error ends."""
    return END["stopped" if isinstance(error, KeyboardInterrupt) else "failed"]


def _watched(run: Run, world: World, run_id: str) -> AbstractContextManager[None]:
    """System metrics of this process's node, to rank 0's MLflow run `run_id`. A collective."""
    if not (run.tracking.uri and run.tracking.system_metrics):
        return nullcontext()
    shared = from_rank_zero(world, lambda: run_id)
    if world.local_rank != 0:
        return nullcontext()
    from spfem_dist.tracking import nodes

    return nodes.watched(run, shared, world.node_rank)


def _export(
    job: Job,
    run: Run,
    outcome: loop.Outcome,
    folder: RunFolder,
    world: World,
    run_id: str = "",
    digest: str = "",
) -> str | None:
    """Write the finished networks, or their averages, beside their checkpoints and register them. A collective. digest: of the shards."""
    if outcome.status != "finished":
        return None
    outcome.averages.exchange()
    with ExitStack() as held:
        networks = {key: held.enter_context(engines.whole_parameters(e)) for key, e in outcome.engines.items()}
        if world.rank != 0:
            return None
        for key, network in networks.items():
            refuse_not_finite(network.state_dict(), f"{key} of {job.name}", "it is not exported")
        scratch = held.enter_context(tempfile.TemporaryDirectory())
        job.export(networks, Path(scratch))
        target = f"{folder.location}/{job.name}/model"
        fs, root = open_filesystem(target)
        fs.makedirs(root, exist_ok=True)
        for file in sorted(Path(scratch).iterdir()):
            fs.put_file(str(file), f"{root}/{file.name}")
        if run_id and run.tracking.register_models and job.registers:
            figures = {key: value for row in outcome.progress.history[-2:] for key, value in row["values"].items()}
            tags = {"data.digest": digest}
            best = run.tracking.champion_metric
            try:
                version = register_model(
                    run.tracking.uri,
                    scratch,
                    job.name,
                    run_id,
                    figures,
                    outcome.progress.samples,
                    tags,
                    champion_metric=best,
                )
                world.say(f"{job.name}: registered as models:/{job.name}/{version}")
            except tracking.TrackingUnavailable as error:  # what was trained is whole and can be named by its folder
                world.say(f"{job.name}: not registered as a model ({error}); name it by its folder, {target}")
    return target


class _Nobody:
    """The terminal of every rank but 0."""

    def say(self, line: str) -> None: ...
    def show(self, status: Status) -> None: ...


def worker_environment(threads: int, gpu: bool) -> dict[str, str]:
    """Environment of a worker process: compute threads, the accelerator, quiet libraries.

    Credentials are not passed on: Ray shows a runtime environment in its logs and dashboard. Workers on this machine
    inherit the environment of the node; on a cluster each node has its own.
    """
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    environment |= engines.RECORDER
    if not gpu:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment | {k: v for k, v in os.environ.items() if k.startswith("SPFEM_")}
