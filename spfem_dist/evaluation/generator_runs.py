"""`spfem evaluate generator RUN`: edit the protocol's clips with a trained generator, score them, and write it down."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from threadpoolctl import threadpool_limits

from spfem_dist.config import Run
from spfem_dist.corpora.splits import Split
from spfem_dist.corpora.synthetic.corpus import SyntheticCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.evaluation.clips import TestClip, planes, read_clips, topology_of
from spfem_dist.evaluation.distances import mean_cosine
from spfem_dist.evaluation.edit_report import in_short, shown_figures, write_down
from spfem_dist.evaluation.edits import Evaluation, RealFaces, Seen, Shown, Truth, look, real_faces, scores, some
from spfem_dist.evaluation.generator import COPY, ROWS, TARGET, UPPER, ClipScore, generator_figures
from spfem_dist.evaluation.judges.saved import Judges, load_judges
from spfem_dist.evaluation.mouth import VisemeProbe
from spfem_dist.evaluation.protocol import Edit, Place, Protocol, ProtocolError, protocol_for
from spfem_dist.evaluation.retrieval import Estimate, bootstrap
from spfem_dist.generators.generator import Face, Generator, Motion
from spfem_dist.records import Clip, RawRecording
from spfem_dist.runs import read_run
from spfem_dist.storage import open_filesystem
from spfem_dist.streaming.loader import Source

#: Training groups on which the probe of what is spoken learns.
PROBE_GROUPS = 48
By = Literal["reference", "emotion", "both"]


def evaluate_generator(
    location: str,
    arm: str = "both",
    judges: str | Judges = "",
    generator: Generator | None = None,
    by: By = "reference",
    sentences: int | None = None,
    protocol: str = "",
    also: str = "",
    console: Console | None = None,
) -> dict[str, Estimate]:
    """Score the generator that the run folder `location` exported; write summary.json, edits.json and report.html there.

    arm: what its figures are called, `stage2/<arm>/...`. judges: folder of a run of recipes/metric_nets.py, or its judges.
    generator: scored in place of the exported one. by: drive it by the protocol's references, by the emotion's name, or
    both. sentences: sources for each speaker, in place of the protocol's number. protocol: name or file; empty means the
    corpus's own. also: folder of another run whose summary.json gets the figures too. Returns the figures by their path in summary.json.
    Raises FileNotFoundError and ValueError that say what is missing: run, generator, judges, recordings.
    """
    console, began = console or Console(), time.perf_counter()
    if not judges:
        raise ValueError(
            "no judges: train them on the same shards (python recipes/metric_nets.py), then give --judges runs/judges"
        )
    run = read_run(location)
    panel = load_judges(judges) if isinstance(judges, str) else judges
    if generator is None:
        from spfem_dist.generators.load import load_generator

        generator = load_generator(location)
    with console.status(f"editing and scoring {location}"):
        found = evaluate(run, generator, panel, arm, by, sentences, protocol)
    console.print(shown_figures(found.figures, arm))
    console.print(in_short(found.figures, arm), soft_wrap=True)
    console.print(f"judged by {found.facts['judges']}", soft_wrap=True)
    with console.status("drawing the report"):
        write_down(location, run, found, arm, also)
    console.print(
        f"scored in {time.perf_counter() - began:.0f} s; {location}/summary.json, edits.json and report.html hold all of it",
        soft_wrap=True,
    )
    return found.figures


def evaluate(
    run: Run,
    generator: Generator,
    judges: Judges,
    arm: str,
    by: By = "reference",
    sentences: int | None = None,
    protocol: str = "",
) -> Evaluation:
    """Edit and score every clip of the protocol. Reads the shards of `run`, writes nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two sources are worked on at a time; more threads would only wait for each other
    try:
        with threadpool_limits(limits=1):
            return _evaluate(run, generator, judges, arm, by, sentences, protocol)
    finally:
        torch.set_num_threads(threads)


def _evaluate(
    run: Run, generator: Generator, judges: Judges, arm: str, by: By, sentences: int | None, protocol: str
) -> Evaluation:
    if arm in (*ROWS, "real", "") or "/" in arm:
        raise ValueError(f"an arm cannot be called {arm!r}: that name has a meaning; use for instance 'both'")
    data = run.data.model_copy(update={"size": generator.size})
    source = Source(data, landmarks=True)
    index = source.reader.index
    if (topology := topology_of(index)) != generator.topology or topology != judges.oracle.topology:
        raise ValueError(
            f"the shards hold {topology} landmarks, the generator was trained on {generator.topology} and the judges on "
            f"{judges.oracle.topology}: use one kind for all"
        )
    split = Split.load(data.split)
    plan = Protocol.load(protocol) if protocol else protocol_for(index.corpus)
    edits = plan.edits((e for shard in index.shards for e in shard.groups), split, sentences)
    if by == "emotion":  # nobody is referred to, so there is one edit of each clip
        edits = [replace(edit, way="label") for edit in edits if edit.way == "intra"]  # type: ignore[arg-type]
    recordings = read_clips(data, lambda e: split.accepts("test", e.speaker, e.sentence), source)
    whole = {str(place) for edit in edits for place in (edit.source, edit.reference)}
    corpus = synthetic_corpus(source, generator.size)
    probe = None if corpus is None else viseme_probe(source, split, topology)
    panel = JudgeReferences(judges, recordings, whole, corpus, probe)
    sources = list(dict.fromkeys(str(edit.source) for edit in edits))

    def of_source(name: str) -> tuple[list[ClipScore], list[Shown]]:
        mine = [edit for edit in edits if str(edit.source) == name]
        return _score_source(panel, generator, mine, arm, by, shows=name == sources[0])

    # Networks and drawing run outside the interpreter's lock.
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(of_source, sources))
    found = [score for part, _ in parts for score in part]
    real = {(s.source, s.emotion): panel.real_identity(s.source, s.emotion) for s in found}
    figures = generator_figures(found, real) | panel.real_csim(edits)
    figures |= judges.figures()
    facts = {
        "run": run.name,
        "judges": str(judges),
        "driven by": by,
        "protocol": plan.name,
        "sentences": sentences or plan.sentences,
        "shards": data.shards,
        "data digest": index.digest[:12],
        "split": data.split,
        "speakers": " ".join(data.speakers) or "all of the training part",
        "clips": len({s.clip for s in found}),
    }
    return Evaluation(figures, found, [shown for _, part in parts for shown in part], facts)


def synthetic_corpus(source: Source, size: int) -> SyntheticCorpus | None:
    """The corpus that the shards were rendered from, drawn at `size` pixels; None for recorded ones.

    Its seed, extent and style are in the shards' own settings files, written by `spfem prepare`.
    """
    index = source.reader.index
    if index.corpus != "synthetic":
        return None
    name = index.shards[0].name.removesuffix(".tar") + ".json"
    fs, root = open_filesystem(source.data.shards)
    if not fs.exists(f"{root}/{name}"):
        raise ProtocolError(
            f"{source.data.shards} has no {name}, which says how the synthetic corpus was drawn: copy it there, or prepare again"
        )
    with fs.open(f"{root}/{name}", "r") as f:
        made = json.load(f)["settings"]
    extent = made["identities"], made["synthetic_sentences"]
    return SyntheticCorpus(*extent, made["fps"], size, made["seed"], style=made.get("style", 0.0))


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


class JudgeReferences:
    """The judges beside the test recordings: what they say of real faces, asked once of each.

    whole: names of the recordings whose frames are needed again; of the others only the judges' word is kept. corpus, probe: what
    renders true targets and reads speech off their lips; None for recorded corpora.
    """

    def __init__(
        self,
        judges: Judges,
        clips: Iterable[TestClip],
        whole: set[str],
        corpus: SyntheticCorpus | None,
        probe: VisemeProbe | None = None,
    ):
        self.judges, self.corpus, self.probe = judges, corpus, probe
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

    def clean(self, source: TestClip) -> RawRecording | None:
        """The source as it was rendered, before any coding; None on recorded corpora."""
        return None if self.corpus is None else self.corpus.render(_synthetic(self.corpus, source))

    def truth(self, source: TestClip, emotion: Emotion, clean: RawRecording | None) -> Truth:
        """The true target of an edit where it can be rendered; on recorded corpora the source's own mouth."""
        if self.corpus is None or clean is None:
            return Truth(source.landmarks)
        target = self.corpus.target(_synthetic(self.corpus, source), emotion)
        if len(target.frames) != len(source.frames):
            raise ProtocolError(
                f"{source.name} has {len(source.frames)} frames in the shards and {len(target.frames)} when rendered: "
                "the shards were made by another version; prepare them again"
            )
        assert target.landmarks is not None
        return Truth(target.landmarks, target.frames, clean.frames, target.truth["visemes"], self.probe)


def _synthetic(corpus: SyntheticCorpus, clip: TestClip) -> Clip:
    return corpus.clip(int(clip.speaker[1:]), int(clip.sentence), clip.emotion, clip.take)


def _score_source(
    panel: JudgeReferences, generator: Generator, edits: Sequence[Edit], arm: str, by: By, shows: bool
) -> tuple[list[ClipScore], list[Shown]]:
    """All edits of one source, with the rows of ROWS beside each."""
    torch.set_num_threads(1)
    judges, source = panel.judges, panel.clip(edits[0].source)
    clean = panel.clean(source)
    copy = look(judges, source.frames, source.features, source.valid)
    found: list[ClipScore] = []
    shown: list[Shown] = []
    for emotion in dict.fromkeys(edit.emotion for edit in edits):
        mine = [edit for edit in edits if edit.emotion is emotion]
        truth, real = panel.truth(source, emotion, clean), panel.real(source, emotion)
        ideal, ideal_values = _ideal(panel, source, mine, truth, copy)
        rows = {
            COPY: (scores(judges, copy, emotion, truth, real, copy, aimed=source.landmarks), copy.identity),
            # A real recording is one of those that FAD compares with, so that its own would mean nothing.
            TARGET: (ideal_values, ideal.identity if truth.frames is not None else ideal.identity[:0]),
        }
        best = None
        if truth.frames is not None:
            best = rendered(generator, source, Motion(source.landmarks, truth.landmarks))
            seen = look(judges, best, source.features, source.valid)
            rows[UPPER] = scores(judges, seen, emotion, truth, real, copy, aimed=truth.landmarks), seen.identity
        for edit in mine:
            reference = panel.clip(edit.reference)
            motion = driven(generator, source, edit, reference, by)
            drawn = rendered(generator, source, motion)
            seen = look(judges, drawn, source.features, source.valid)
            rows[arm] = scores(judges, seen, emotion, truth, real, copy, aimed=motion.target), seen.identity
            found += [
                ClipScore(row, edit.way, source.name, emotion.value, reference.name, values, features)
                for row, (values, features) in rows.items()
            ]
            if shows and edit.way in ("cross", "label"):
                caption = f"{source.name} as {emotion.value}, like {reference.name}"
                shown.append(Shown(caption, source.frames, drawn, truth.frames, reference.frames, best))
    return found, shown


def _ideal(
    panel: JudgeReferences, source: TestClip, edits: Sequence[Edit], truth: Truth, copy: Seen
) -> tuple[Seen, dict[str, float]]:
    """The row `target` and its scores: the rendered truth, or the speaker's real recording that is the reference."""
    judges, emotion = panel.judges, edits[0].emotion
    if truth.frames is not None:
        seen = look(judges, truth.frames, source.features, source.valid)
        real = panel.real(source, emotion)
        return seen, scores(judges, seen, emotion, truth, real, copy, aimed=truth.landmarks)
    place = next((edit.reference for edit in edits if edit.reference.speaker == source.speaker), edits[0].reference)
    recorded = panel.clip(place)
    seen = look(judges, recorded.frames, recorded.features, recorded.valid)
    held_against = panel.real(source, emotion, without=recorded.name)
    return seen, scores(judges, seen, emotion, truth, held_against, copy, aligned=False)


def driven(generator: Generator, source: TestClip, edit: Edit, reference: TestClip, by: By) -> Motion:
    """What the generator makes of the face's motion in one edit."""
    return generator.drive(
        _face(source, generator),
        edit.emotion if by != "reference" else None,
        _face(reference, generator) if by != "emotion" else None,
    )


def rendered(generator: Generator, source: TestClip, motion: Motion) -> np.ndarray:
    """The generator's frames of a motion, uint8 [T, S, S, 3], laid over the source where it drew nothing."""
    return np.concatenate(list(_rendered(generator, source.frames, motion)))


def _rendered(generator: Generator, frames: np.ndarray, motion: Motion, at_once: int = 64) -> Iterator[np.ndarray]:
    for first in range(0, len(frames), at_once):
        part = frames[first : first + at_once]
        crops, redrawn = generator.render(part, motion, first)
        share = redrawn[..., None]
        yield np.rint(crops * share + part * (1 - share)).clip(0, 255).astype(np.uint8)


def _face(clip: TestClip, generator: Generator) -> Face:
    return Face(clip.landmarks, clip.valid, generator.size, generator.topology)
