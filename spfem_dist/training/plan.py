"""The dry run: what a run would do, without training: batches, memory, arithmetic, data, reachability. It fits 80 columns."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass, fields

import torch
from accelerate.utils import compute_module_sizes
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn

from spfem_dist.config import JobSettings, Run, Zero
from spfem_dist.console import plain_console
from spfem_dist.records import Batch
from spfem_dist.redact import redact
from spfem_dist.shares import Share, share_of
from spfem_dist.stage import Job, Stage
from spfem_dist.storage import open_filesystem
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.tracking import store as tracking
from spfem_dist.training import ready, speed
from spfem_dist.training.averaging import averaged_networks
from spfem_dist.training.engines import BUCKET
from spfem_dist.training.remarks import remarks
from spfem_dist.training.runfolder import RunFolder, binding_changes
from spfem_dist.training.status import flop_counter

#: Columns that the dry run fits, and jobs whose figures fit them side by side.
WIDTH, BESIDE = 80, 3


@dataclass(frozen=True)
class Memory:
    """Bytes on each worker."""

    parameters: float
    gradients: float
    optimizer: float
    buffers: float
    frozen: float
    activations: float

    @property
    def total(self) -> float:
        """Sum of the parts; what the libraries need for themselves and fragmentation come on top."""
        return sum(asdict(self).values())


def states_of(job: Job) -> float:
    """Numbers that optimisers keep for each trained parameter: 2 for Adam, 0 for plain SGD, and where an average is kept one more."""
    optimizer = job.settings.optimizer
    moments = 0 if optimizer.name == "sgd" and not optimizer.momentum else 2
    sizes = {
        name: sum(p.numel() for p in network.parameters() if p.requires_grad) for name, network in job.networks.items()
    }
    return moments + sum(sizes[name] for name in averaged_networks(job)) / sum(sizes.values())


def memory(
    trainable: int, frozen_bytes: int, activation_bytes: float, zero: Zero, workers: int, states: float = 2
) -> Memory:
    """Memory of each worker under a ZeRO stage (Rajbhandari et al. 2020, section 5), and what DeepSpeed does it with.

    trainable: parameters. states: see `states_of`.
    Stages 1 to 3 keep fp32 master weights with the optimiser, stage 0 where the precision is another. Buffers: the bucket of gradients,
    the worker's own share of them in one piece for the step, and at stage 3 weights and gradients as they are whole for a while.
    """
    width, master = zero.width, 4 if zero.masters else 0
    shared = {n: workers if zero.stage >= n else 1 for n in (1, 2, 3)}
    optimizer = 0.0 if zero.offload == "cpu" else trainable * (4 * states + master) / shared[1]
    buffers = min(trainable, BUCKET) * width + (trainable * 4 / workers if zero.stage else 0)
    if zero.stage == 3:
        buffers += 2 * trainable * width
    return Memory(
        parameters=trainable * width / shared[3],
        gradients=trainable * width / shared[2],
        optimizer=optimizer,
        buffers=buffers,
        frozen=frozen_bytes,
        activations=activation_bytes,
    )


def measure(job: Job, batch: Batch, precision: str = "fp32") -> tuple[float, float]:
    """Floating-point operations (forward and backward, all phases) and bytes kept for backward, for each sample of `batch`.

    precision: the run's `zero.precision`.
    """
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    networks = nn.ModuleDict(job.networks)
    parameters = {p.untyped_storage().data_ptr() for p in networks.parameters()}
    with flop_counter() as counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        for phase in job.phases:
            with speed.computing(batch.frames.device, precision):
                losses, _ = phase.losses(job.networks, batch)
            torch.stack([value.float() for value in losses.values()]).sum().backward()
    networks.zero_grad(set_to_none=True)
    activations = sum(size for pointer, size in kept.items() if pointer not in parameters)
    return counter.get_total_flops() / len(batch), activations / len(batch)


def show(run: Run, stage: Stage) -> None:
    """Print what `run` would do. Ends the process with status 1 when something would keep it from starting."""
    console = plain_console(soft_wrap=False)
    console.width = min(console.width, WIDTH)
    console.rule(f"dry run of {run.name!r} ({run.recipe})")
    _say(console, _outline(run))
    problems: list[str] = []
    columns: dict[str, dict[str, str]] = {}
    absent = stage.reads_shards and ready.to_be_made(run)
    if absent:
        _say(
            console,
            f"note: there are no shards at {run.data.shards} yet; a run renders and prepares the synthetic corpus there first "
            "(a minute or two, once), and what it would do with them is shown once they are there",
        )
    for name in stage.jobs(run) if not absent else ():
        try:
            stage.check(run, name)
            job = stage.job(run, name, 0, run.scaling.most, torch.device("cpu"))
        except Exception as error:  # every reason is the user's to read, and the rest of the plan still helps
            problems.append(f"{name}: {error}")
            continue
        try:
            columns[name] = _column(run, job)
            _data(console, run, job)
        finally:
            job.close()
    for first in range(0, len(columns), BESIDE):
        console.print(_beside(dict(list(columns.items())[first : first + BESIDE])))
    if columns and stage.reads_shards:
        for remark in remarks(run, ShardReader.of(run.data).index):
            _say(console, remark, ("note: ", "yellow"))
    problems += _reach(console, run)
    _resume(console, run, problems)
    for problem in problems:
        _say(console, problem, ("would fail: ", "red"))
    if problems:
        raise SystemExit(1)
    _say(console, ": nothing was trained; --print-config shows every setting", ("ready", "green"))


def _say(console: Console, sentence: str, head: tuple[str, str] = ("", "")) -> None:
    """Print a sentence, broken between words alone: a path stays whole."""
    lines = [
        part
        for line in redact(f"{head[0]}{sentence}").splitlines()
        for part in textwrap.wrap(line, console.width, break_long_words=False, break_on_hyphens=False)
    ]
    text = Text("\n".join(lines))
    text.stylize(head[1], 0, len(head[0].rstrip()))
    console.print(text, soft_wrap=True, highlight=False)


def _outline(run: Run) -> str:
    """The settings that people look for first."""
    workers = run.scaling.workers
    count = (
        f"{workers} worker{'s' if workers != 1 else ''}"
        if isinstance(workers, int)
        else "{} to {} workers".format(*workers)
    )
    data = f"{run.data.shards}, split {run.data.split}, {run.data.size} px, {run.data.frames_per_recording} frames a recording"
    return f"data: {data}\ntraining: {count}, ZeRO-{run.zero.stage}, {run.zero.precision}, seed {run.seed}"


def _beside(columns: dict[str, dict[str, str]]) -> Table:
    """One column for each job, one row for each figure."""
    table = Table("job", *columns, box=None, pad_edge=False)
    for label in next(iter(columns.values()), {}):
        table.add_row(label, *(column[label] for column in columns.values()))
    return table


def _column(run: Run, job: Job) -> dict[str, str]:
    settings: JobSettings = job.settings
    workers = run.scaling.most
    share = share_of(settings.global_batch, workers - 1, workers, settings.micro_batch)
    batch = next(iter(job.batches(0)))[0]
    one = batch.part(slice(1))
    speed.prepare(job.networks, run.speed)
    flops, activations = measure(job, one, run.zero.precision)
    networks = nn.ModuleDict(job.networks)
    trainable = sum(p.numel() for p in networks.parameters() if p.requires_grad)
    everything = compute_module_sizes(networks)[""]
    frozen = everything - 4 * trainable
    need = memory(trainable, frozen, activations * share.micro_batch, run.zero, workers, states_of(job))
    parts = [part.name for part in fields(need)]
    return {
        "form": settings.form,
        "steps": f"{settings.steps:,}",
        "batch = micro x steps x workers": _product(settings.global_batch, share, workers),
        "trained parameters": f"{trainable:,}",
        "GFLOP/sample": f"{flops / 1e9:.2f}",
        f"GB/worker under ZeRO-{run.zero.stage}": f"{need.total / 1e9:.3f}",
        **{f"  {part}": f"{getattr(need, part) / 1e9:.3f}" for part in parts},
    }


def _product(batch: int, share: Share, workers: int) -> str:
    exact = share.micro_batch * share.steps * workers == batch
    return f"{batch} {'=' if exact else '<='} {share.micro_batch} x {share.steps} x {workers}"


def _data(console: Console, run: Run, job: Job) -> None:
    facts = job.dataset["counts"]
    samples = job.settings.steps * job.settings.global_batch
    if job.dataset.get("read") == "once":
        _say(
            console,
            f"{job.name}: {facts['groups']} of {facts['groups_in_index']} groups read once, before the first step; "
            f"{samples} samples drawn in memory",
        )
        return
    epochs = samples / facts["samples_per_epoch"]
    _say(
        console,
        f"{job.name}: {facts['groups']} of {facts['groups_in_index']} groups used, {facts['samples_per_epoch']} samples and "
        f"{facts['bytes_per_epoch'] / 1e6:.1f} MB read per epoch; {samples} samples = {epochs:.2f} epochs",
    )


def _reach(console: Console, run: Run) -> list[str]:
    """Whether storage and tracking answer; problems in words."""
    problems = []
    try:
        fs, root = open_filesystem(run.checkpoint.storage)
        fs.makedirs(root, exist_ok=True)
        probe = f"{root}/.spfem-write-probe"
        with fs.open(probe, "w") as f:
            f.write("probe")
        fs.rm(probe)
        _say(console, f"storage {run.checkpoint.storage}: writable")
    except Exception as error:  # any failure of any storage is one line of the plan
        problems.append(f"storage {run.checkpoint.storage} cannot be written ({error}): set --checkpoint.storage")
    if run.tracking.uri:
        reach = tracking.reachable(run.tracking.uri)
        _say(console, f"tracking {redact(run.tracking.uri)}: {reach.detail}")
        if not reach.ok:
            problems.append(f"tracking: {reach.detail}")
    else:
        _say(console, "tracking is off (tracking.uri is empty)")
    return problems


def _resume(console: Console, run: Run, problems: list[str]) -> None:
    folder = RunFolder(run)
    if not folder.exists():
        _say(console, f"name {run.name!r} is new in {run.checkpoint.storage}: it would start a run")
        return
    states = {name: folder.read(f"{name}/state.json", {"status": "not started"}) for name in run.jobs()}
    stand = ", ".join(f"{name} {state['status']} at step {state.get('step', '?')}" for name, state in states.items())
    _say(console, f"name {run.name!r} exists: it would resume ({stand})")
    kept = folder.read("state.json", {}).get("data_digest")
    if kept and folder.has_begun() and not run.data.allow_other and not ready.to_be_made(run):
        try:
            digest = ShardReader.of(run.data).index.digest
        except (OSError, ValueError):  # said already
            digest = kept
        if digest != kept:
            problems.append(
                f"{run.data.shards} holds data set {digest[:12]}, and {run.name!r} has learned from {kept[:12]}"
            )
    for field, old, new in binding_changes(folder.stored(), run):
        if folder.has_begun() and not run.checkpoint.allow_other:
            problems.append(f"--{field} was {old!r} when {run.name!r} started and is {new!r} now: give another --name")
