"""Running a sweep: Ray Tune starts, stops and retries the trials, this process records what became of them."""

from __future__ import annotations

import logging
import os
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from spfem_dist.errors import readable
from spfem_dist.ray_address import authenticate, refuse_dead_address
from spfem_dist.stage import Stage
from spfem_dist.storage import is_local, open_filesystem, read_json
from spfem_dist.sweep import FAILED, FINISHED, NO_FIGURE, STOPPED
from spfem_dist.sweep.record import Sweep, TrialRecord
from spfem_dist.sweep.space import LISTS
from spfem_dist.tracking import sweeps as tracking
from spfem_dist.training import ready
from spfem_dist.training.runfolder import LaunchError, RunFolder
from spfem_dist.training.screen import Screen

#: Values of Ray Tune that are switched off: its own loggers (MLflow has the curves), a working directory for each trial, and the demand that
#: the last word of a trial repeats its metric.
_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


#: Memory that is set aside for whoever watches a trial on Ray Train.
_WATCHER_BYTES = 2.0**28


class SweepError(LaunchError):
    """A sweep that cannot go on; the message says why and what to do."""


def search(
    sweep: Sweep,
    script: str,
    stage: Stage,
    console: Console,
    local: bool = False,
    concurrent: int = 0,
    retries: int = 2,
) -> str:
    """Run what has not ended of the sweep's trials; returns `finished` or `stopped`. `sweep` is drawn and open.

    script: the recipe, as `launch.script` finds it on every node. local: each trial is one process, without Ray Train. concurrent: trials
    side by side at most; 0: as many as there is room for. retries: starts of a trial again after its process or node was lost.
    """
    authenticate()
    refuse_dead_address()
    os.environ.update({key: value for key, value in _QUIET.items() if key not in os.environ})
    folder = RunFolder(sweep.base.model_copy(update={"name": sweep.plan.name}))
    with folder.locked():
        sweep.mlflow_run = tracking.begin(sweep.base, sweep.plan.name, facts_of(sweep), sweep.mlflow_run)
        sweep.write()
        status = "failed"
        try:
            pending = sweep.pending()
            if pending:
                _fit(sweep, pending, script, stage, console, local, concurrent, retries)
            status = "finished" if not sweep.pending() else "stopped"
        finally:
            sweep.write()
            tracking.end(sweep.base.tracking, sweep.mlflow_run, status)
            _forget(sweep)
    return status


def facts_of(sweep: Sweep) -> dict[str, Any]:
    """What MLflow's run of the sweep has as parameters."""
    plan = sweep.plan
    space = {f"space.{one.field}": one.text for one in sweep.dimensions}
    return {"metric": plan.metric, "mode": plan.mode, "scheduler": plan.scheduler, "seed": plan.seed} | space


def _fit(
    sweep: Sweep,
    pending: list[TrialRecord],
    script: str,
    stage: Stage,
    console: Console,
    local: bool,
    concurrent: int,
    retries: int,
) -> None:
    import ray
    from ray import tune

    from spfem_dist.sweep.trial import Trial
    from spfem_dist.training.cluster import _storage, connect

    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it would warn that its own result files are turned off
    connect(sweep.base)
    with Screen(quiet=console.quiet) as screen:
        ready.shards(sweep.base, stage, screen, on_ray=True)  # once, and not by each trial
    base, scaling = sweep.base, sweep.base.scaling
    held = ray.cluster_resources()
    gpu = scaling.gpu if scaling.gpu is not None else held.get("GPU", 0) > 0
    # A trial on Ray Train takes what its workers need by itself; its actor only watches, and Tune wants it to need something.
    own = {"CPU": scaling.cpus_per_worker} | ({"GPU": 1.0} if gpu else {})
    each = own if local else {"memory": _WATCHER_BYTES}
    room = _room(sweep, held, gpu, local)
    facts = {
        "script": script,
        "run": trial_settings(sweep),
        "storage": base.checkpoint.storage.rstrip("/"),
        "jobs": list(base.jobs()),
        "metric": sweep.plan.metric,
        "local": local,
        "address": ray.get_runtime_context().gcs_address,
        "logs": f"{sweep.location}/logs" if is_local(open_filesystem(sweep.location)[0]) else "",
    }
    watcher = Watcher(sweep, console)
    names = {trial.name: trial for trial in pending}
    configurations = [{"name": trial.name, "values": values_now(sweep, trial)} for trial in names.values()]
    tune.Tuner(
        tune.with_resources(tune.with_parameters(Trial, facts=facts), each),
        param_space={"trial": tune.grid_search(configurations)},
        tune_config=tune.TuneConfig(
            scheduler=scheduler_of(sweep),
            max_concurrent_trials=min(concurrent, room) if concurrent else room,
            trial_name_creator=lambda trial: trial.config["trial"]["name"],
            trial_dirname_creator=lambda trial: trial.config["trial"]["name"],
        ),
        run_config=tune.RunConfig(
            name="tune",
            failure_config=tune.FailureConfig(max_failures=retries),
            callbacks=[watcher.callback()],
            stop=watcher.stopper(),
            verbose=0,
            **_storage(sweep.location),
        ),
    ).fit()
    if watcher.fatal:
        raise SweepError(watcher.fatal)


def trial_settings(sweep: Sweep) -> dict[str, Any]:
    """The settings of every trial in JSON, but for its own values and its name."""
    run = sweep.base.model_copy(deep=True)
    run.tracking.held_out, run.tracking.register_models = True, False  # trials are no versions of a model
    run.tracking.sweep, run.tracking.parent = sweep.plan.name, sweep.mlflow_run
    if sweep.plan.scheduler == "pbt":  # whatever a trial is judged by can be gone on from
        run.checkpoint.every_steps = min(run.checkpoint.every_steps, run.validation.every_steps)
        run.checkpoint.keep = max(run.checkpoint.keep, sweep.plan.patience + 2)
    return run.model_dump(mode="json")


def values_now(sweep: Sweep, trial: TrialRecord) -> dict[str, Any]:
    """The values of a trial: those that it was drawn with, or those that its newest generation goes on with."""
    from spfem_dist.sweep.trial import ORIGIN, newest_generation

    fs, root = open_filesystem(sweep.base.checkpoint.storage)
    if (run := newest_generation(fs, root, trial.name)) == trial.name:
        return trial.values
    return read_json(fs, f"{root}/{run}/{ORIGIN}")["values"]


def scheduler_of(sweep: Sweep) -> Any:
    """Ray Tune's scheduler, in samples seen, which knows what the trials that have ended were like."""
    from ray.tune import schedulers

    plan, base = sweep.plan, sweep.base
    if plan.scheduler == "none":
        return schedulers.FIFOScheduler()
    between = plan.patience * base.validation.every_steps * min(job.global_batch for job in base.jobs().values())
    if plan.scheduler == "asha":
        most = max(job.steps * job.global_batch for job in base.jobs().values())
        asha = schedulers.ASHAScheduler(
            time_attr="samples",
            metric=plan.metric,
            mode=plan.mode,
            max_t=max(most, between),
            grace_period=between,
            reduction_factor=plan.reduction,
            stop_last_trials=False,  # the last validation is followed by the export
        )
        for trial in sweep.trials:
            if trial.ended in (FINISHED, STOPPED):
                known = _Known(trial.name)
                asha.on_trial_add(None, known)  # type: ignore[arg-type]
                for samples, figure in sweep.figures(trial):
                    asha.on_trial_result(None, known, {"samples": samples, plan.metric: figure})  # type: ignore[arg-type]
        return asha
    random.seed(plan.seed)  # Tune's exchanges draw from these
    np.random.seed(plan.seed)
    dimensions = sweep.dimensions

    def within(config: dict[str, Any]) -> dict[str, Any]:
        values = config["trial"]["values"]
        values |= {one.field: one.within(values[one.field]) for one in dimensions}
        return config

    mutations = {one.field: list(one.values) if one.kind in LISTS else one.domain() for one in dimensions}
    return schedulers.PopulationBasedTraining(
        time_attr="samples",
        metric=plan.metric,
        mode=plan.mode,
        perturbation_interval=between,
        hyperparam_mutations={"trial": {"values": mutations}},
        custom_explore_fn=within,
        require_attrs=False,  # the last word of a trial that failed has no figure
        log_config=False,
    )


@dataclass(frozen=True)
class _Known:
    """A trial of an earlier start, as far as a scheduler asks."""

    trial_id: str


class Watcher:
    """Follows the trials: a line for each validation, the sweep's record and MLflow at the end of each. fatal: why the sweep cannot go on."""

    def __init__(self, sweep: Sweep, console: Console) -> None:
        self.sweep, self.console, self.fatal = sweep, console, ""
        self._trials = {trial.name: trial for trial in sweep.trials}

    def callback(self) -> Any:
        """What Ray Tune calls."""
        from ray import tune

        watcher = self

        class Told(tune.Callback):
            def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
                watcher.result(str(trial), result)

            def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
                watcher.ended(str(trial), trial.last_result)

            def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
                watcher.console.print(f"{trial}: its process or node was lost; it goes on from its last checkpoint")

            def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
                watcher.ended(str(trial), {"ended": FAILED, "reason": readable(trial.get_error() or "lost")})

            def __reduce__(self) -> Any:  # Tune keeps a copy of what it was given, which is never read
                return tune.Callback, ()

        return Told()

    def stopper(self) -> Any:
        """What ends Tune's work where the sweep cannot go on."""
        from ray import tune

        watcher = self

        class Stopping(tune.Stopper):
            def __call__(self, trial_id: str, result: Any) -> bool:
                return False

            def stop_all(self) -> bool:
                return bool(watcher.fatal)

            def __reduce__(self) -> Any:
                return tune.stopper.NoopStopper, ()

        return Stopping()

    def result(self, name: str, result: dict[str, Any]) -> None:
        """A validation of a trial, or its last word."""
        trial, metric = self._trials[name], self.sweep.plan.metric
        if (run := result.get("run", trial.run)) != trial.run:
            trial.run, trial.values = run, values_now(self.sweep, trial)
        if result["ended"] == NO_FIGURE:
            self.fatal = f"{name}: {result['reason']}: give one of them by --metric"
        if metric not in result or result["ended"]:
            return
        trial.figure, trial.samples = result[metric], result["samples"]
        best = self.sweep.ranked()[0]
        self.console.print(
            f"{trial.run}: {trial.samples} samples, {metric} {trial.figure:.4g} (best {best.figure:.4g}, {best.name})"
        )

    def ended(self, name: str, result: dict[str, Any]) -> None:
        """A trial that is not gone on with."""
        trial = self._trials[name]
        if self.fatal:
            return
        trial.ended, trial.reason = result.get("ended") or STOPPED, result.get("reason", "")
        self.sweep.write()
        folder = RunFolder(self.sweep.base.model_copy(update={"name": trial.run or trial.name}))
        known = folder.read("state.json", {}).get("mlflow_run", "")
        tracking.keep_trial(self.sweep.base.tracking, known, trial.ended, trial.figure, trial.samples)
        self.console.print(f"{trial.run or name}: {trial.ended}" + (f" ({trial.reason})" if trial.reason else ""))


def _room(sweep: Sweep, held: dict[str, float], gpu: bool, local: bool) -> int:
    """Trials that fit side by side. Raises LaunchError where not one does."""
    scaling = sweep.base.scaling
    workers = 1 if local else scaling.least
    key, need = ("GPU", float(workers)) if gpu else ("CPU", workers * scaling.cpus_per_worker)
    if (room := int(held.get(key, 0) // need)) < 1:
        raise LaunchError(
            f"a trial needs {need:g} {key}s and the cluster has {held.get(key, 0):g}: lower --scaling.workers or "
            "--scaling.cpus-per-worker, or add nodes"
        )
    return room


def _forget(sweep: Sweep) -> None:
    """Remove Ray Tune's own files: they are pickles, and the sweep goes on without them."""
    fs, root = open_filesystem(sweep.location)
    if fs.exists(f"{root}/tune"):
        fs.rm(f"{root}/tune", recursive=True)
