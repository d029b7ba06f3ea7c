"""`spfem prepare`: recordings become shards, in parallel Ray tasks, one for each shard.

A shard is written whole, with a sidecar (`shard-000000.json`) that says from which settings and files. A second call keeps
the shards whose sidecar and sha256 agree, and writes the others; `index.json` comes last, when all are there. The same
input gives the same bytes, however many workers there are.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import logging
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import cv2
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from threadpoolctl import threadpool_limits

from spfem_dist import weights
from spfem_dist.console import plain_console
from spfem_dist.corpora import rendered
from spfem_dist.corpora.splits import PARTS, Split, own_split
from spfem_dist.files import file_sha256, home, write_whole
from spfem_dist.inventory import groups_of, lacking_pairs
from spfem_dist.prepare.alignment import import_paths
from spfem_dist.prepare.group import build_group
from spfem_dist.prepare.plan import PrepareSettings, ShardPlan, find_clips, fingerprint, plan_shards
from spfem_dist.prepare.progress import Progress
from spfem_dist.prepare.shards import write_shard
from spfem_dist.ray_address import authenticate, refuse_dead_address, start_here
from spfem_dist.records import Reject
from spfem_dist.shard_format import INDEX_NAME, ShardEntry, ShardIndex, shards_digest
from spfem_dist.shard_table import save_index

REJECTS_NAME = "rejects.csv"
SPLIT_NAME = "split.json"


class Sidecar(BaseModel):
    """What was written to one shard, and from what. shard: None where none of its clips could be used."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["spfem-shard/1"] = "spfem-shard/1"
    settings: dict[str, Any]
    clips_digest: str
    feature_dim: int
    landmarks: str
    shard: ShardEntry | None
    rejects: list[Reject]


@dataclass(frozen=True)
class PrepareSummary:
    """What a call of `run` did. kept, written: shards. rejects: everything that is not used, as in rejects.csv."""

    index: ShardIndex
    kept: int
    written: int
    seconds: float
    rejects: list[Reject]


@dataclass(frozen=True)
class Done:
    """One more group of a shard is done: `clips` clips that gave `frames` frames."""

    clips: int
    frames: int


def run(settings: PrepareSettings, console: Console | None = None) -> PrepareSummary:
    """Prepare shards as `settings` say; what is finished already is kept. Returns what was done.

    Raises ValueError where `out` holds shards of other settings or nothing can be used, `DiskFull` where there is no
    room, FileNotFoundError where `root` or weights are missing. Finished shards survive every error and Ctrl-C.
    """
    console = console or plain_console()
    started = time.monotonic()
    settings = _resolved(settings, console)
    settings.out.mkdir(parents=True, exist_ok=True)
    with _alone_in(settings.out):
        with console.status(f"looking for clips of {settings.corpus}"):
            clips, rejects = find_clips(settings)
            plans = plan_shards(clips, settings)
            sidecars = _finished(plans, settings)
        todo = [plan for plan in plans if plan.name not in sidecars]
        if todo:
            (settings.out / INDEX_NAME).unlink(missing_ok=True)  # no index is better than one that is not true
        if sidecars:
            console.print(f"{len(sidecars)} of {len(plans)} shards in {settings.out} are finished and kept")
        build = _build_here if settings.local else _build_on_ray
        clips_to_do = sum(plan.clips for plan in todo)
        with Progress(console, clips_to_do) as progress, closing(build(todo, settings)) as steps:
            for plan, step in steps:
                if isinstance(step, Sidecar):
                    sidecars[plan.name] = step
                else:
                    progress.advance(step.clips, step.frames)
        parts = [sidecars[plan.name] for plan in plans]
        rejects += [reject for part in parts for reject in part.rejects]
        _write_rejects(settings.out, rejects)
        index = _index(parts, settings, rejects)
        save_index(index, settings.out)
        if settings.corpus == "folder":
            _write_split(index, settings, console)
    summary = PrepareSummary(index, len(plans) - len(todo), len(todo), time.monotonic() - started, rejects)
    _print(summary, settings, console)
    return summary


def build_shard(plan: ShardPlan, settings: PrepareSettings) -> Iterator[Done | Sidecar]:
    """Make one shard: a `Done` after each group, and the shard's sidecar at the end, when both files are on disk."""
    groups, rejects = [], []
    with _one_thread():
        for key, clips in plan.groups:
            group, unusable = build_group(key, clips, settings)
            rejects += unusable
            if group is not None:
                groups.append(group)
            yield Done(len(clips), sum(r.frames for r in group.recordings) if group else 0)
    if not groups:
        (settings.out / plan.name).unlink(missing_ok=True)  # of an earlier call, when the clips could be used
    recordings = [recording for group in groups for recording in group.recordings]
    sidecar = Sidecar(
        settings=fingerprint(settings),
        clips_digest=plan.clips_digest,
        feature_dim=recordings[0].features.shape[1] if recordings else 0,
        landmarks=_landmarks(settings, any(r.landmarks is not None for r in recordings)),
        shard=write_shard(settings.out / plan.name, groups) if groups else None,
        rejects=rejects,
    )
    write_whole(_sidecar_path(settings.out, plan), sidecar.model_dump_json(indent=1) + "\n")
    yield sidecar


@contextmanager
def _one_thread() -> Generator[None, None, None]:
    # Tasks fill the cores, and results may differ in the last bit with the number of threads.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        cv2.setNumThreads(before)


def _landmarks(settings: PrepareSettings, found: bool) -> str:
    if not found:
        return "none"
    return rendered.find(settings.corpus).LANDMARKS if rendered.is_rendered(settings.corpus) else "mesh478"


# --- running the shards' tasks ------------------------------------------------------------------------------------


_Steps = Generator[tuple[ShardPlan, Done | Sidecar], None, None]


def _build_here(plans: list[ShardPlan], settings: PrepareSettings) -> _Steps:
    for plan in plans:
        for step in build_shard(plan, settings):
            yield plan, step


def _build_on_ray(plans: list[ShardPlan], settings: PrepareSettings) -> _Steps:
    if not plans:
        return
    import ray
    from ray.exceptions import RayTaskError

    with ray_running(settings.workers, len(plans)) as slots:
        task = ray.remote(num_cpus=1, num_returns="streaming", max_retries=3)(build_shard)
        waiting = list(reversed(plans))
        running: dict[Any, ShardPlan] = {}
        try:
            while waiting or running:
                # A few more than there are slots: no slot waits for this loop, and an error leaves little behind.
                while waiting and len(running) < slots + 2:
                    plan = waiting.pop()
                    running[task.remote(plan, settings)] = plan
                ready: list[Any] = ray.wait(list(running), num_returns=1)[0]
                for steps in ready:
                    try:
                        yield running[steps], cast(Done | Sidecar, ray.get(next(steps)))
                    except StopIteration:
                        del running[steps]
        except RayTaskError as error:
            raise (error.cause or error) from error  # the task's own error is the one that names file and fix
        finally:
            for steps in running:
                ray.cancel(steps)


@contextmanager
def ray_running(workers: int | None, tasks: int) -> Generator[int, None, None]:
    """Ray, and how many tasks it can run at once: a cluster that is there already, or one of this machine's cores."""
    authenticate()
    import ray

    ours = not ray.is_initialized()
    if ours and os.environ.get("RAY_ADDRESS"):
        refuse_dead_address()
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    elif ours:
        cores = workers or len(os.sched_getaffinity(0))
        start_here(min(cores, tasks))
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if ours:
            ray.shutdown()


# --- what is there already ----------------------------------------------------------------------------------------


def _finished(plans: list[ShardPlan], settings: PrepareSettings) -> dict[str, Sidecar]:
    """The sidecars of the planned shards that are whole and made from the same settings and files."""
    expected = fingerprint(settings)
    finished = {}
    for plan in plans:
        sidecar = _read_sidecar(_sidecar_path(settings.out, plan))
        if sidecar is None:
            continue
        _refuse_other_settings(sidecar.settings, expected, settings.out)
        tar = settings.out / plan.name
        whole = sidecar.shard is None or (tar.is_file() and file_sha256(tar) == sidecar.shard.sha256)
        if whole and sidecar.clips_digest == plan.clips_digest:
            finished[plan.name] = sidecar
    planned = {plan.name for plan in plans}
    if beyond := sorted(path.name for path in settings.out.glob("shard-*.tar") if path.name not in planned):
        raise ValueError(
            f"{settings.out} holds shards that are not part of this call, such as {beyond[0]} ({len(beyond)} in all): "
            "remove them, or choose another --out"
        )
    for part in settings.out.glob(".shard-*.part"):  # left by a killed call; the lock says nobody writes them now
        part.unlink()
    return finished


def _refuse_other_settings(found: dict[str, Any], expected: dict[str, Any], out: Path) -> None:
    if found == expected:
        return
    differences = [
        f"{name} {found.get(name)} there, {expected.get(name)} now"
        for name in sorted({*found, *expected})
        if found.get(name) != expected.get(name)
    ]
    raise ValueError(
        f"{out} holds shards of other settings ({'; '.join(differences)}): "
        "give the same settings to go on, choose another --out, or remove that folder"
    )


def _read_sidecar(path: Path) -> Sidecar | None:
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None  # a damaged sidecar only costs making its shard again


def _sidecar_path(out: Path, plan: ShardPlan) -> Path:
    return (out / plan.name).with_suffix(".json")


@contextmanager
def _alone_in(out: Path) -> Generator[None, None, None]:
    lock = out / ".prepare.lock"
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another `spfem prepare` is writing to {out}: wait for it, or choose another --out"
            ) from None
        yield


# --- settings and results -----------------------------------------------------------------------------------------


def _resolved(settings: PrepareSettings, console: Console) -> PrepareSettings:
    """Absolute paths (Ray tasks work elsewhere; `out` starts at SPFEM_HOME, as runs do), the finder that `auto` means; weights are fetched or end the call now."""
    settings = settings.model_copy()
    for name in ("root", "out", "warps"):
        path = getattr(settings, name)
        if path is not None:
            start = home() if name == "out" else ""
            setattr(settings, name, (Path(start) / path.expanduser()).resolve())
    if settings.warps is not None:
        import_paths(settings.warps)
    if settings.speech == "wav2vec2":
        weights.locate("wav2vec2-large-xlsr-53")
    if rendered.is_rendered(settings.corpus):
        return settings
    if settings.faces == "auto":
        settings.faces = "mesh"
    if settings.faces.endswith("mesh"):
        try:
            weights.ensure("face-mesh", lambda line: console.print(line, highlight=False, soft_wrap=True))
        except weights.MissingWeights as error:
            raise weights.MissingWeights(
                f"{error}\n  or give --faces cascade, which needs no download: shards without landmarks, which serve stage 1 "
                "and neither stage 2 nor edits"
            ) from None
    else:
        console.print(
            f"--faces {settings.faces} finds no landmarks: these shards will serve stage 1, and neither stage 2 nor edits "
            f"({'--faces aligned-mesh' if settings.faces == 'aligned' else '--faces mesh'} finds them)",
            highlight=False,
            soft_wrap=True,
        )
    return settings


def _index(parts: list[Sidecar], settings: PrepareSettings, rejects: list[Reject]) -> ShardIndex:
    shards = [part.shard for part in parts if part.shard is not None]
    if not shards:
        first = {reject.reason: reject.detail for reject in reversed(rejects) if reject.reason != "empty-group"}
        examples = "".join(f"\n  {reason}: {detail}" for reason, detail in list(first.items())[:3])
        raise ValueError(
            f"no usable clip of {settings.corpus} under {settings.root}: is it the corpus's top folder? "
            f"{len(rejects)} files were not used, the reasons are in {settings.out / REJECTS_NAME}{examples}"
        )
    filled = [part for part in parts if part.shard is not None]
    return ShardIndex(
        corpus=settings.corpus,
        fps=settings.fps,
        size=settings.size,
        speech_features=settings.speech,
        feature_dim=filled[0].feature_dim,
        landmarks=next((part.landmarks for part in filled if part.landmarks != "none"), "none"),
        style=settings.style,
        digest=shards_digest(shards),
        shards=shards,
    )


def _write_split(index: ShardIndex, settings: PrepareSettings, console: Console) -> None:
    """A split beside the shards of data that come with none; one that is there is its owner's and stays."""
    path = settings.out / SPLIT_NAME
    if not path.exists():
        groups = groups_of(index)
        names = ({group.speaker for group in groups}, {group.sentence for group in groups})
        split = own_split(*map(sorted, names))
        write_whole(path, json.dumps(split, indent=1).encode() + b"\n")
    kept = Split.load(str(path))
    counts = {part: sum(kept.accepts(part, g.speaker, g.sentence) for g in groups_of(index)) for part in PARTS}
    parts = ", ".join(f"{count} groups for {part}" for part, count in counts.items())
    console.print(
        f"split: {parts}; train with --data.split {path} (a file to edit), or --data.split none for all",
        highlight=False,
        soft_wrap=True,
    )


def _write_rejects(out: Path, rejects: list[Reject]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "reason", "detail"])
    writer.writerows([reject.path, reject.reason, reject.detail] for reject in rejects)
    write_whole(out / REJECTS_NAME, table.getvalue())


def _print(summary: PrepareSummary, settings: PrepareSettings, console: Console) -> None:
    index = summary.index
    groups = [group for shard in index.shards for group in shard.groups]
    recordings = [recording for group in groups for recording in group.recordings]
    frames, size = sum(r.frames for r in recordings), sum(shard.bytes for shard in index.shards)
    console.print(
        f"{len(recordings):,} recordings in {len(groups):,} groups, {frames:,} frames ({frames / index.fps / 60:,.1f} min), "
        f"{len(index.shards):,} shards of {size / 1e6:,.1f} MB together in {settings.out}\n"
        f"{summary.written} shards written and {summary.kept} kept in {summary.seconds:,.1f} s; data set {index.digest[:12]}"
    )
    if summary.rejects:
        reasons: dict[str, int] = {}
        for reject in summary.rejects:
            reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        console.print(f"{len(summary.rejects)} not used ({listed}): see {settings.out / REJECTS_NAME}")
    if lack := lacking_pairs(index):
        console.print(f"note: {lack}", highlight=False, soft_wrap=True)
