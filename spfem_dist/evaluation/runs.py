"""`spfem evaluate priors RUN`: score the priors of a finished run on held-out speakers and sentences, and write it down."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from threadpoolctl import threadpool_limits
from torch import nn

from spfem_dist.config import Run
from spfem_dist.console import plain_console
from spfem_dist.corpora.splits import Split
from spfem_dist.evaluation.groups import EvaluationGroup, EvaluationRecording
from spfem_dist.evaluation.pictures import report_pictures
from spfem_dist.evaluation.priors import evaluate_priors, meanings, targets
from spfem_dist.evaluation.report import figures_table, headlines, write_report, write_summary
from spfem_dist.evaluation.retrieval import Estimate
from spfem_dist.prepare.landmarks import mouth_opening
from spfem_dist.priors.prior import load_prior
from spfem_dist.records import Batch, Recording, UtteranceGroup
from spfem_dist.runs import read_run
from spfem_dist.saved import is_saved
from spfem_dist.shard_format import GroupEntry
from spfem_dist.shares import share_of
from spfem_dist.storage import open_filesystem, read_json
from spfem_dist.streaming.loader import Source, fixed_batches, whole_recordings
from spfem_dist.tracking import tracker

#: Training groups on which the linear probes learn: enough for stable probes, few enough for a minute.
PROBE_GROUPS = 48


class NothingToScore(RuntimeError):
    """The run holds nothing that can be scored; the message says what is missing."""


def evaluate_run(
    location: str, released: str = "", probe_groups: int = PROBE_GROUPS, console: Console | None = None
) -> dict[str, Estimate]:
    """Score the exported priors under the run folder `location`; write summary.json and report.html there.

    released: run folder of the same priors in their released form, scored as `priors_released/...` in the same table.
    Returns the figures by their path in summary.json.
    Raises NothingToScore where no prior was exported or the split holds nobody out.
    """
    console = console or plain_console(soft_wrap=False)
    began = time.perf_counter()
    # Small matrices: on a busy machine the threads of two linear-algebra libraries wait for each other far longer than they work.
    with threadpool_limits(limits=1):
        return _evaluate(location, released, probe_groups, console, began)


def _evaluate(location: str, released: str, probe_groups: int, console: Console, began: float) -> dict[str, Estimate]:
    run = read_run(location)
    source = Source(run.data)
    with console.status("reading held-out recordings"):
        test = list(read_groups(run, source, "test"))
        if not test:
            raise NothingToScore(
                f"split {run.data.split!r} holds out no group of {run.data.shards} for test: choose another --data.split for the run"
            )
        train = list(read_groups(run, source, "train", probe_groups))
    scored: dict[str, dict[str, nn.Module]] = {}
    for title, folder in (("priors", location), ("priors_released", released)):
        if folder and not (found := exported(folder)):
            raise NothingToScore(
                f"no exported prior under {folder}: train it to its end first (python recipes/cdrl_stage1.py)"
            )
        if folder:
            scored[title] = found

    def score(title: str) -> dict[str, Estimate]:
        priors = scored[title]
        found = evaluate_priors(priors, test, train, run.data.speech_window)
        return {key if key.startswith("corpus/") else f"{title}/{key}": figure for key, figure in found.items()}

    # Side by side: each works on one thread, most of it outside the interpreter's lock.
    with console.status(f"scoring {location}"), ThreadPoolExecutor(len(scored)) as pool:
        figures = {key: figure for found in pool.map(score, scored) for key, figure in found.items()}
    console.print(figures_table(figures, targets(scored["priors"])))
    with console.status("drawing the report"):
        write_down(location, run, figures, scored["priors"], test, source)
    console.print(
        f"scored in {time.perf_counter() - began:.0f} s; {location}/summary.json and report.html hold all of it",
        soft_wrap=True,
    )
    return figures


def exported(location: str) -> dict[str, nn.Module]:
    """The priors exported under a run folder, frozen, by kind."""
    fs, root = open_filesystem(location)
    priors = {}
    for file in sorted(fs.glob(f"{root}/*/model/config.json")):
        if is_saved(fs.cat_file(file), "prior"):
            with tempfile.TemporaryDirectory() as scratch:
                fs.get(f"{file.rsplit('/', 1)[0]}/", scratch, recursive=True)
                inside = Path(scratch) / "model"
                prior, config = load_prior(inside if inside.is_dir() else scratch)
                priors[config["kind"]] = prior
    return priors


def _named(run: Run) -> str:
    """Whom the run learnt from."""
    named = sorted(Split.of(run.data).part("train").speakers or ())
    return f"{' '.join(run.data.speakers)}: {', '.join(named)}" if run.data.speakers else "all of the training part"


def read_groups(run: Run, source: Source, part: str, most: int | None = None) -> Iterator[EvaluationGroup]:
    """The groups of a split part, decoded; at most `most` of them, spread evenly over the part."""
    split = Split.of(run.data)
    index = source.reader.index
    keys = [e.key for shard in index.shards for e in shard.groups if split.accepts(part, e.speaker, e.sentence)]
    if most is not None and len(keys) > most:
        keys = [keys[i] for i in np.linspace(0, len(keys) - 1, most).round().astype(int)]
    wanted = set(keys)
    accept: Callable[[GroupEntry], bool] = lambda entry: entry.key in wanted  # noqa: E731
    current: EvaluationGroup | None = None
    for group, recording, batch in whole_recordings(run.data, accept, source):
        if current is None or current.key != group.key:
            if current is not None:
                yield current
            current = EvaluationGroup(group.key, group.speaker, group.sentence, [], group.warps)
        current.recordings.append(decoded(group, recording, batch.frames[0, 0].permute(0, 2, 3, 1), index.landmarks))
    if current is not None:
        yield current


def decoded(group: UtteranceGroup, recording: Recording, frames: torch.Tensor, topology: str) -> EvaluationRecording:
    """One recording with what is known of its mouth: the synthetic truth, or the opening that its landmarks show."""
    mouth = opening = phase = None
    if "visemes" in recording.truth:
        mouth = recording.truth["visemes"][:, :3].astype(np.float32)
        opening = recording.truth.get("opening", mouth[:, 0]).astype(np.float32)
        phase = recording.truth["phase"].astype(np.float32)
    elif recording.landmarks is not None and topology != "none":
        opening = mouth_opening(recording.landmarks, topology)
        mouth = opening[:, None]
    return EvaluationRecording(
        recording.name, recording.emotion, frames.numpy(), recording.features, recording.valid, mouth, opening, phase
    )


def write_down(
    location: str,
    run: Run,
    figures: dict[str, Estimate],
    priors: dict[str, nn.Module],
    test: list[EvaluationGroup],
    source: Source,
) -> None:
    """summary.json and report.html in the run folder; the figures as metrics and both files as artifacts in MLflow."""
    fs, root = open_filesystem(location)

    def read(name: str, default: list[Any] | dict[str, Any]) -> Any:
        return read_json(fs, f"{root}/{name}", type(default)) if fs.exists(f"{root}/{name}") else default

    index = source.reader.index
    facts = {
        "run": run.name,
        "seed": run.seed,
        "shards": run.data.shards,
        "data digest": index.digest[:12],
        "split": run.data.split,
        "speakers": _named(run),
    }
    pictures = report_pictures(priors, test, held_out_batches(run, priors, source), run.data.speech_window)
    with tempfile.TemporaryDirectory() as scratch:
        summary = write_summary(Path(scratch) / "summary.json", figures)
        jobs = {job.kind: name for name, job in run.jobs().items()}
        curves = {kind: curves_of(read(f"{jobs.get(kind, kind)}/history.json", [])) for kind in priors}
        report = write_report(
            Path(scratch) / "report.html",
            f"Priors of {run.name}",
            figures,
            curves,
            pictures,
            facts,
            targets(priors),
            meanings=meanings(priors),
        )
        for file in (summary, report):
            fs.put_file(str(file), f"{root}/{file.name}")
        samples = max((s.steps * s.global_batch for s in run.jobs().values()), default=0)
        following = tracker.attach(run, read("state.json", {}).get("mlflow_run", ""))
        following.metrics(headlines(figures), samples)  # all of them are in summary.json
        for file in (summary, report):
            following.artifact(file)
        for number, (caption, image) in enumerate(pictures.items()):
            title = re.sub(r"[^\w ]", "", caption.split(",")[0])[:60].strip()
            following.picture(f"report/{number:02d} {title}", image, samples)
        following.flush()
        tracker.keep_view(following)
        following.close()


def held_out_batches(run: Run, priors: dict[str, nn.Module], source: Source) -> dict[str, Batch]:
    """A fixed held-out batch for each prior, for the pictures it draws of itself."""
    split = Split.of(run.data)

    def accept(entry: GroupEntry) -> bool:
        return split.accepts("test", entry.speaker, entry.sentence)

    found = {}
    for name, prior in priors.items():
        with suppress(ValueError):  # a split whose test part cannot serve this prior's view has no such picture
            found[name] = fixed_batches(
                run.data, prior.view, seed=run.seed, share=share_of(4, 0, 1), accept=accept, source=source
            )[0]
    return found


def curves_of(history: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Loss curves over samples seen, training and validation."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in history:
        for key, value in row["values"].items():
            if key.startswith(("train/", "val/")) and key.split("/")[-1] not in ("learning_rate", "gradient_norm"):
                curves.setdefault(key, []).append((row["samples"], value))
    return curves
