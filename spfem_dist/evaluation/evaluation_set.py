"""What generators are scored on: the test clips of a protocol with their true targets, read and judged once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spfem_dist.config import Data
from spfem_dist.corpora import rendered
from spfem_dist.corpora._speech.corpus import SpokenCorpus
from spfem_dist.corpora.splits import Split
from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.clips import TestClip, planes, read_clips, topology_of
from spfem_dist.evaluation.distances import mean_cosine
from spfem_dist.evaluation.edits import RealFaces, Seen, Truth, look, real_faces, scores, some
from spfem_dist.evaluation.generator import COPY, TARGET
from spfem_dist.evaluation.judges.saved import Judges
from spfem_dist.evaluation.mouth import VisemeProbe
from spfem_dist.evaluation.protocol import Edit, Place, Protocol, ProtocolError, protocol_for
from spfem_dist.evaluation.retrieval import Estimate, bootstrap
from spfem_dist.records import Clip, RawRecording
from spfem_dist.storage import open_filesystem
from spfem_dist.streaming.loader import Source

#: Training groups on which the probe of what is spoken learns.
PROBE_GROUPS = 48
#: A clip in one row of the tables: its scores by name, and the identity features that FAD compares.
Row = tuple[dict[str, float], np.ndarray]


@dataclass(frozen=True)
class Goal:
    """What a source with an emotion is held against, and the rows that need no generator."""

    truth: Truth
    real: RealFaces
    rows: Mapping[str, Row]


@dataclass
class Beside:
    """What the judges say of an unchanged source, and its goals by emotion."""

    copy: Seen
    emotions: dict[Emotion, Goal] = field(default_factory=dict)


def evaluation_set(
    data: Data, judges: Judges, size: int, sentences: int | None = None, protocol: str = ""
) -> EvaluationSet:
    """Read the test recordings of a protocol.

    data: where the shards are and how they are split. size: of the frames in pixels, the generator's. sentences: sources for each
    speaker, in place of the protocol's number. protocol: name or file; empty means the corpus's own. Raises ValueError where the
    judges were trained on other landmarks than the shards hold, ProtocolError for recordings that are not there.
    """
    source = Source(data.model_copy(update={"size": size}), landmarks=True)
    index = source.reader.index
    topology = topology_of(index)
    if topology != judges.oracle.topology:
        raise ValueError(
            f"the shards hold {topology} landmarks and the judges were trained on {judges.oracle.topology}: use one kind for both"
        )
    split = Split.load(data.split)
    plan = Protocol.load(protocol) if protocol else protocol_for(index.corpus)
    edits = plan.edits((e for shard in index.shards for e in shard.groups), split, sentences)
    recordings = read_clips(source.data, lambda e: split.accepts("test", e.speaker, e.sentence), source)
    corpus = rendered_corpus(source, size)
    probe = None if corpus is None else viseme_probe(source, split, topology)
    facts = {
        "judges": str(judges),
        "protocol": plan.name,
        "sentences": sentences or plan.sentences,
        "shards": data.shards,
        "data digest": index.digest[:12],
        "split": data.split,
        "size": size,
    }
    return EvaluationSet(judges, recordings, edits, corpus, probe, facts)


def rendered_corpus(source: Source, size: int) -> SpokenCorpus | None:
    """The corpus that the shards were rendered from, drawn at `size` pixels; None for recorded ones.

    Its seed, extent and style are in the shards' own settings files, written by `spfem prepare`.
    """
    index = source.reader.index
    if not rendered.is_rendered(index.corpus):
        return None
    name = index.shards[0].name.removesuffix(".tar") + ".json"
    fs, root = open_filesystem(source.data.shards)
    if not fs.exists(f"{root}/{name}"):
        raise ProtocolError(
            f"{source.data.shards} has no {name}, which says how the {index.corpus} corpus was rendered: copy it there, or prepare again"
        )
    with fs.open(f"{root}/{name}", "r") as f:
        made = json.load(f)["settings"]
    extent = made["identities"], made["synthetic_sentences"]
    return rendered.corpus(index.corpus, *extent, made["fps"], size, made["seed"], made.get("style", 0.0))


def viseme_probe(source: Source, split: Split, topology: str) -> VisemeProbe:
    """The probe of what is spoken, learnt on landmarks of the split's training part."""
    reader = source.reader
    places = [
        (s, g)
        for s, shard in enumerate(reader.index.shards)
        for g, entry in enumerate(shard.groups)
        if split.accepts("train", entry.speaker, entry.sentence)
    ]
    chosen = np.linspace(0, len(places) - 1, min(len(places), PROBE_GROUPS)).astype(int)
    groups = (reader.read(*places[i]) for i in chosen)
    return VisemeProbe.fit(
        (
            (recording.landmarks, recording.truth["visemes"])
            for group in groups
            for recording in group.recordings
            if recording.landmarks is not None and "visemes" in recording.truth
        ),
        topology,
    )


class EvaluationSet:
    """The protocol's edits, and of each the source, the true target and what the judges say of both: found once, for any number of
    generators.

    corpus, probe: what renders true targets and reads speech off their lips; None for recorded corpora. facts: what was read, for the record of a score.
    """

    def __init__(
        self,
        judges: Judges,
        clips: Iterable[TestClip],
        edits: Sequence[Edit],
        corpus: SpokenCorpus | None,
        probe: VisemeProbe | None,
        facts: Mapping[str, Any],
    ):
        self.judges, self.edits, self.corpus, self.probe, self.facts = judges, tuple(edits), corpus, probe, dict(facts)
        whole = {str(place) for edit in edits for place in (edit.source, edit.reference)}
        self._sources: dict[str, Beside] = {}
        self.clips: dict[str, TestClip] = {}
        self.identity: dict[str, np.ndarray] = {}
        self.expression: dict[str, np.ndarray] = {}
        for clip in clips:
            shown = planes(some(clip.frames[clip.valid]))
            self.identity[clip.name] = judges.identity.embed(shown).numpy()
            self.expression[clip.name] = judges.oracle.read(shown).features.numpy()
            self.clips[clip.name] = clip if clip.name in whole else replace(clip, frames=clip.frames[:0])

    def clip(self, place: Place) -> TestClip:
        """The recording at a place of the protocol."""
        if str(place) not in self.clips:
            raise ProtocolError(f"recording {place} cannot be read from the shards: prepare them again")
        return self.clips[str(place)]

    def showing(self, speaker: str, emotion: Emotion) -> list[str]:
        """Names of the speaker's test recordings of an emotion."""
        return [name for name, c in self.clips.items() if c.speaker == speaker and c.emotion is emotion]

    def real(self, source: TestClip, emotion: Emotion, without: str = "") -> RealFaces:
        """The speaker's real faces that an edit of `source` is held against. without: a recording not to be held against itself."""
        others = [self.identity[n] for n, c in self.clips.items() if c.speaker == source.speaker and n != source.name]
        if not others:
            raise ProtocolError(f"{source.speaker} has no test recording but {source.name}: identity needs another")
        shown = self.showing(source.speaker, emotion)
        return real_faces(others, [self.expression[n] for n in shown if n != without or len(shown) == 1])

    def real_identity(self, source: str, emotion: str) -> np.ndarray:
        """Identity features of real frames of the emotion by the source's speaker, for FAD."""
        return np.concatenate([self.identity[n] for n in self.showing(self.clips[source].speaker, Emotion(emotion))])

    def real_csim(self, edits: Sequence[Edit]) -> dict[str, Estimate]:
        """CSIM between different real recordings of one speaker and emotion: what a perfect generator could reach."""
        values = []
        for speaker, emotion in dict.fromkeys((e.source.speaker, e.emotion) for e in edits):
            seen = [self.expression[name] for name in self.showing(speaker, emotion)]
            values += [mean_cosine(a, b) for i, a in enumerate(seen) for b in seen[i + 1 :]]
        return {"stage2/real/csim": bootstrap(values)} if values else {}

    def beside(self, source: TestClip) -> Beside:
        """What every edit of a source is held against. Sources are independent: each may be asked for in a thread of its own."""
        if source.name not in self._sources:
            mine = [edit for edit in self.edits if str(edit.source) == source.name]
            copy, clean = look(self.judges, source.frames, source.features, source.valid), self.clean(source)
            found = Beside(copy)
            for emotion in dict.fromkeys(edit.emotion for edit in mine):
                truth, real = self.truth(source, emotion, clean), self.real(source, emotion)
                of_emotion = [edit for edit in mine if edit.emotion is emotion]
                ideal, values = self._ideal(source, of_emotion, truth, copy)
                own = scores(self.judges, copy, emotion, truth, real, copy, aimed=source.landmarks)
                # A real recording is one of those that FAD compares with, so that its own would mean nothing.
                features = ideal.identity if truth.frames is not None else ideal.identity[:0]
                rows = {COPY: (own, copy.identity), TARGET: (values, features)}
                found.emotions[emotion] = Goal(truth, real, rows)
            self._sources[source.name] = found
        return self._sources[source.name]

    def clean(self, source: TestClip) -> RawRecording | None:
        """The source as it was rendered, before any coding; None on recorded corpora."""
        return None if self.corpus is None else self.corpus.render(_clip_of(self.corpus, source))

    def truth(self, source: TestClip, emotion: Emotion, clean: RawRecording | None) -> Truth:
        """The true target of an edit where it can be rendered; on recorded corpora the source's own mouth."""
        if self.corpus is None or clean is None:
            return Truth(source.landmarks)
        target = self.corpus.target(_clip_of(self.corpus, source), emotion)
        if len(target.frames) != len(source.frames):
            raise ProtocolError(
                f"{source.name} has {len(source.frames)} frames in the shards and {len(target.frames)} when rendered: "
                "the shards were made by another version; prepare them again"
            )
        assert target.landmarks is not None
        return Truth(target.landmarks, target.frames, clean.frames, target.truth["visemes"], self.probe)

    def _ideal(
        self, source: TestClip, edits: Sequence[Edit], truth: Truth, copy: Seen
    ) -> tuple[Seen, dict[str, float]]:
        """The row `target` and its scores: the rendered truth, or the speaker's real recording that is the reference."""
        judges, emotion = self.judges, edits[0].emotion
        if truth.frames is not None:
            seen = look(judges, truth.frames, source.features, source.valid)
            real = self.real(source, emotion)
            return seen, scores(judges, seen, emotion, truth, real, copy, aimed=truth.landmarks)
        place = next((edit.reference for edit in edits if edit.reference.speaker == source.speaker), edits[0].reference)
        recorded = self.clip(place)
        seen = look(judges, recorded.frames, recorded.features, recorded.valid)
        held_against = self.real(source, emotion, without=recorded.name)
        return seen, scores(judges, seen, emotion, truth, held_against, copy, aligned=False)


def _clip_of(corpus: SpokenCorpus, clip: TestClip) -> Clip:
    return corpus.clip(int(clip.speaker[1:]), int(clip.sentence), clip.emotion, clip.take)
