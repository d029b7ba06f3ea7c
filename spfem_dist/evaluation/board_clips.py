"""The clips that a leaderboard plays: one rendered test clip in every emotion, beside its true target, edited by every generator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spfem_dist.config import Run
from spfem_dist.corpora.splits import Split
from spfem_dist.evaluation.clips import TestClip, read_clips
from spfem_dist.evaluation.evaluation_set import rendered_corpus
from spfem_dist.evaluation.film import beside, filmed
from spfem_dist.evaluation.generator_runs import driven, rendered
from spfem_dist.evaluation.protocol import Protocol, protocol_for
from spfem_dist.generators.generator import Generator
from spfem_dist.streaming.loader import Source

#: Side of one face in the film, pixels: a dozen of them stand in a row.
SIDE = 96


def board_films(
    run: Run, generators: Mapping[str, Generator], protocol: str = ""
) -> dict[str, tuple[tuple[str, ...], bytes]]:
    """By emotion: the names of the faces in a row, and the row as an MP4. None for recorded faces, which are not ours to show.

    run: whose data are read. generators: by the name of their variant; all of one size.
    """
    size = next(iter(generators.values())).size
    source = Source(run.data.model_copy(update={"size": size}), landmarks=True)
    corpus = rendered_corpus(source, size)
    if corpus is None:
        return {}
    index, split = source.reader.index, Split.load(run.data.split)
    plan = Protocol.load(protocol) if protocol else protocol_for(index.corpus)
    edits = plan.edits((e for shard in index.shards for e in shard.groups), split, 1)
    edits = [edit for edit in edits if edit.source == edits[0].source and edit.reference_identity == "cross"]
    wanted = {str(place) for edit in edits for place in (edit.source, edit.reference)}
    groups = {place.rsplit("/", 1)[0] for place in wanted}
    clips: dict[str, TestClip] = {}
    for clip in read_clips(source.data, lambda entry: entry.key in groups, source):
        if clip.name in wanted:
            clips[clip.name] = clip
    films = {}
    for edit in edits:
        clip, reference = clips[str(edit.source)], clips[str(edit.reference)]
        spoken = corpus.clip(int(clip.speaker[1:]), int(clip.sentence), clip.emotion, clip.take)
        faces: dict[str, np.ndarray] = {
            "source": clip.frames,
            "true target": corpus.target(spoken, edit.emotion).frames,
        }
        for name, generator in generators.items():
            faces[name] = rendered(generator, clip, driven(generator, clip, edit, reference, "reference"))
        films[edit.emotion.value] = tuple(faces), filmed(beside(faces, SIDE))
    return films
