"""What is edited to judge a generator: which sources, which emotions, and whose recordings are the reference.

    {"corpus": .., "description": .., "source": .., "split": name, "emotions": [..], "sentences": n,
     "ring": {speaker: speaker of the reference}}

Data files in `protocols/`, never code. A source is a neutral recording of a test speaker and sentence; every emotion is
asked of it twice: with a reference of the same speaker (intra) and with one of the next speaker in the ring (cross).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from spfem_dist.corpora.splits import Split
from spfem_dist.emotions import SEVEN, SIX, Emotion
from spfem_dist.files import read_small
from spfem_dist.shard_format import GroupEntry

#: Whether the reference shows the source's speaker or somebody else.
ReferenceIdentity = Literal["intra", "cross"]


class ProtocolError(ValueError):
    """A protocol that cannot be carried out on the data that are there; the message names what is missing."""


@dataclass(frozen=True)
class Place:
    """One recording of the shards: the group's key and the recording's name in it."""

    group: str
    recording: str
    speaker: str
    sentence: str
    emotion: Emotion

    def __str__(self) -> str:
        return f"{self.group}/{self.recording}"


@dataclass(frozen=True)
class Edit:
    """Show `source` with `emotion`, in the manner of `reference`."""

    source: Place
    emotion: Emotion
    reference: Place
    reference_identity: ReferenceIdentity


@dataclass(frozen=True)
class Protocol:
    """A named protocol. sentences: sources for each speaker. ring: {} means the test speakers in alphabetical order."""

    name: str
    corpus: str
    split: str
    emotions: tuple[Emotion, ...]
    sentences: int
    ring: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Protocol:
        """The protocol of that name, or the JSON file at that path. Raises ProtocolError for an unknown or malformed one."""
        name = str(name_or_path)
        folder = resources.files("spfem_dist.evaluation").joinpath("protocols")
        if name.endswith(".json"):
            text, where = read_small(Path(name).expanduser()).decode(), name
        else:
            known = sorted(p.name.removesuffix(".json") for p in folder.iterdir() if p.name.endswith(".json"))
            if name not in known:
                raise ProtocolError(f"no protocol {name!r}; known: {', '.join(known)}, or the path of a .json file")
            text, where = folder.joinpath(f"{name}.json").read_text(), f"{name}.json"
        data = json.loads(text)
        wanted = {"corpus", "description", "source", "split", "emotions", "sentences", "ring"}
        if not isinstance(data, dict) or set(data) != wanted:
            raise ProtocolError(
                f"{where}: expected the keys {', '.join(sorted(wanted))}, found {', '.join(sorted(data)) if isinstance(data, dict) else type(data).__name__}"
            )
        emotions = tuple(Emotion.parse(e) for e in data["emotions"])
        if strange := [e.value for e in emotions if e not in SIX]:
            raise ProtocolError(f"{where}: {', '.join(strange)} cannot be a target: use {', '.join(SIX)}")
        return cls(Path(name).stem, data["corpus"], data["split"], emotions, data["sentences"], data["ring"])

    def edits(self, groups: Iterable[GroupEntry], split: Split, sentences: int | None = None) -> list[Edit]:
        """Every edit on the test part of `split`, in order of speaker, sentence, emotion and reference identity.

        groups: the entries of the shards' index. sentences: sources for each speaker, in place of the protocol's number.
        Raises ProtocolError that names the recording, speaker or emotion which is missing.
        """
        places = [p for entry in groups if split.accepts("test", entry.speaker, entry.sentence) for p in _places(entry)]
        if not places:
            raise ProtocolError(
                f"split {split.name!r} has no test recording in these shards: choose a split that holds speakers out"
            )
        speakers = sorted({p.speaker for p in places})
        ring = self.ring if set(speakers) <= set(self.ring) else _in_a_row(speakers)
        edits = []
        for speaker in speakers:
            mine = [p for p in places if p.speaker == speaker]
            sources = [p for p in mine if p.emotion is Emotion.NEUTRAL]
            if not sources:
                raise ProtocolError(
                    f"{speaker} has no neutral test recording: prepare them, or take the speaker off the test part"
                )
            theirs = [p for p in places if p.speaker == ring[speaker]]
            if not theirs:
                raise ProtocolError(
                    f"{ring[speaker]}, whose recordings are the reference for {speaker}, has no test recording in these shards"
                )
            # One recording of a sentence is enough: takes of it differ less than sentences.
            spoken = {p.sentence: p for p in reversed(sources)}
            for number, sentence in enumerate(sorted(spoken)[: sentences or self.sentences]):
                for emotion in self.emotions:
                    for whose, candidates in (("intra", mine), ("cross", theirs)):
                        reference = _reference(candidates, emotion, sentence, number, whose, speaker)
                        edits.append(Edit(spoken[sentence], emotion, reference, whose))  # type: ignore[arg-type]
        return edits


def protocol_for(corpus: str) -> Protocol:
    """The protocol that comes with the package for the corpus of an index. Raises ProtocolError where there is none."""
    return Protocol.load(corpus)


def _places(entry: GroupEntry) -> list[Place]:
    # The strongest level first: that is what a reference should show.
    ordered = sorted(
        entry.recordings, key=lambda r: (SEVEN.index(r.emotion) if r.emotion in SEVEN else 9, -r.level, r.take)
    )
    return [Place(entry.key, r.name, entry.speaker, entry.sentence, r.emotion) for r in ordered]


def _reference(
    places: Sequence[Place], emotion: Emotion, sentence: str, number: int, whose: str, speaker: str
) -> Place:
    """A recording of `emotion`, of another sentence where there is one; which sentence changes with the source's number."""
    shown = [p for p in places if p.emotion is emotion]
    if not shown:
        who = places[0].speaker
        raise ProtocolError(
            f"{who} has no test recording of {emotion.value}, the {whose} reference for {speaker}: prepare it, or take "
            f"{emotion.value} out of the protocol's emotions"
        )
    others = sorted({p.sentence for p in shown} - {sentence}) or [sentence]
    chosen = others[number % len(others)]
    return next(p for p in shown if p.sentence == chosen)


def _in_a_row(speakers: Sequence[str]) -> dict[str, str]:
    """Each speaker's reference is the one before, the first one's the last."""
    return {speaker: speakers[n - 1] for n, speaker in enumerate(speakers)}
