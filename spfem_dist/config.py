"""The typed configuration of one training run. A recipe is a function that returns a `Run`.

Every field says its meaning and unit. A bad value is refused here, with the fix in the message, before anything starts.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from spfem_dist.faults.grammar import check_faults
from spfem_dist.files import home
from spfem_dist.job_settings import (  # noqa: F401  # all settings are to be had from here
    Guidance,
    JobSettings,
    Natural,
    Operational,
    Operations,
    Optimizer,
    Place,
    Positive,
    PriorSettings,
    Section,
    Share,
    places,
)
from spfem_dist.redact import redact


class Data(Section):
    """Which shards are read, and how."""

    shards: Annotated[str, Place(), Operational] = Field(
        "shards/synthetic", description="Folder of shards with its index.json: a path or s3://bucket/prefix."
    )
    split: Annotated[str, Place(suffix=".json")] = Field(
        "synthetic",
        description="Speaker and sentence split: a name in spfem_dist/corpora/splits, a path to such a JSON file, or 'none'.",
    )
    speakers: tuple[str, ...] = Field(
        (),
        description="Speakers of the split's training part to learn from: their names, or sets that the split names (priors, generator); "
        "empty means all. Two stages can so learn from different speakers.",
    )
    allow_other: Annotated[bool, Operational] = Field(
        False, description="Resume a run although the shards hold other data than it began with; tracking says so."
    )
    size: Annotated[int, Field(ge=16, le=4096)] = Field(
        64, description="Side of the frames given to the networks, pixels; stored crops are resized to it."
    )
    frames_per_recording: Annotated[int, Field(ge=2, le=2**53)] = Field(
        6, description="Frames drawn from each recording of a sample."
    )
    speech_window: Annotated[int, Field(ge=1, le=1001)] = Field(
        5, description="Speech feature rows around each frame (odd), in video frames."
    )
    minimum_gap: Positive = Field(5, description="Smallest distance between a frame and its negatives, frames.")
    maximum_warp_cost: float | None = Field(
        None, description="Pairs whose mean time-warp cost is above this are not drawn."
    )
    decoder: Annotated[Literal["auto", "pyav", "dali-cpu", "dali-gpu"], Operational] = Field(
        "auto", description="Video decoder; auto takes DALI on the GPU where there is one and PyAV elsewhere."
    )
    prefetch: Annotated[Natural, Operational] = Field(3, description="Micro-batches prepared ahead of the step.")
    threads: Annotated[Positive, Operational] = Field(2, description="Reader and decoder threads for each worker.")
    decoded_cache_mb: Annotated[Natural, Operational] = Field(
        1024,
        description="Memory for decoded frames kept for re-use in each worker (on the GPU where it decodes), MiB; 0 turns it off.",
    )
    cache: Annotated[str, Place(), Operational] = Field(
        "", description="Folder for shards fetched from S3; empty means a folder under the system's cache."
    )
    cache_mb: Annotated[Natural, Operational] = Field(20_480, description="Largest size of that folder, MiB.")
    retries: Annotated[Natural, Operational] = Field(
        5, description="Fetches of a shard from S3 that arrives short or altered, before it counts as damaged."
    )
    bad_share: Annotated[Share, Operational] = Field(
        0.01, description="Training stops with an error once more than this share of groups is damaged."
    )

    @model_validator(mode="after")
    def _odd_window(self) -> Data:
        if self.speech_window % 2 == 0:
            raise ValueError(
                f"data.speech_window is {self.speech_window}; it must be odd to be centred: use {self.speech_window + 1}"
            )
        return self


class Storage(Operations):
    """How long a run waits for S3 that does not answer or answers that it is busy, and for a folder that cannot be written."""

    patience_s: Annotated[float, Field(ge=0)] = Field(
        300.0,
        description="How long one request to S3 is tried again (500, 503, resets, no answer) before the run stops with an error "
        "that names it, seconds.",
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="How long one request may stay without a byte before it is made again, seconds."
    )


class Scaling(Operations):
    """How many workers, and what each gets."""

    workers: Positive | tuple[Positive, Positive] = Field(
        2,
        description="Training processes, one for each GPU (or for each CPU share). Two numbers: as many as there is room for between "
        "them; the run shrinks when a node is lost and grows when one comes.",
    )
    resize_check_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="How often a run between two sizes looks for room to grow, seconds."
    )
    gpu: bool | None = Field(None, description="One GPU for each worker; empty means yes where the cluster has any.")
    cpus_per_worker: Annotated[float, Field(gt=0)] = Field(1.0, description="CPU cores reserved for each worker.")
    threads_per_worker: Positive = Field(1, description="Compute threads of each CPU worker.")
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="How Ray places workers on nodes."
    )
    max_failures: Natural = Field(2, description="Worker failures after which the run gives up.")
    hang_seconds: Annotated[float, Field(ge=0)] = Field(
        600.0,
        description="Seconds without a sign of life (a step, a batch, a checkpoint) after which a worker ends itself, and training "
        "starts again from the last checkpoint; until the first step three times as many, at least 300; 0 waits forever.",
    )

    @property
    def least(self) -> int:
        """The smallest number of workers to train with."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most(self) -> int:
        """The largest number of workers to train with."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @model_validator(mode="after")
    def _from_few_to_many(self) -> Scaling:
        if self.least > self.most:
            raise ValueError(
                f"scaling.workers {self.least} {self.most}: the smaller number comes first, use {self.most} {self.least}"
            )
        return self


class Zero(Section):
    """DeepSpeed's sharding and precision."""

    stage: Annotated[Literal[0, 1, 2, 3], Operational] = Field(
        1, description="0 replicates; 1 shards optimiser states; 2 also gradients; 3 also parameters."
    )
    offload: Literal["none", "cpu"] = Field("none", description="Where optimiser states live.")
    precision: Literal["fp32", "bf16-mixed", "bf16", "fp16", "fp64"] = Field(
        "fp32",
        description="What networks compute in. bf16-mixed keeps parameters in fp32 and runs convolutions and matrix products in bf16 "
        "(torch.autocast); bf16 keeps parameters in bf16 too, beside fp32 masters; fp16 is that for GPUs without bf16, with a loss scale "
        "that finds itself. fp64 computes in double and updates in single precision: for showing that two ways to start give the same "
        "losses, which rounding otherwise hides after some steps.",
    )

    skipped_share: Annotated[Share, Operational] = Field(
        0.1,
        description="Training stops with an error once more than this share of the last 100 updates of a network was left out because "
        "their gradients were not finite.",
    )

    @model_validator(mode="after")
    def _offload_needs_sharding(self) -> Zero:
        if self.offload == "cpu" and self.stage == 0:
            raise ValueError("zero.offload cpu needs sharded optimiser states: set zero.stage to 1, 2 or 3")
        return self

    @property
    def width(self) -> int:
        """Bytes of one parameter as networks compute with it."""
        return {"bf16": 2, "fp16": 2, "fp32": 4, "bf16-mixed": 4, "fp64": 8}[self.precision]

    @property
    def masters(self) -> bool:
        """Whether the optimiser updates fp32 copies, and not the parameters themselves."""
        return self.stage > 0 or self.width != 4


class Speed(Section):
    """Switches that change time and memory, and rounding at most. Each is off or on for all networks of a run."""

    tf32: bool = Field(
        True,
        description="GPUs of 2020 and later compute fp32 convolutions and matrix products in TF32: 10 bits of mantissa.",
    )
    compile: bool = Field(
        False,
        description="Compile trained networks with torch.compile; one that cannot be compiled runs as it is, and a line says so.",
    )
    cuda_graphs: bool = Field(
        False,
        description="A GPU replays compiled networks as CUDA graphs (torch.compile's mode reduce-overhead): for small networks that wait for "
        "the host, at the price of memory. A CPU has none and computes as without.",
    )
    recompute: bool = Field(
        False,
        description="Activation checkpointing: blocks of large networks keep their inputs alone, and compute the rest again for their "
        "gradients. A third more arithmetic for much less memory; the same numbers.",
    )

    @model_validator(mode="after")
    def _graphs_of_compiled_networks(self) -> Speed:
        if self.cuda_graphs and not self.compile:
            raise ValueError("speed.cuda_graphs are those of compiled networks: set speed.compile to True")
        return self


class Checkpoint(Operations):
    """Where and how often the state is saved."""

    storage: Annotated[str, Place()] = Field(
        "runs", description="Folder of all runs: a path or s3://bucket/prefix (shared by all nodes)."
    )
    every_steps: Positive = Field(200, description="Optimiser steps between checkpoints.")
    background: bool = Field(
        True, description="Upload while training goes on; False holds the steps until each checkpoint is committed."
    )
    keep: Positive = Field(2, description="Newest committed checkpoints that are kept.")
    keep_best: Natural = Field(0, description="Further checkpoints that are kept: the best ones by best_metric.")
    best_metric: str = Field(
        "",
        description="Logged name whose newest value ranks a checkpoint for keep_best, e.g. val/JOB/LOSS.",
    )
    best_mode: Literal["min", "max"] = Field("min", description="Whether less or more of best_metric is better.")
    begin_anew: bool = Field(
        False,
        description="Train from the beginning where no checkpoint that the run had is whole; what is left is set aside.",
    )
    allow_other: bool = Field(
        False, description="Resume a run although settings that enter its losses have changed; tracking says which."
    )

    @model_validator(mode="after")
    def _best_by_what(self) -> Checkpoint:
        if self.keep_best and not self.best_metric:
            raise ValueError(
                f"checkpoint.keep_best {self.keep_best} needs a metric to rank by: set checkpoint.best_metric, e.g. val/JOB/LOSS"
            )
        return self


class Tracking(Operations):
    """MLflow."""

    uri: Annotated[str, Place(prefix="sqlite:///")] = Field(
        default_factory=lambda: os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///runs/mlflow.db",
        description="Tracking server: sqlite:///file, http(s)://server, postgresql://...; empty turns tracking off. Not given, "
        "it is MLFLOW_TRACKING_URI where that is set.",
    )
    experiment: str = Field("cdrl", description="Experiment name.")
    wait_s: Annotated[float, Field(ge=0)] = Field(
        300.0,
        description="How long the end of a run waits for a tracking server that is away, so that everything arrives, seconds.",
    )
    log_every_steps: Positive = Field(10, description="Optimiser steps between metric points.")
    pictures_every_steps: Natural = Field(200, description="Optimiser steps between pictures; 0 turns them off.")
    register_models: bool = Field(
        True, description="Register trained priors, which stage 2 can name, and generators, which edits can name."
    )
    champion_metric: str = Field(
        "",
        description="Loss by which the alias champion moves to a new version of a model (e.g. val/JOB/LOSS; lower is better, on the "
        "same shards); empty: the first version keeps it until somebody moves it.",
    )
    system_metrics: bool = Field(
        True, description="Also record CPU, memory, disk, network and GPU use of every node, each 10 s."
    )
    samples: Annotated[str, Place()] = Field(
        "", description="Folder on each node where workers write which samples each step used; empty writes nothing."
    )
    held_out: bool = Field(
        False,
        description="Also write what each validation gives into RUN/JOB/validation.json while the run trains; sweeps read it.",
    )
    sweep: str = Field("", description="Sweep that this run is a trial of, as a tag; the sweep sets it.")
    parent: str = Field("", description="MLflow id of the run that this one lies below; a sweep sets its own.")

    @field_validator("experiment")
    @classmethod
    def _no_password(cls, experiment: str) -> str:
        if redact(experiment) != experiment:
            raise ValueError(
                f"{redact(experiment)!r} holds a password, which every user of the tracking server would see"
            )
        return experiment


class Profile(Operations):
    """What torch's profiler records."""

    steps: tuple[Natural, Natural] = Field(
        (0, 0),
        description="First and last optimiser step (from 1) that are recorded, e.g. 20 22; 0 0 records none. Each job's record lies in "
        "its folder, profile/.",
    )
    ranks: tuple[Natural, ...] = Field((0,), description="Workers that record.")

    @model_validator(mode="after")
    def _in_order(self) -> Profile:
        first, last = self.steps
        if first > last or (last and not first):
            raise ValueError(
                f"profile.steps {first} {last}: give the first step, from 1, and one that is not before it"
            )
        return self


class Validation(Operations):
    """Held-out loss during training."""

    every_steps: Natural = Field(100, description="Optimiser steps between validations; 0 turns them off.")
    samples: Positive = Field(24, description="Samples for each validation.")


class Run(Section):
    """What every training run has: a name, data, a cluster, tracking. Each stage adds its jobs."""

    name: str = Field("run", description="Run name; the same name and storage resumes, a new name starts anew.")
    recipe: str = Field("", description="Recipe that made this configuration.")
    seed: Natural = Field(0, description="Seed of initial weights, data order and augmentation.")
    data: Data = Field(default_factory=Data)
    storage: Storage = Field(default_factory=Storage)
    scaling: Scaling = Field(default_factory=Scaling)
    zero: Zero = Field(default_factory=Zero)
    speed: Speed = Field(default_factory=Speed)
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    tracking: Tracking = Field(default_factory=Tracking)
    profile: Profile = Field(default_factory=Profile)
    validation: Validation = Field(default_factory=Validation)
    faults: Annotated[tuple[str, ...], Operational] = Field(
        (), description="Faults to inject, such as 'kill rank 1 at sample 4000' (see docs/faults.md)."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Run:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", self.name):
            raise ValueError(f"name {self.name!r} must be letters, digits, '.', '_' or '-' (it becomes a folder)")
        for key, job in self.jobs().items():
            if job.global_batch < self.scaling.most:
                raise ValueError(
                    f"{key}.global_batch {job.global_batch} has no sample for some of scaling.workers {self.scaling.most}: "
                    f"use at most {job.global_batch} workers, or a larger global batch"
                )
        if self.speed.cuda_graphs and self.zero.stage == 3:
            raise ValueError(
                "speed.cuda_graphs with zero.stage 3: a graph reads parameters from one place, where stage 3 does not keep them: use stage 0 to 2"
            )
        check_faults(self.faults, self.scaling.most, set(self.jobs()))
        return self

    def jobs(self) -> dict[str, JobSettings]:
        """The enabled jobs by name: every field of the run that holds a job's settings."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: job for name, job in fields.items() if isinstance(job, JobSettings) and job.enabled}

    def folder(self) -> str:
        """Where this run's checkpoints, configuration and summary lie."""
        return f"{self.checkpoint.storage.rstrip('/')}/{self.name}"

    def absolute(self) -> Run:
        """The same run with every local `Place` made absolute (workers run in another folder).

        Relative paths start at SPFEM_HOME, or at the current folder. Raises ValueError inside the upload of a Ray job, which
        is deleted with the job, when SPFEM_HOME does not say where relative paths start.
        """
        start = home()

        def full(path: str) -> str:
            if not path or re.match(r"[A-Za-z][\w+.-]*:/", path) or Path(path).expanduser().is_absolute():
                return str(Path(path).expanduser()) if path.startswith("~") else path
            if not start and "working_dir_files" in Path.cwd().parts:
                raise ValueError(
                    f"the path {path!r} is relative, and this job runs in an uploaded folder that is deleted with it: "
                    f"export SPFEM_HOME=/a/folder/that/stays before `ray start`, or give an absolute path or s3://"
                )
            return str((Path(start) / path).resolve())

        run = self.model_copy(deep=True)
        for section, name, place in places(run):
            setattr(section, name, place.absolute(getattr(section, name), full))
        return run


class GuidedRun(Run):
    """A run that frozen priors guide."""

    priors: Annotated[tuple[str, ...], Place()] = Field(
        (),
        description="The frozen priors: the folder of a stage-1 run, folders of single priors, or registered ones (models:/NAME). "
        "Empty trains without guidance.",
    )
    pretrained: Annotated[str, Place(names=("shipped",))] = Field(
        "",
        description="What is gone on from: the folder of a run, its pre-trained generator, or of an exported generator, or `shipped`, the "
        "package's own; the run's own pre-training is left out then.",
    )
