"""What a prediction is made of: constants of a machine and of a job on it, measured or assumed, and which of the two."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from spfem_dist.config import Section
from spfem_dist.files import read_small

Seconds = Annotated[float, Field(ge=0)]


class Collective(Section):
    """One kind of collective in one optimiser step of one worker."""

    calls: float = Field(description="Calls.")
    bytes: float = Field(description="Bytes over all calls: what is reduced, or the whole of what is gathered.")


class JobConstants(Section):
    """One job on one worker. A step of b samples takes fixed_s + b sample_s + optimizer_s / N under ZeRO (/ 1 without)."""

    fixed_s: Seconds = Field(description="Seconds of a step that do not depend on the samples.")
    sample_s: Seconds = Field(description="Seconds for each sample, forward and backward.")
    optimizer_s: Seconds = Field(0.0, description="Seconds of the optimiser's update of all parameters.")
    data_wait_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Share of a step spent waiting for data."
    )
    measured: dict[int, Seconds] = Field(
        {}, description="Mean seconds of a step by samples: what the fit was made from."
    )
    fit_error: float = Field(0.0, description="Largest relative distance of the fit from those points.")
    contention: dict[int, float] = Field(
        {}, description="How much longer a step takes with so many workers side by side on a node, without exchange."
    )
    beside: dict[int, Seconds] = Field(
        {}, description="The same with the measured workers side by side, the slowest of them counted in every step."
    )
    together: dict[int, Seconds] = Field({}, description="The same with those workers as one job, which exchanges.")
    collectives: dict[str, Collective] = Field(
        {}, description="What a step exchanges between workers, counted; empty means what ZeRO's paper says."
    )
    spread: list[Seconds] = Field(
        [],
        description="Quantiles of a worker's step, 0 to 1 in equal parts, over their mean: who waits for the slowest of N needs them.",
    )
    start_s: Seconds | None = Field(
        None, description="Seconds from the start of a process to its first step, measured."
    )
    save_s: Seconds = Field(
        0.0, description="Seconds that the steps stand still while a checkpoint is written to the local disk."
    )
    call_s: dict[int, Seconds] = Field(
        {},
        description="Seconds that each of those calls costs so many workers in a step, beside the time of its bytes.",
    )


class Services(Section):
    """What is around the workers in a simulated run. Defaults are S3's published limits and what was measured on two cores."""

    s3_reads_per_s: Annotated[float, Field(gt=0)] = Field(
        5500.0,
        description="GET, HEAD and LIST requests that S3 takes for one prefix (Amazon S3 performance guidelines).",
    )
    s3_writes_per_s: Annotated[float, Field(gt=0)] = Field(
        3500.0, description="PUT, POST and DELETE requests likewise."
    )
    s3_latency_s: Seconds = Field(
        0.1, description="Mean seconds of a small request (ibid.: 100 to 200 ms to the first byte)."
    )
    connections: Annotated[int, Field(ge=1)] = Field(
        10, description="Connections to S3 of one process (botocore's max_pool_connections)."
    )
    patience_s: Seconds = Field(300.0, description="How long a request is tried again: the run's storage.patience_s.")
    storage_read: Annotated[float, Field(gt=0)] = Field(
        1e9,
        description="Bytes/s that one node reads from the storage (assumption: as fast as it writes on an H100 node).",
    )
    mlflow_call_s: Seconds = Field(
        0.045,
        description="Seconds of MLflow's server for one call (3.17, into SQLite; the least of 25, on two cores that others kept full; 7 ms "
        "of it are arithmetic).",
    )
    mlflow_point_s: Seconds = Field(0.0001, description="Seconds more for each point in it (likewise).")
    mlflow_writers: Annotated[int, Field(ge=1)] = Field(
        1, description="Calls that it writes side by side: 1 into SQLite."
    )
    points: Annotated[int, Field(ge=1)] = Field(
        14, description="Metrics that rank 0 logs at once (counted in a run of stage 1)."
    )
    node_points: Annotated[int, Field(ge=1)] = Field(
        32, description="System metrics of one node at once: 8 of the host, 3 of each of 8 GPUs."
    )
    node_every_s: Seconds = Field(10.0, description="Seconds between a node's readings (MLflow's own default).")
    start_s: Seconds = Field(
        30.0, description="Seconds from a worker's start to its first step: imports, engines, joining."
    )
    notice_s: Seconds = Field(15.0, description="Seconds until a lost host is noticed (docs/cluster.md).")
    replace_s: Seconds = Field(600.0, description="Seconds until another host stands in for a lost one (assumption).")
    worker_hours_between_losses: Annotated[float, Field(gt=0)] = Field(
        50_700.0,
        description="Hours of one worker between losses of a host: 419 in 54 days of 16,384 GPUs (Llama 3, section 3.3.4).",
    )


class Constants(Section):
    """A machine and its jobs."""

    name: str = Field(description="The machine, in words.")
    kind: Literal["measured", "assumed"] = Field(description="Where the numbers come from.")
    sources: dict[str, str] = Field({}, description="Source of each assumed number.")
    date: str = Field("", description="Day of the measurement.")
    unit: Literal["GPU", "CPU worker"] = Field("CPU worker", description="What one worker is.")
    memory_gb: float | None = Field(None, description="Memory of one worker's device, GB.")
    latency_s: Seconds = Field(0.0, description="Seconds of a tiny all-reduce between `processes`.")
    bandwidth: Annotated[float, Field(gt=0)] = Field(description="Bus bandwidth of a large all-reduce, bytes/s.")
    processes: Annotated[int, Field(ge=2)] = Field(2, description="Processes between which both were measured.")
    storage_write: float | None = Field(None, description="Bytes/s that one node writes to the checkpoints' storage.")
    flops: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="FLOP/s that a worker reaches, by arithmetic (bf16, tf32, fp32, fp64); used for jobs that were not measured.",
    )
    fixed_s: Seconds = Field(0.0, description="Fixed seconds of a step, for jobs that were not measured.")
    jobs: dict[str, JobConstants] = Field({}, description="By name of the job.")
    services: Services = Field(default_factory=Services, description="What is around the workers, for a simulation.")


def read(path: Path) -> Constants:
    """The constants in a file that `spfem plan --measure --save` wrote. ValueError where it is none."""
    try:
        return Constants.model_validate_json(read_small(path))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} holds no constants ({error}): write it by `spfem plan RECIPE --measure --save {path}`"
        ) from None


def assumed(name: str) -> Constants:
    """Shipped assumptions about a GPU. ValueError with the known names where there is none."""
    folder = resources.files("spfem_dist.planning") / "assumptions"
    known = sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".json"))
    if name not in known:
        raise ValueError(
            f"nothing is assumed about {name!r}; known: {', '.join(known)}. Measured constants are better: --measure"
        )
    return Constants.model_validate_json((folder / f"{name}.json").read_text())


def with_cluster(constants: Constants, path: Path) -> Constants:
    """The constants with all-reduce and storage as `spfem doctor --json` found them. ValueError where the file has neither."""
    try:
        figures = {c["check"]: c["figures"] for c in json.loads(read_small(path))["checks"]}
        changed = constants.model_copy(deep=True)
        if reduced := figures.get("all-reduce"):
            changed.latency_s, changed.bandwidth = reduced["latency_s"], reduced["bandwidth_bytes_per_s"]
            changed.processes = int(reduced["processes"])
        if stored := figures.get("storage"):
            changed.storage_write = stored["write_mb_per_s"] * 1e6
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what `spfem doctor --json` prints ({error!r})") from None
    if not reduced and not stored:
        raise ValueError(f"{path}: neither all-reduce nor storage was measured there; see what `spfem doctor` says")
    return changed
