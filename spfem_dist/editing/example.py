"""An edit to look at: a held-out recording of a set of shards, edited the way `spfem edit` edits any film."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from spfem_dist.config import Data
from spfem_dist.corpora.splits import Split
from spfem_dist.editing.job import run
from spfem_dist.editing.request import EditRequest
from spfem_dist.emotions import Emotion
from spfem_dist.generators.load import load_generator
from spfem_dist.streaming.reader import ShardReader
from spfem_dist.streaming.unpack import unpack


def edit_example(data: Data, generator: str, folder: Path, console: Console, emotion: Emotion = Emotion.ANGRY) -> Path:
    """Edit the first neutral test recording in the manner of another test speaker's recording of `emotion`.

    data: shards and split. folder: gets talk.mp4, reference.mp4, edited.mp4 and side.mp4, made anew. Returns the path of
    side.mp4, source and edit side by side with the sound. Raises ValueError where the test part lacks such recordings.
    """
    reader, split = ShardReader.of(data), Split.load(data.split)
    held_out = [
        (s, g)
        for s, shard in enumerate(reader.index.shards)
        for g, entry in enumerate(shard.groups)
        if split.accepts("test", entry.speaker, entry.sentence)
    ]
    if len(held_out) < 2:
        raise ValueError(f"{data.shards} holds {len(held_out)} test groups; an example needs a source and a reference")
    source, other = reader.read(*held_out[0]), reader.read(*held_out[-1])
    talk = next(r for r in source.recordings if r.emotion == Emotion.NEUTRAL)
    shown = next(r for r in other.recordings if r.emotion == emotion)
    film, points = unpack(talk, folder / "talk.mp4")
    reference, reference_points = unpack(shown, folder / "reference.mp4")
    request = EditRequest(
        film,
        folder / "edited.mp4",
        generator,
        reference=reference,
        preview=folder / "side.mp4",
        faces="aligned",
        landmarks=points,
        reference_landmarks=reference_points,
        overwrite=True,
        strength=1.0,
        paint=1.0,  # the generator has learnt from faces like these
    )
    run(request, load_generator, console)
    return folder / "side.mp4"
