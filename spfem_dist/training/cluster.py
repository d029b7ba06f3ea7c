"""Training on Ray: connect to a cluster (or start one here), run each job as a Ray Train job, side by side where there is room."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from spfem_dist.config import Run
from spfem_dist.ray_address import authenticate, start_here
from spfem_dist.stage import Stage
from spfem_dist.storage import open_filesystem
from spfem_dist.training import ready
from spfem_dist.training.mailbox import DriverMailbox
from spfem_dist.training.runfolder import LaunchError, RunFolder, announce, pending_jobs
from spfem_dist.training.screen import Screen, Status
from spfem_dist.training.worker import tracked, work, worker_environment
from spfem_dist.training.world import RayWorld

#: Errors of the run itself: another attempt would end the same way, so it is not made.
PERMANENT = (
    *("TrainingError", "CheckpointError", "RunConflict", "TrackingUnavailable", "MissingWeights", "WrongWeights"),
    "FaultError",
)


class _ToMailbox(logging.Handler):
    """Warnings of this package on any worker, as lines of the driver's terminal."""

    def __init__(self, mailbox: Any, rank: int) -> None:
        super().__init__(logging.WARNING)
        self._mailbox, self._rank = mailbox, rank

    def emit(self, record: logging.LogRecord) -> None:
        self._mailbox.say.remote(f"worker {self._rank}: {record.getMessage()}")


class _Nodes:
    """Has Ray count the room for workers anew as soon as a node has come or gone: by itself it does so every 20 s."""

    def __init__(self) -> None:
        self._known = self._alive()

    def look(self) -> None:
        """Whether the nodes are still the same."""
        before, self._known = self._known, self._alive()
        if self._known != before:
            # What elastic runs ask for their room; it has no public door. Whoever asks with recompute has it look at the nodes.
            from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as coordinator

            coordinator.get_or_create_autoscaling_coordinator().get_reserved_resources.remote("", recompute=True)

    @staticmethod
    def _alive() -> set[str]:
        import ray

        return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def connect(run: Run) -> None:
    """Join the cluster that RAY_ADDRESS or the job names, or start Ray on this machine."""
    authenticate()
    import ray

    # Ray Train looks after its workers once in this time: how soon a lost one is noticed.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    if run.scaling.least < run.scaling.most:
        # After the loss of a node Ray first looks for room for the old number of workers for so long (60 s if not told), before it
        # takes fewer. Room on nodes that are there is found within a second; starting the workers is not counted.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID"):
        ray.init(log_to_driver=False)
        return
    cpus = max(os.cpu_count() or 1, int(run.scaling.most * run.scaling.cpus_per_worker))
    start_here(cpus)


def train_on_ray(run: Run, stage: Stage, quiet: bool = False) -> str:
    """Train every job of `run` by Ray Train; returns `finished` or `stopped`. quiet: show no progress."""
    authenticate()
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder = RunFolder(run)
    with folder.locked() as holder, Screen(quiet=quiet) as screen:
        resumed = folder.open()
        connect(run)
        _carry_recipe(run)
        changed = folder.bind_data(ready.shards(run, stage, screen, on_ray=True))
        resources = ray.cluster_resources()
        gpu = run.scaling.gpu if run.scaling.gpu is not None else resources.get("GPU", 0) > 0
        _check_room(run, resources, gpu)
        announce(run, screen, resumed, f"Ray, {_workers(run)} workers on {'GPUs' if gpu else 'CPUs'}")
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Beside the driver: on a node of workers the mailbox would go away with the node.
        mailbox = ray.remote(DriverMailbox).options(num_cpus=0, scheduling_strategy=here).remote()

        def train(parent: str) -> str:
            names = pending_jobs(run, stage, folder, screen)
            fit = partial(_fit, run, stage, parent=parent, holder=holder, mailbox=mailbox, gpu=gpu)
            return _fit_all(run, names, fit, mailbox, folder, gpu, resources, screen)

        return tracked(run, folder, changed, train)


def _carry_recipe(run: Run) -> None:
    """Send the class of `run` to the workers with its value: a recipe beside the package can be imported here, not there."""
    from ray import cloudpickle

    module = type(run).__module__
    if module != "__main__" and not module.startswith("spfem_dist."):
        cloudpickle.register_pickle_by_value(sys.modules[module])


def _fit_all(
    run: Run,
    names: list[str],
    fit: Callable[[str], None],
    mailbox: Any,
    folder: RunFolder,
    gpu: bool,
    resources: dict[str, float],
    screen: Screen,
) -> str:
    """Fit the jobs in threads, so that the main thread can hear Ctrl-C and SIGTERM and ask the workers to stop."""
    import ray

    need, key = (run.scaling.most, "GPU") if gpu else (run.scaling.most * run.scaling.cpus_per_worker, "CPU")
    room = max(1, int(resources.get(key, 0) // need))
    done = threading.Event()
    stopping = threading.Event()

    def ask(_number: int, _frame: object) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        screen.say("stopping: a checkpoint is being written (once more to stop at once)")
        mailbox.stop.remote()

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ThreadPoolExecutor(max_workers=min(room, len(names) or 1)) as pool:
            futures = [pool.submit(fit, name) for name in names]
            for future in futures:
                future.add_done_callback(lambda _f: done.set() if all(f.done() for f in futures) else None)
            nodes = _Nodes() if run.scaling.least < run.scaling.most else None
            while futures and not done.wait(1.0):
                _look(mailbox, screen)
                if nodes is not None:
                    nodes.look()
            _look(mailbox, screen)
            errors = [error for future in futures if (error := future.exception())]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if message := ray.get(mailbox.failure.remote()):
        raise LaunchError(message)
    if errors:
        raise LaunchError(f"{run.name}: {_root_cause(errors[0])}") from errors[0]
    unfinished = [name for name in names if folder.read(f"{name}/state.json", {}).get("status") != "finished"]
    if unfinished and not stopping.is_set():
        raise LaunchError(f"{', '.join(unfinished)} ended without finishing; the worker logs above say why")
    return "stopped" if unfinished else "finished"


def _look(mailbox: Any, screen: Screen) -> None:
    """Show what the workers left in the mailbox."""
    import ray

    lines, statuses = ray.get(mailbox.take.remote())
    for line in lines:
        screen.say(line)
    for status in statuses:
        screen.show(Status(**status))


def _fit(run: Run, stage: Stage, name: str, parent: str | None, holder: int, mailbox: Any, gpu: bool) -> None:
    """One job as one Ray Train run; Ray starts it again from its last committed checkpoint when a worker dies."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from spfem_dist.training.handover import HandoverConfig

    if ray.get(mailbox.stopping.remote()):
        return
    scaling = run.scaling
    TorchTrainer(
        # Bound, not in train_loop_config: Ray shows that one in its dashboard and writes it to its logs, and a URI may hold a password.
        partial(_ray_worker, run, stage, name, parent, holder, mailbox),
        torch_config=HandoverConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(  # type: ignore[call-arg]  # as RunConfig below
            num_workers=scaling.workers,  # type: ignore[arg-type]
            elastic_resize_monitor_interval_s=scaling.resize_check_s,
            use_gpu=gpu,
            resources_per_worker={"CPU": scaling.cpus_per_worker} | ({"GPU": 1} if gpu else {}),
            placement_strategy=scaling.placement,
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # typed as the old API, is the new one
            name=name,
            failure_config=FailureConfig(max_failures=scaling.max_failures),
            worker_runtime_env={"env_vars": worker_environment(scaling.threads_per_worker, gpu)},
            **_storage(run.folder()),
        ),
    ).fit()


def _ray_worker(run: Run, stage: Stage, name: str, parent: str | None, holder: int, mailbox: Any) -> None:
    """Ray Train's entry into one worker."""
    import ray

    if ray.get(mailbox.failure.remote()):
        return
    world = RayWorld(f"{run.folder()}/{name}", mailbox, holder)
    logging.getLogger("spfem_dist").addHandler(_ToMailbox(mailbox, world.rank))
    try:
        work(run, stage, name, world, parent)
    except Exception as error:
        if type(error).__name__ in PERMANENT:
            ray.get(mailbox.fail.remote(str(error)))
        raise


def _storage(location: str) -> dict[str, Any]:
    """Ray Train's storage arguments; S3 goes through the same door as every other access to it here.

    Beware: Arrow's copy_files, with which Ray copies checkpoints, loses an error that a Python file raises when it is closed, and
    S3 takes small files on closing (pyarrow 25). What must be there is put by our own file system, or looked at afterwards.
    """
    if not location.startswith("s3://"):
        return {"storage_path": location}
    import pyarrow.fs

    fs, path = open_filesystem(location)
    return {"storage_path": path, "storage_filesystem": pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs))}


def _check_room(run: Run, resources: dict[str, float], gpu: bool) -> None:
    """Refuse a run that would wait forever for workers that the cluster cannot hold."""
    scaling = run.scaling
    if gpu and resources.get("GPU", 0) < scaling.least:
        raise LaunchError(
            f"scaling.workers is {_workers(run)} with one GPU each, but the cluster has {resources.get('GPU', 0):g} GPUs: "
            f"add nodes, lower --scaling.workers, or train on CPUs with --scaling.gpu False"
        )
    if resources.get("CPU", 0) < scaling.least * scaling.cpus_per_worker:
        raise LaunchError(
            f"{_workers(run)} workers with {scaling.cpus_per_worker:g} CPUs each do not fit the cluster's "
            f"{resources.get('CPU', 0):g} CPUs: lower --scaling.workers or --scaling.cpus-per-worker, or add nodes"
        )


def _workers(run: Run) -> str:
    least, most = run.scaling.least, run.scaling.most
    return f"{most}" if least == most else f"{least} to {most}"


def _root_cause(error: BaseException) -> str:
    """The message of the error that a worker raised, out of Ray's wrappings."""
    with suppress(AttributeError):
        causes = list(error.worker_failures.values())  # type: ignore[attr-defined]
        if causes:
            error = causes[0]
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
