"""`spfem edit`: one clip, or a folder of them here or in parallel Ray tasks; what is done already is kept."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
from rich.console import Console

from spfem_dist.console import plain_console
from spfem_dist.editing.clip import Edited, EditTarget, Settings, edit_clip
from spfem_dist.editing.compose import Composing
from spfem_dist.editing.face import finder_for, follow
from spfem_dist.editing.progress import Progress
from spfem_dist.editing.request import EditRequest, Task, checked_emotion, find, is_done
from spfem_dist.editing.video import footage
from spfem_dist.errors import about
from spfem_dist.generators.face.unit_wish import UnitWish
from spfem_dist.generators.generator import Face, Generator

Load = Callable[[str], Generator]


@dataclass(frozen=True)
class Failed:
    """A clip of a folder that could not be edited, and why; the others are."""

    source: Path
    message: str


@dataclass(frozen=True)
class EditSummary:
    """What a call of `run` did. kept: clips that were done already."""

    edited: list[Edited]
    failed: list[Failed]
    kept: int


def run(request: EditRequest, load: Load, console: Console | None = None) -> EditSummary:
    """Edit what `request` names with the generator that `load` makes of its location.

    Raises ValueError or OSError, with one message that names the fix, for a bad request or a single clip that cannot be
    edited; the bad clips of a folder are in the summary instead. A file appears when it is whole.
    """
    console = console or plain_console()
    started = time.monotonic()
    emotion = checked_emotion(request)
    wish = _wish(request, console) if request.text else None
    finder_for(request.faces, request.landmarks is not None)  # raises before a generator is loaded
    found = find(request)
    if found.aside:
        console.print(f"left aside, no films by their names: {_some(found.aside, request.source)}")
    todo = [task for task in found.tasks if not is_done(request, task)]
    summary = EditSummary([], [Failed(Path(r.path), r.detail) for r in found.closed], len(found.tasks) - len(todo))
    if summary.kept:
        console.print(f"{summary.kept} of {len(found.tasks)} done already and kept (--overwrite makes them again)")
    if not todo:
        _say_failed(summary, console)
        return summary
    paint = request.paint
    if request.compose:  # which paints as much itself, before the head is put back whole
        load, paint = Composing(load, _absolute(request.compose), paint), 1.0
    work = _Work(request, EditTarget(emotion, None, request.amount, paint, wish), load, request.generator)
    if request.reference is not None:
        work = replace(work, target=replace(work.target, reference=_reference(request, work.generator(), console)))
    if not request.source.is_dir():
        with Progress(console, 2 * footage(request.source).frames, "frames") as progress:
            # Every frame is read twice, once to find the face and once to edit it.
            edited = work.edit(todo[0], advance=lambda what: progress.advance(what, frames=0.5))
        summary.edited.append(edited)
        console.print(_line(edited, time.monotonic() - started))
        return summary
    with Progress(console, len(todo), "clips") as progress:
        for done in _on_ray(work, todo) if request.ray else _here(work, todo, progress):
            (summary.edited if isinstance(done, Edited) else summary.failed).append(done)  # type: ignore[arg-type]
            progress.advance("editing", 1, done.frames if request.ray and isinstance(done, Edited) else 0)
            if isinstance(done, Edited) and done.remarks:
                console.print(f"{os.path.relpath(done.out, request.out)}: {'; '.join(done.remarks)}")
    frames, seconds = sum(e.frames for e in summary.edited), time.monotonic() - started
    console.print(
        f"{len(summary.edited)} clips edited into {request.out}, {frames:,} frames in {seconds:,.1f} s "
        f"({frames / max(seconds, 1e-3):,.1f} frames/s)"
    )
    _say_failed(summary, console)
    return summary


def _say_failed(summary: EditSummary, console: Console) -> None:
    for failure in summary.failed:
        console.print(f"not edited: {failure.message}")


def _some(files: list[Path], folder: Path) -> str:
    named = ", ".join(str(file.relative_to(folder)) for file in files[:5])
    return f"{named} and {len(files) - 5} more" if len(files) > 5 else named


@dataclass(frozen=True)
class _Work:
    """What is the same for every clip; it travels to Ray's workers, each of which loads the generator once."""

    request: EditRequest
    target: EditTarget
    load: Load
    location: str
    threads: int = 0

    def generator(self) -> Generator:
        return _loaded(self.load, self.location)

    def edit(self, task: Task, advance: Callable[[str], None] = lambda what: None) -> Edited:
        finder = finder_for(self.request.faces, task.landmarks is not None)
        settings = Settings(self.request.comment, self.threads)
        film = footage(task.source)
        return edit_clip(
            film, task.out, self.generator(), self.target, finder, task.landmarks, task.preview, settings, advance
        )

    def attempt(self, task: Task, advance: Callable[[str], None] = lambda what: None) -> Edited | Failed:
        try:
            return self.edit(task, advance)
        except (OSError, ValueError, RuntimeError) as error:
            return Failed(task.source, about(task.source, error))


def _absolute(location: str) -> str:
    return str(Path(location).resolve()) if Path(location).exists() else location  # workers have another working folder


@functools.cache
def _loaded(load: Load, location: str) -> Generator:
    return load(location)


def _wish(request: EditRequest, console: Console) -> UnitWish:
    from spfem_dist.words import text_map  # transformers is slow to import
    from spfem_dist.words.wish import understand

    understood = understand(request.text, text_map.load(request.words or text_map.SHIPPED))
    console.print(understood.in_words())
    return understood.wish(request.text_amount)


def _reference(request: EditRequest, generator: Generator, console: Console) -> Face:
    assert request.reference is not None
    film = footage(request.reference)
    finder = finder_for(request.faces, request.reference_landmarks is not None, "--reference-landmarks")
    with Progress(console, film.frames, "frames") as progress:
        followed = follow(
            film,
            finder,
            generator.size,
            generator.topology,
            request.reference_landmarks,
            lambda: progress.advance("reading the reference"),
        )
    if followed.faces > 1:
        console.print(f"{request.reference.name}: {followed.faces} faces are in it, the largest is the reference")
    return followed.face


def _here(work: _Work, todo: list[Task], progress: Progress) -> Iterator[Edited | Failed]:
    for task in todo:
        yield work.attempt(task, lambda what: progress.advance(what, 0, 0.5))


def _on_ray(work: _Work, todo: list[Task]) -> Iterator[Edited | Failed]:
    import ray

    from spfem_dist.prepare.job import ray_running

    absolute = [replace(t, **{n: p.resolve() for n, p in vars(t).items() if p is not None}) for t in todo]
    work = replace(work, location=_absolute(work.location))
    with ray_running(None, len(todo)):
        gpus = ray.cluster_resources().get("GPU", 0)
        attempt = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_attempt_alone)
        shared = ray.put(work)
        waiting = [attempt.remote(shared, task) for task in absolute]
        try:
            while waiting:
                ready, waiting = ray.wait(waiting, num_returns=1)
                yield from ray.get(ready)
        finally:
            for task in waiting:
                ray.cancel(task)


def _attempt_alone(work: _Work, task: Task) -> Edited | Failed:
    cv2.setNumThreads(1)  # a task has one core
    return replace(work, threads=1).attempt(task)


def _line(edited: Edited, seconds: float) -> str:
    sound = f"{edited.packets:,} packets of sound copied" if edited.packets else "no sound"
    remarks = "".join(f"\n  {remark}" for remark in edited.remarks)
    rate = edited.frames / max(seconds, 1e-3)
    return f"{edited.out}: {edited.frames:,} frames ({edited.seconds:.1f} s), {sound}, {rate:,.1f} frames/s{remarks}"
