"""What one call of `spfem prepare` will do: its settings, the clips it found, and which shard each group goes to."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator
from tyro.conf import Positional

from spfem_dist.config import Section
from spfem_dist.corpora import rendered
from spfem_dist.corpora._speech.corpus import SpokenCorpus
from spfem_dist.corpora.files import unreadable
from spfem_dist.emotions import Emotion
from spfem_dist.files import file_sha256, is_address
from spfem_dist.records import Clip, Reject

#: Raised by one whenever the same settings and clips give other bytes than before: old shards are then not mixed with new.
CONTENT_VERSION = 3

RECORDED = ("mead", "ravdess", "cremad", "folder")
if TYPE_CHECKING:
    CorpusName = str
else:
    CorpusName = Literal[(*RECORDED, *rendered.kinds())]

Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]


class PrepareSettings(Section):
    """From raw recordings to shards. A second call with the same settings goes on where the first stopped."""

    corpus: Positional[CorpusName] = Field(
        rendered.DEFAULT,
        description="Which corpus, that is, which file names; folder: any recordings (see root). The others are rendered here.",
    )
    root: Positional[Path | None] = Field(
        None,
        description="Folder of the recordings; a rendered corpus needs none. Of `folder`: speakers' folders, or a table .csv, .tsv or "
        ".jsonl with path, speaker, sentence, emotion, and perhaps start, end (seconds), audio, level, take.",
    )
    out: Path = Field(
        Path(f"shards/{rendered.DEFAULT}"),
        description="Folder for the shards and index.json, relative to SPFEM_HOME or the current folder; on a cluster one that every node shares.",
    )
    fps: Annotated[float, Field(ge=5, le=100)] = Field(
        25.0, description="Frames per second of the stored videos; recordings of another rate are resampled."
    )
    size: Annotated[int, Field(ge=32, le=1024, multiple_of=2)] = Field(
        64,
        description="Side of the stored face crops, pixels (even); 64 suits the small networks, the paper's want 256.",
    )
    codec: Literal["h264", "vp9"] = Field("h264", description="h264 decodes on every GPU; vp9 also by DALI on the CPU.")
    crf: Annotated[int, Field(ge=0, le=51)] = Field(
        18, description="Constant video quality; lower is better and larger."
    )
    groups_per_shard: Positive = Field(8, description="Utterance groups in one tar; a tar is also one parallel task.")
    faces: Literal["auto", "mesh", "cascade", "aligned", "aligned-mesh"] = Field(
        "auto",
        description="auto is mesh: landmarks too, by weights that are fetched once (4 MiB); cascade needs no download and gives no "
        "landmarks, which stage 2 and edits need; aligned says the videos are face crops already (aligned-mesh: with landmarks).",
    )
    speech: Literal["logmel", "wav2vec2"] = Field(
        "logmel", description="Speech features: 160 log-mel numbers a frame, or 1024 of wav2vec 2.0 XLSR-53."
    )
    alignment: Literal["clean", "released"] = Field(
        "clean", description="Time-warp recipe; released is what the published pairs were made with."
    )
    warps: Path | None = Field(
        None,
        description="The authors' aligned_path36.json (MEAD at 30 fps): its paths replace computed ones where it has them.",
    )
    all_pairs_up_to: Positive = Field(
        12, description="Groups with more recordings get time-warps from one neutral recording to all others only."
    )
    levels: Literal["strongest", "all"] = Field(
        "strongest", description="MEAD: level 3 (neutral: 1) as in the papers, or every level."
    )
    sentences: Literal["shared", "number"] = Field(
        "shared", description="MEAD: only the shared sentences join emotions, or equal clip numbers do."
    )
    view: Literal["front", "left_30", "left_60", "right_30", "right_60", "top", "down"] = Field(
        "front", description="MEAD: camera."
    )
    pattern: str = Field(
        "",
        description="folder: how a path under root is read, such as '{speaker}/{emotion}/{sentence}'; empty: that, or "
        "'{speaker}/{sentence}_{emotion}'.",
    )
    songs: bool = Field(False, description="RAVDESS: sung clips too.")
    identities: Positive | None = Field(
        None,
        description="Rendered corpora: speakers. Empty, and so the sentences, is the full corpus, which has a split.",
    )
    synthetic_sentences: Positive | None = Field(None, description="Rendered corpora: sentences.")
    seed: Natural = Field(0, description="Rendered corpora: seed.")
    style: Annotated[float, Field(ge=0, le=2)] = Field(
        0.0,
        description="Rendered corpora: how much each speaker shows emotions in a way of its own; 0 not at all, 1 as people differ.",
    )
    limit: Natural = Field(0, description="Only the first so many groups; 0 means all.")
    workers: Positive | None = Field(
        None,
        description="Parallel Ray tasks on this machine; empty means one for each core. An existing cluster (RAY_ADDRESS) uses all it has.",
    )
    local: bool = Field(False, description="Work in this process, without Ray (a breakpoint works).")

    @model_validator(mode="after")
    def _consistent(self) -> PrepareSettings:
        if rendered.is_rendered(self.corpus):
            full = rendered.find(self.corpus).Corpus.extent
            # Not by attribute, which validates again: these are what the call means, and what its shards' settings say.
            self.__dict__["identities"] = self.identities or full[0]
            self.__dict__["synthetic_sentences"] = self.synthetic_sentences or full[1]
        elif self.root is None:
            raise ValueError(
                f"prepare {self.corpus} needs the folder of its recordings: spfem prepare {self.corpus} ROOT --out {self.out}"
            )
        if self.pattern and self.corpus != "folder":
            raise ValueError(
                f"pattern reads the file names of `spfem prepare folder`; {self.corpus} has names of its own"
            )
        if self.style and not rendered.is_rendered(self.corpus):
            raise ValueError(f"style is drawn into rendered corpora; leave it out for {self.corpus}")
        if is_address(self.out):
            raise ValueError(
                f"out is {str(self.out)!r}: shards are written to a folder; copy it to the bucket afterwards"
            )
        if self.root is not None and is_address(self.root):
            raise ValueError(f"root is {str(self.root)!r}: recordings are read from a folder; copy them to one first")
        if self.warps is not None and (self.corpus != "mead" or self.fps != 30):
            raise ValueError(
                f"warps count MEAD's frames at 30 fps, but corpus is {self.corpus} at {self.fps:g} fps: use mead and --fps 30"
            )
        return self


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its name and the clips of each of its groups. `clips_digest` says whether the input changed."""

    name: str
    groups: tuple[tuple[str, tuple[Clip, ...]], ...]
    clips_digest: str

    @cached_property
    def clips(self) -> int:
        return sum(len(clips) for _, clips in self.groups)


def find_clips(settings: PrepareSettings) -> tuple[list[Clip], list[Reject]]:
    """The corpus's clips and what is not used; files of equal content count once (the rest is rejected as `duplicate`)."""
    if rendered.is_rendered(settings.corpus):
        return rendered_corpus(settings).clips(), []
    assert settings.root is not None
    if settings.corpus == "mead":
        from spfem_dist.corpora import mead

        clips, rejects = mead.find_clips(settings.root, settings.view, settings.levels, settings.sentences)
    elif settings.corpus == "ravdess":
        from spfem_dist.corpora import ravdess

        clips, rejects = ravdess.find_clips(settings.root, settings.songs)
    elif settings.corpus == "folder":
        from spfem_dist.corpora import folder

        clips, rejects = folder.find_clips(settings.root, settings.pattern)
    else:
        from spfem_dist.corpora import cremad

        clips, rejects = cremad.find_clips(settings.root)
    clips, closed = reject_unreadable_files(clips)
    clips, doubles = reject_equal_files(clips)
    return clips, rejects + closed + doubles


def rendered_corpus(settings: PrepareSettings) -> SpokenCorpus:
    """The rendered corpus that the settings describe."""
    return rendered.corpus(
        settings.corpus,
        settings.identities,
        settings.synthetic_sentences,
        settings.fps,
        settings.size,
        settings.seed,
        settings.style,
    )


def reject_unreadable_files(clips: list[Clip]) -> tuple[list[Clip], list[Reject]]:
    """The clips whose files can be opened, and a reject for every other: found now, so that a mended one is taken later."""
    readable, rejects = [], []
    for clip in clips:
        problem = next((p for file in (clip.video, clip.audio) if file is not None and (p := unreadable(file))), None)
        if problem is None:
            readable.append(clip)
        else:
            rejects.append(problem)
    return readable, rejects


def reject_equal_files(clips: list[Clip]) -> tuple[list[Clip], list[Reject]]:
    """The clips with the first file of each content kept, and a reject for every copy of it under another name."""
    by_size: dict[int, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.whole:  # of one film many parts may be used
            by_size[clip.video.stat().st_size].append(clip)
    first: dict[str, Clip] = {}
    copies: dict[Path, Clip] = {}
    for same_size in by_size.values():
        # Hashing terabytes is only worth it where sizes agree. Empty files are rejected for what they are later.
        if len(same_size) == 1 or same_size[0].video.stat().st_size == 0:
            continue
        for clip in same_size:
            original = first.setdefault(file_sha256(clip.video), clip)
            if original is not clip:
                copies[clip.video] = original
    rejects = [
        Reject(
            str(copy), "duplicate", f"the same bytes as {original.video}, which is used; one of the two names is wrong"
        )
        for copy, original in copies.items()
    ]
    return [clip for clip in clips if clip.video not in copies], rejects


def plan_shards(clips: list[Clip], settings: PrepareSettings) -> list[ShardPlan]:
    """Groups in key order, `groups_per_shard` to a shard; in a group neutral comes first, then emotion, level and take."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[clip.group].append(clip)
    order = {emotion: number for number, emotion in enumerate(Emotion)}
    keys = sorted(groups)[: settings.limit or None]
    plans = []
    for number, start in enumerate(range(0, len(keys), settings.groups_per_shard)):
        chosen = tuple(
            (key, tuple(sorted(groups[key], key=lambda c: (order[c.emotion], c.level, c.take))))
            for key in keys[start : start + settings.groups_per_shard]
        )
        plans.append(ShardPlan(f"shard-{number:06d}.tar", chosen, _clips_digest(chosen, settings.root)))
    return plans


def fingerprint(settings: PrepareSettings) -> dict[str, Any]:
    """The settings that decide a shard's bytes, with the content version: what a finished shard must agree with."""
    ours = {
        **{kind: {"identities", "synthetic_sentences", "seed", "style"} for kind in rendered.kinds()},
        "mead": {"levels", "sentences", "view"},
        "ravdess": {"songs"},
    }
    others = set().union(*ours.values()) - ours.get(settings.corpus, set())
    if rendered.is_rendered(settings.corpus):
        others |= {"faces"}
    if not settings.style:  # shards of before there was any are still right
        others |= {"style"}
    left_out = {"root", "out", "limit", "workers", "local", "warps", "pattern", *others}
    kept: dict[str, Any] = settings.model_dump(mode="json", exclude=left_out)
    if settings.warps is not None:
        kept["warps"] = file_sha256(settings.warps)
    return {**kept, "version": CONTENT_VERSION}


def _clips_digest(groups: tuple[tuple[str, tuple[Clip, ...]], ...], root: Path | None) -> str:
    rows = [
        [
            clip.group,
            clip.recording,
            *([] if clip.whole else [clip.start, clip.end]),
            *(row for file in (clip.video, clip.audio) for row in _file_state(file, root)),
        ]
        for _, clips in groups
        for clip in clips
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _file_state(file: Path | None, root: Path | None) -> list[Any]:
    if file is None or root is None:
        return [None if file is None else str(file)]
    state = file.stat()
    above = root if root.is_dir() else root.parent
    name = file.relative_to(above) if file.is_relative_to(above) else file
    return [str(name), state.st_size, state.st_mtime_ns]
