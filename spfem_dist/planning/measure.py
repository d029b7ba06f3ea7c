"""Measure what a plan is made of: short runs of the recipe's own jobs, by its own loop, on this machine.

Two sets of processes are started, `workers` in each. In the first every process is a job of one: process 0 takes steps alone, then
all take the same steps side by side, in turns, so that what separates the two is contention and no exchange. In the second they are
one job, as torchrun starts them, and every collective of a step is counted.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from spfem_dist.config import Run
from spfem_dist.doctor.allreduce import AllReduce, time_allreduce
from spfem_dist.doctor.probe import NodeProbe
from spfem_dist.planning.constants import Collective, Constants, JobConstants
from spfem_dist.planning.predict import exchange_seconds, fit
from spfem_dist.shares import share_of
from spfem_dist.stage import Stage

#: Steps left out at the start of each measurement: they allocate and connect.
WARM_UP = 3
#: Turns between alone and side by side.
TURNS = 3
#: Size of the all-reduce, bytes.
REDUCED = 16 << 20
#: Names in c10d's operators -> names of the plan.
KINDS = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "broadcast": "broadcast",
    "alltoall": "all_to_all",
    "reduce_": "reduce",
}


class Counting(TorchDispatchMode):
    """Counts collectives within, by kind: calls, and bytes as `Collective` means them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[float]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            name = func._opname.removeprefix("_")
            kind = next((k for start, k in KINDS.items() if name.startswith(start)), None)
            if kind:
                calls_and_bytes = self.found.setdefault(kind, [0.0, 0.0])
                calls_and_bytes[0] += 1
                calls_and_bytes[1] += max(_size(argument) for argument in args[:2])
        return func(*args, **(kwargs or {}))


def _size(value: Any) -> int:
    """Bytes of the tensors in nested lists."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(_size(part) for part in value) if isinstance(value, list | tuple) else 0


class Stepper:
    """One job at one size, ready to take optimiser steps and to time them."""

    def __init__(self, run: Run, stage: Stage, name: str, share: int, rank: int, size: int) -> None:
        from accelerate.utils import set_seed

        from spfem_dist.training import engines, speed
        from spfem_dist.training.averaging import Averages
        from spfem_dist.training.loop import Sums
        from spfem_dist.training.world import PlainWorld, device_of

        self.device = device_of(PlainWorld(""))
        if self.device.type == "cpu":
            torch.set_num_threads(run.scaling.threads_per_worker)
        engines.connect(self.device)
        set_seed(run.seed)
        run = sized(run, name, share * size, size)
        self.job = stage.job(run, name, rank, size, self.device)
        self.share = share_of(share * size, rank, size, self.job.settings.micro_batch)
        self.run = run
        speed.prepare(self.job.networks, run.speed)
        self.engines = {
            key: engines.make_engine(network, self.job.optimizers[key], run.zero, self.share, self.device)
            for key, network in self.job.networks.items()
        }
        Averages(self.job, self.engines)  # follows the updates
        self.stream, self.sums = self.job.batches(0), Sums(self.device)
        self.waited, self.updating = 0.0, 0.0
        self._numbers = itertools.count()  # of steps: some phases are due now and then
        for engine in self.engines.values():
            engine.step = self._timed(engine.step)
        speed.compile_all(self.job.networks, run.speed, print)
        self.ready_s = time.time() - psutil.Process().create_time()
        self.steps(WARM_UP)

    def _timed(self, update: Any) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            self._settle()
            began = time.perf_counter()
            result = update(*arguments, **named)
            self._settle()
            self.updating += time.perf_counter() - began
            return result

        return step

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def steps(self, count: int) -> list[float]:
        """Seconds of each of `count` optimiser steps."""
        from spfem_dist.training import speed
        from spfem_dist.training.loop import optimiser_step

        times = []
        for _ in range(count):
            speed.begin_step(self.run.speed)
            began = time.perf_counter()
            self.waited += optimiser_step(
                self.job,
                self.engines,
                self.stream,
                self.share,
                self.device,
                self.sums,
                self.run.zero.precision,
                next(self._numbers),
            )
            self._settle()
            times.append(time.perf_counter() - began)
        return times

    def counted(self) -> dict[str, list[float]]:
        """The collectives of one more step."""
        with Counting() as counting:
            self.steps(1)
        return counting.found

    def saved(self) -> float:
        """Seconds to write the networks and the optimisers' states to the local disk, as `checkpoint.Saver` does."""
        with tempfile.TemporaryDirectory(prefix="spfem-plan-") as folder:
            began = time.perf_counter()
            for name, engine in self.engines.items():
                engine.save_checkpoint(folder, tag=name, save_latest=False)
            return time.perf_counter() - began

    def close(self) -> None:
        """Give threads and files back."""
        self.job.close()


def sized(run: Run, name: str, global_batch: int, workers: int) -> Run:
    """A copy of `run` with only the job `name`, of so many samples and workers, tracked nowhere."""
    values = run.model_dump()
    values["scaling"]["workers"] = workers
    for other in run.jobs():
        values[other]["enabled"] = other == name
    values[name]["global_batch"] = global_batch
    share = global_batch // workers
    if (micro := values[name]["micro_batch"]) and share % micro:
        values[name]["micro_batch"] = max(m for m in range(1, micro + 1) if share % m == 0)
    values["validation"]["every_steps"] = 0
    return type(run).model_validate(values)


def measured(recipe: str, run: Run, workers: int, shares: Mapping[str, Sequence[int]], steps: int) -> Constants:
    """Constants of this machine for the jobs of `run`.

    recipe: the script that makes the run's stage, by its path or its name. shares: for each job, samples of a worker to measure. steps: of each measurement.
    Raises RuntimeError with the processes' last words where one fails.
    """
    from spfem_dist.training.launch import script

    with tempfile.TemporaryDirectory(prefix="spfem-plan-") as scratch:
        folder = Path(scratch)
        request = {
            "recipe": str(script(recipe).resolve()),
            "run": run.model_dump(mode="json"),
            "steps": steps,
            "workers": workers,
        }
        request |= {"shares": {name: list(sizes) for name, sizes in shares.items()}, "folder": str(folder)}
        (folder / "request.json").write_text(json.dumps(request))
        _launch(folder, "apart", workers)
        if workers > 1:
            _launch(folder, "together", workers)
        apart = [json.loads((folder / f"apart-{rank}.json").read_text()) for rank in range(workers)]
        together = json.loads((folder / "together-0.json").read_text()) if workers > 1 else {}
        written = NodeProbe().write(run.checkpoint.storage, "plan", "marker", 16)
        NodeProbe().clean(run.checkpoint.storage, "plan")
    network = AllReduce(**together["network"]) if together else AllReduce(2, "", 0.0, 1e12)
    jobs = {name: job_of(name, apart, together, workers, network) for name in shares}
    gpu = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"
    return Constants(
        name=f"{torch.cuda.get_device_name(0) if gpu else platform.machine()}, {os.cpu_count()} cores",
        kind="measured",
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        unit="GPU" if gpu else "CPU worker",
        latency_s=network.latency_s,
        bandwidth=network.bandwidth,
        processes=max(2, network.processes),
        storage_write=written["mb_s"] * 1e6 if "mb_s" in written else None,
        jobs=jobs,
    )


def job_of(
    name: str, apart: Sequence[dict[str, Any]], together: dict[str, Any], workers: int, network: AllReduce
) -> JobConstants:
    """The constants that the timings of all processes make.

    apart[rank][name][samples]: {"alone", "beside", "waited", "updating"}; together[name][samples]: {"together", "collectives"}.
    """
    alone = {int(b): statistics.fmean(row["alone"]) for b, row in apart[0][name].items()}
    fixed, slope, error = fit(alone)
    update = statistics.fmean(row["updating"] for row in apart[0][name].values())
    waits = [row["waited"] for row in apart[0][name].values()]
    times = [t / alone[int(b)] for b, row in apart[0][name].items() for t in row["alone"]]
    beside, slowed = {}, {}
    if workers > 1:
        # A step of one job ends when its slowest worker does, so side by side the slowest counts, step for step.
        beside = {
            b: statistics.fmean(max(times) for times in zip(*(p[name][str(b)]["beside"] for p in apart), strict=True))
            for b in alone
        }
        slowed = {workers: max(1.0, statistics.fmean(beside[b] / t for b, t in alone.items()))}
    rows = {int(b): row for b, row in together.get(name, {}).items()}
    joined = {b: statistics.fmean(row["together"]) for b, row in rows.items()}
    found = next(iter(rows.values()))["collectives"] if rows else {}
    collectives = {kind: Collective(calls=calls, bytes=size) for kind, (calls, size) in found.items()}
    call_s = {}
    if calls := sum(c.calls for c in collectives.values()):
        # What one job takes longer than the same steps without exchange. A tiny call on an idle network is a part of it; most, where
        # batch statistics are shared in every layer, is workers that reach a call at different times and arithmetic that one does not need.
        carried = exchange_seconds(collectives, workers, network.bandwidth, 0.0, workers)
        longer = statistics.fmean(t - beside[b] for b, t in joined.items()) - carried
        call_s = {workers: max(network.latency_s, longer / calls)}
    return JobConstants(
        fixed_s=max(0.0, fixed - update),
        sample_s=slope,
        optimizer_s=min(update, fixed),
        data_wait_share=statistics.fmean(waits),
        measured=alone,
        fit_error=error,
        contention=slowed,
        beside=beside,
        together=joined,
        collectives=collectives,
        call_s=call_s,
        spread=np.quantile(times, np.linspace(0, 1, 21)).tolist(),
        # The first size that was measured is the one whose process had just started.
        start_s=next((row["ready"] for row in apart[0][name].values() if "ready" in row), None),
        save_s=statistics.fmean(row.get("saved", 0.0) for row in apart[0][name].values()),
    )


def _launch(folder: Path, how: str, workers: int) -> None:
    """Run `workers` processes of this module to their end."""
    module = ["-m", "spfem_dist.planning.measure", str(folder / "request.json"), how]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if not torch.cuda.is_available():
        environment["DS_ACCELERATOR"] = "cpu"
    if how == "together":
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(workers)]
        lines = [[sys.executable, *torchrun, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", *module]]
    else:
        lines = [[sys.executable, *module, str(rank)] for rank in range(workers)]
    started = []
    for number, line in enumerate(lines):
        log = open(folder / f"{how}-{number}.log", "w+")  # noqa: SIM115  # read below, after the process
        # A session each, as torchrun and Ray give their workers: Linux shares a busy machine out among sessions before processes, and two
        # in one session would seem to be in each other's way where they are not.
        process = subprocess.Popen(line, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        started.append((process, log))
    try:
        while any(process.poll() is None for process, _ in started):
            if any(process.poll() for process, _ in started):  # the others would wait for it
                break
            time.sleep(0.1)
    finally:
        for process, _ in started:
            if process.poll() is None:
                process.kill()
            process.wait()
    for process, log in started:
        log.seek(0)
        said = log.read()
        log.close()
        if process.returncode > 0:
            raise RuntimeError(f"the measurement ({how}) ended with status {process.returncode}:\n{said[-2000:]}")


def _meet(folder: Path, name: str, rank: int, workers: int) -> None:
    """Wait until all processes of the first set are here."""
    (folder / f"{name}.{rank}").touch()
    while len(list(folder.glob(f"{name}.*"))) < workers:
        time.sleep(0.005)


def _apart(run: Run, stage: Stage, request: dict[str, Any], rank: int) -> dict[str, Any]:
    """This process's part of the first set."""
    folder, workers = Path(request["folder"]), request["workers"]
    result: dict[str, Any] = {}
    each = max(1, request["steps"] // TURNS)
    for name, share in _sizes(request):
        stepper = Stepper(run, stage, name, share, 0, 1)
        place = f"{name}-{share}"
        alone, beside = [], []
        stepper.waited = stepper.updating = 0.0
        for turn in range(TURNS):
            _meet(folder, f"{place}-{turn}", rank, workers)
            if rank == 0:
                alone += stepper.steps(each)
            if workers > 1:
                _meet(folder, f"{place}-{turn}-both", rank, workers)
                beside += stepper.steps(each)
        taken = alone + beside
        result.setdefault(name, {})[str(share)] = {
            "alone": alone,
            "beside": beside,
            "waited": stepper.waited / sum(taken),
            "updating": stepper.updating / len(taken),
            "ready": stepper.ready_s,
            "saved": stepper.saved(),
        }
        _meet(folder, f"{place}-done", rank, workers)
        stepper.close()
    return result


def _together(run: Run, stage: Stage, request: dict[str, Any]) -> dict[str, Any]:
    """This process's part of the second set."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    result: dict[str, Any] = {}
    for name, share in _sizes(request):
        stepper = Stepper(run, stage, name, share, rank, size)
        times = stepper.steps(request["steps"])
        result.setdefault(name, {})[str(share)] = {"together": times, "collectives": stepper.counted()}
        result["network"] = result.get("network") or asdict(time_allreduce(REDUCED, stepper.device))
        stepper.close()
        dist.barrier()
    return result


def _sizes(request: dict[str, Any]) -> Iterator[tuple[str, int]]:
    return ((name, share) for name, shares in request["shares"].items() for share in shares)


def main(arguments: Sequence[str]) -> None:
    """One process of a measurement; the request says what, the result goes beside it."""
    from spfem_dist.training.launch import recipe_at

    request = json.loads(Path(arguments[0]).read_text())
    recipe, stage = recipe_at(request["recipe"])
    run = type(recipe()).model_validate(request["run"])
    how = arguments[1]
    rank = int(arguments[2]) if how == "apart" else int(os.environ["RANK"])
    result = _apart(run, stage, request, rank) if how == "apart" else _together(run, stage, request)
    (Path(request["folder"]) / f"{how}-{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
