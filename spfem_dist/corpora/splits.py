"""Which speakers and sentences are for training, validation and test: data files, never code.

    {"corpus": ..., "description": ..., "source": ...,
     "train": {"speakers": [..] or null, "sentences": [..] or null}, "validation": {..}, "test": {..},
     "ring": {speaker: reference speaker}, "sets": {name: [training speakers]}}

null means every one. A group belongs to a part when both its speaker and its sentence do. `source`, `ring` and `sets` are
optional; `ring` says whose recordings are the reference when a speaker is edited across identities, `sets` gives names to some of the
training speakers, so that the stages of a method can learn from different ones (`data.speakers`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spfem_dist.config import Data
    from spfem_dist.shard_format import GroupEntry

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Part:
    """Speakers and sentences of one part; None means every one."""

    speakers: frozenset[str] | None = None
    sentences: frozenset[str] | None = None

    def accepts(self, speaker: str, sentence: str) -> bool:
        """Whether the group of this speaker and sentence belongs to the part."""
        return (self.speakers is None or speaker in self.speakers) and (
            self.sentences is None or sentence in self.sentences
        )

    def __call__(self, entry: GroupEntry) -> bool:
        """Whether the group of this entry belongs to the part."""
        return self.accepts(entry.speaker, entry.sentence)

    def overlaps(self, other: Part) -> bool:
        """Whether some group could belong to both parts."""
        return _meet(self.speakers, other.speakers) and _meet(self.sentences, other.sentences)


@dataclass(frozen=True)
class Split:
    """A named division of a corpus. ring: speaker -> the speaker whose recordings are its references. sets: training speakers by name."""

    name: str
    corpus: str
    description: str
    source: str
    parts: dict[str, Part]
    ring: dict[str, str] = field(default_factory=dict)
    sets: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Data) -> Split:
        """The split that a run reads, its training part narrowed to `data.speakers` where these are given.

        Raises ValueError as `load` does, and for speakers and sets that the training part does not have.
        """
        split = cls.load(data.split)
        return split.narrowed(data.speakers) if data.speakers else split

    @classmethod
    def load(cls, name_or_path: str | Path) -> Split:
        """The split of that name, the JSON file at that path, or `none`: everything is for training.

        Raises ValueError for an unknown name (listing the known ones), a malformed file, and training groups that
        validation or test would score again.
        """
        name = str(name_or_path)
        if name == "none":
            nothing = Part(frozenset(), frozenset())
            parts = {"train": Part(), "validation": nothing, "test": nothing}
            return cls("none", "any", "Everything is for training.", "", parts)
        if name.endswith(".json"):
            path = Path(name).expanduser()
            if not path.is_file():
                raise ValueError(f"split file {path} does not exist; known splits: {', '.join(known_splits())}, none")
            return _parse(path.stem, path.read_text(), str(path))
        if name not in known_splits():
            raise ValueError(
                f"unknown split {name!r}; known splits: {', '.join(known_splits())}, none, or the path of a .json file"
            )
        text = (_folder() / f"{name}.json").read_text()
        return _parse(name, text, f"{name}.json")

    def narrowed(self, names: Iterable[str]) -> Split:
        """The same split with fewer training speakers: those named, by their own names or as one of `sets`."""
        train = self.parts["train"]
        chosen: set[str] = set()
        for name in names:
            if name in self.sets:
                chosen |= self.sets[name]
            elif train.speakers is None or name in train.speakers:
                chosen.add(name)
            else:
                sets = f"the sets {', '.join(self.sets)}" if self.sets else "no sets"
                raise ValueError(
                    f"data.speakers names {name!r}, which split {self.name} does not have for training: it has {sets} and the speakers "
                    f"{', '.join(sorted(train.speakers))}"
                )
        return replace(self, parts=self.parts | {"train": replace(train, speakers=frozenset(chosen))})

    def part(self, name: str) -> Part:
        """The part called `train`, `validation` or `test`."""
        if name not in PARTS:
            raise ValueError(f"unknown part {name!r} of split {self.name}; parts: {', '.join(PARTS)}")
        return self.parts[name]

    def accepts(self, part: str, speaker: str, sentence: str) -> bool:
        """Whether the group of this speaker and sentence belongs to `part`."""
        return self.part(part).accepts(speaker, sentence)


def own_split(speakers: list[str], sentences: list[str]) -> dict[str, Any]:
    """A split for data that come with none, as a split file's content: by speakers, or of a single speaker by sentences.

    About a fifth is for test and a tenth for validation, at least one of each where there are three or more; of two the
    second is for test. Who is where follows from the names alone. Of a single sentence of a single speaker all is for training.
    """
    by = "speakers" if len(speakers) > 1 else "sentences"
    names = speakers if len(speakers) > 1 else sentences
    mixed = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    test = max(1, round(0.2 * len(names))) if len(names) > 1 else 0
    validation = max(1, round(0.1 * len(names))) if len(names) > 2 else 0
    chosen = {"test": mixed[:test], "validation": mixed[test : test + validation], "train": mixed[test + validation :]}
    other = "sentences" if by == "speakers" else "speakers"
    parts = {part: {by: sorted(chosen[part]), other: None} for part in PARTS}
    return {"corpus": "folder", "description": f"Made by `spfem prepare folder`, by {by}; may be edited.", **parts}


def known_splits() -> list[str]:
    """Names of the splits that come with the package."""
    return sorted(path.name.removesuffix(".json") for path in _folder().iterdir() if path.name.endswith(".json"))


def _folder():
    return resources.files("spfem_dist.corpora").joinpath("splits")


def _parse(name: str, text: str, where: str) -> Split:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error})") from None
    wanted = {"corpus", "description", *PARTS}
    if not isinstance(data, dict) or wanted - data.keys() or data.keys() - wanted - {"source", "ring", "sets"}:
        raise ValueError(f"{where}: expected the keys {', '.join(sorted(wanted))}, and perhaps source, ring and sets")
    parts = {part: _parse_part(data[part], f"{where}: {part}") for part in PARTS}
    for held_out in ("validation", "test"):
        if parts["train"].overlaps(parts[held_out]):
            raise ValueError(
                f"{where}: train and {held_out} overlap in speakers {_common(parts['train'].speakers, parts[held_out].speakers)} "
                f"and sentences {_common(parts['train'].sentences, parts[held_out].sentences)}: "
                "a held-out group must differ from training in its speaker or its sentence; take them out of one of the two"
            )
    ring = data.get("ring", {})
    if not isinstance(ring, dict) or not all(isinstance(reference, str) for reference in ring.values()):
        raise ValueError(f"{where}: ring must map each speaker to one speaker, found {ring!r}")
    sets = _parse_sets(data.get("sets", {}), parts["train"], where)
    return Split(name, data["corpus"], data["description"], data.get("source", ""), parts, ring, sets)


def _parse_sets(data: object, train: Part, where: str) -> dict[str, frozenset[str]]:
    if not isinstance(data, dict) or not all(
        isinstance(names, list) and names and all(isinstance(name, str) for name in names) for names in data.values()
    ):
        raise ValueError(f"{where}: sets must map names to lists of training speakers, found {data!r}")
    for name, speakers in data.items():
        strange = sorted(set(speakers) - train.speakers) if train.speakers is not None else []
        if strange or name in (train.speakers or ()):
            fault = f"{', '.join(strange)}, who do not train" if strange else "the name of a speaker"
            raise ValueError(f"{where}: the set {name!r} has {fault}: give training speakers under a name of its own")
    return {name: frozenset(speakers) for name, speakers in data.items()}


def _parse_part(data: object, where: str) -> Part:
    if not isinstance(data, dict) or set(data) != {"speakers", "sentences"}:
        raise ValueError(f'{where}: expected {{"speakers": [..] or null, "sentences": [..] or null}}, found {data!r}')
    lists = []
    for key in ("speakers", "sentences"):
        value = data[key]
        if value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise ValueError(f"{where}: {key} must be a list of names or null, found {value!r}")
        if value is not None and len(set(value)) != len(value):
            raise ValueError(f"{where}: {key} names {sorted({v for v in value if value.count(v) > 1})} more than once")
        lists.append(None if value is None else frozenset(value))
    return Part(*lists)


def _meet(a: frozenset[str] | None, b: frozenset[str] | None) -> bool:
    if a is None or b is None:
        return (a is None or bool(a)) and (b is None or bool(b))
    return bool(a & b)


def _common(a: frozenset[str] | None, b: frozenset[str] | None) -> str:
    if a is None and b is None:
        return "(all)"
    both = sorted((a or b or frozenset()) if a is None or b is None else a & b)
    return ", ".join(both[:5]) + (", ..." if len(both) > 5 else "")
