"""What every rendered corpus does alike: who says what in which emotion, when, and how it sounds."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from spfem_dist.corpora._speech.keys import Factor, stream
from spfem_dist.corpora._speech.prosody import PROSODY
from spfem_dist.corpora._speech.script import Canon, Timing, canons, timing
from spfem_dist.corpora._speech.voice import RATE, Speaker, spoken
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.records import Clip, RawRecording

Part = Literal["train", "validation", "test"]


@dataclass
class SpokenCorpus(ABC):
    """Rendered talking heads with known truth; equal arguments give equal recordings in any process.

    identities, sentences: how many; the 7 emotions of `SEVEN` are always there. fps: frames per second. size: side of
    the frames in pixels, 32 to 512. seed: of everything. crossed: whether `clips` yields every speaker with every
    sentence; None means yes, except for the full corpus, which has a split. style: how much every speaker shows emotions
    in a way of its own, 0 to 2; 0 gives all of them the same way.
    Raises ValueError for counts, sizes and rates out of range.
    """

    identities: int
    sentences: int
    fps: float = 25.0
    size: int = 64
    seed: int = 0
    crossed: bool | None = None
    style: float = 0.0

    #: The corpus's name, its split's, and its extent: speakers and sentences of the full corpus.
    name: ClassVar[str]
    extent: ClassVar[tuple[int, int]]

    def __post_init__(self) -> None:
        if self.identities < 1 or self.sentences < 1:
            raise ValueError(
                f"a corpus needs at least one identity and one sentence, got {self.identities} and {self.sentences}"
            )
        if not 32 <= self.size <= 512:
            raise ValueError(f"size is {self.size}; faces can be drawn at 32 to 512 pixels")
        if not 5 <= self.fps <= 100:
            raise ValueError(f"fps is {self.fps}; use 5 to 100 frames per second")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more")
        if not 0 <= self.style <= 2:
            raise ValueError(f"style is {self.style}; use 0 (nobody's own) to 2")
        if self.crossed is None:
            self.crossed = (self.identities, self.sentences) != self.extent

    def clips(self, split: Part | None = None) -> list[Clip]:
        """The recordings, ordered by speaker, sentence and emotion.

        split: "train", "validation" or "test" of the full corpus, None for all of it. Speakers and sentences of two
        parts never meet: a train speaker says train sentences only. Raises ValueError for a part of a crossed corpus.
        """
        if self.crossed:
            if split is not None:
                raise ValueError(
                    f"this corpus is crossed ({self.identities} x {self.sentences}) and has no part {split!r}; leave split out"
                )
            return self._cross(range(self.identities), range(self.sentences))
        parts = parts_of(self.name)
        chosen: list[Clip] = []
        for part in (split,) if split else ("train", "validation", "test"):
            if part not in parts:
                raise ValueError(f"unknown part {part!r}; the {self.name} split has train, validation and test")
            chosen += self._cross(
                (int(s[1:]) for s in parts[part]["speakers"]), [int(s) for s in parts[part]["sentences"]]
            )
        return sorted(chosen, key=lambda clip: (clip.speaker, clip.sentence, SEVEN.index(clip.emotion)))

    def _cross(self, speakers: Iterable[int], spoken: Iterable[int]) -> list[Clip]:
        said = list(spoken)
        return [self.clip(a, b, e) for a in speakers for b in said for e in SEVEN]

    def clip(self, speaker: int, sentence: int, emotion: Emotion, take: int = 1) -> Clip:
        """The recording of one speaker, sentence, emotion and take (any take from 1 can be rendered)."""
        place = Path(f"{self.name}:/S{speaker:02d}/{sentence:02d}/{emotion.value}/{take}")
        return Clip(self.name, f"S{speaker:02d}", f"{sentence:02d}", emotion, 1, take, place)

    def render(self, clip: Clip) -> RawRecording:
        """The recording `clip`: frames, speech, landmarks and truth."""
        return self._render(clip, clip.emotion)

    def target(self, clip: Clip, emotion: Emotion) -> RawRecording:
        """What an ideal editor makes of `clip` for `emotion`: same person, words, timing, pose, light, background and
        noise in every frame, other expression. The speech stays that of `clip`. `target(c, c.emotion)` is `render(c)`.
        """
        return self._render(clip, emotion)

    @abstractmethod
    def truth(self, clip: Clip) -> dict[str, np.ndarray]:
        """The truth of `render(clip)`, without drawing it."""

    @abstractmethod
    def voice(self, clip: Clip) -> Speaker:
        """Whose voice `clip` has."""

    def speech(self, clip: Clip) -> np.ndarray:
        """The speech of `render(clip)`, without drawing it: float32 [N], 16 kHz."""
        clock, said = self._timing(clip), self._canons[self._key(clip)[1]]
        samples = round(len(self._times(clock)) / self.fps * RATE)
        rng = self._stream(Factor.VOICE, clip)
        return spoken(rng, self.voice(clip), PROSODY[clip.emotion], said, clock, samples)

    def warp(self, a: Clip, b: Clip) -> np.ndarray:
        """The true time warp: int32 [2, P]; frame warp[0, p] of `a` and warp[1, p] of `b` have the nearest phases.

        Monotone, by steps of at most one frame, from the first frames to the last ones, covering every frame of both.
        Raises ValueError where the sentences differ.
        """
        if a.sentence != b.sentence:
            raise ValueError(f"no time warp between sentences {a.sentence} and {b.sentence}: they say different things")
        clocks = [self._timing(c) for c in (a, b)]
        phases = [clock.phase(self._times(clock)) for clock in clocks]
        every = np.unique(np.concatenate(phases))
        path = [
            np.clip(np.rint(clock.time(every) * self.fps).astype(np.int32), 0, len(own) - 1)
            for clock, own in zip(clocks, phases, strict=True)
        ]
        return np.unique(np.stack(path), axis=1)

    @cached_property
    def _canons(self) -> list[Canon]:
        return canons(self.seed, self.sentences)

    def _key(self, clip: Clip) -> tuple[int, int]:
        speaker, sentence = int(clip.speaker[1:]), int(clip.sentence)
        if (
            clip.corpus != self.name
            or speaker >= self.identities
            or sentence >= self.sentences
            or clip.emotion not in SEVEN
        ):
            raise ValueError(
                f"{clip.corpus} {clip.speaker}_{clip.sentence} {clip.emotion} is not in this corpus of "
                f"{self.identities} speakers, {self.sentences} sentences and 7 emotions"
            )
        return speaker, sentence

    def _timing(self, clip: Clip) -> Timing:
        key = self._key(clip)
        return timing(self.seed, key, clip.emotion, clip.take, self._canons[key[1]])

    def _times(self, clock: Timing) -> np.ndarray:
        return np.arange(max(2, int(clock.seconds * self.fps))) / self.fps

    def _stream(self, factor: Factor, clip: Clip) -> np.random.Generator:
        return stream(self.seed, factor, *self._key(clip), SEVEN.index(clip.emotion), clip.take)

    @abstractmethod
    def _render(self, clip: Clip, emotion: Emotion) -> RawRecording:
        """`clip` as it is in `emotion`: see `target`."""


def blinks(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Lid closure 0..1 at `times`: short blinks every two to five seconds."""
    closed = np.zeros(len(times))
    at = rng.uniform(0.2, 3.0)
    while at < times[-1]:
        closed = np.maximum(closed, np.exp(-0.5 * ((times - at) / 0.045) ** 2))
        at += rng.uniform(2.0, 5.0)
    return closed


def parts_of(name: str) -> dict[str, dict[str, list[str]]]:
    """The split of a full corpus: part -> {"speakers": [...], "sentences": [...]}."""
    found = json.loads((resources.files("spfem_dist.corpora") / "splits" / f"{name}.json").read_text())
    return {part: found[part] for part in ("train", "validation", "test")}
