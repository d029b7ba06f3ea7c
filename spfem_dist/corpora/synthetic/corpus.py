"""The synthetic corpus: every recording, its truth, and its true target in any other emotion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spfem_dist.corpora._speech.corpus import SpokenCorpus, blinks, parts_of
from spfem_dist.corpora._speech.keys import Factor
from spfem_dist.corpora.synthetic.camera import camera
from spfem_dist.corpora.synthetic.expression import Expression, expression
from spfem_dist.corpora.synthetic.geometry import Mouth, face, mouth
from spfem_dist.corpora.synthetic.identity import Identity, identity
from spfem_dist.corpora.synthetic.landmarks import landmarks
from spfem_dist.corpora.synthetic.paint import draw, strokes
from spfem_dist.emotions import Emotion
from spfem_dist.records import Clip, RawRecording


@dataclass
class SyntheticCorpus(SpokenCorpus):
    """Drawn talking heads: quick, flat, and with known truth. Fields as `SpokenCorpus` has them; for style see `expression.personal_style`.

    `render` gives 68 landmarks (iBUG order) and the truth: `visemes` float32 [T, 4], content in 0..1 (open, width, round, teeth) before
    emotion; `phase` float32 [T], canonical sentence seconds: frames with equal phase say the same thing; `opening` float32 [T], the mouth
    opening that is drawn, after emotion.
    """

    identities: int = 26
    sentences: int = 14

    name = "synthetic"
    extent = (26, 14)

    @classmethod
    def small(
        cls,
        identities: int = 4,
        sentences: int = 3,
        size: int = 64,
        seed: int = 0,
        fps: float = 25.0,
        style: float = 0.0,
    ) -> SyntheticCorpus:
        """A small corpus for tests, every speaker with every sentence."""
        return cls(identities, sentences, fps, size, seed, crossed=True, style=style)

    def truth(self, clip: Clip) -> dict[str, np.ndarray]:
        """See `SpokenCorpus.truth`."""
        phase, visemes, _, shape = self._said(clip, clip.emotion)
        return _truth(phase, visemes, shape)

    def voice(self, clip: Clip) -> Identity:
        """See `SpokenCorpus.voice`."""
        return self.person(clip)

    def person(self, clip: Clip) -> Identity:
        """Who speaks in `clip`."""
        return identity(self.seed, self._key(clip)[0])

    def _said(self, clip: Clip, emotion: Emotion) -> tuple[np.ndarray, np.ndarray, Expression, Mouth]:
        """Phase [T], visemes [T, 4], expression and mouth of `clip` shown in `emotion`."""
        key, clock = self._key(clip), self._timing(clip)
        times = self._times(clock)
        phase, said = clock.phase(times), self._canons[key[1]]
        visemes = np.stack([np.interp(phase, said.phase, curve) for curve in said.visemes.T], axis=1)
        felt = expression(self.seed, key, emotion, clip.take, times, self.style)
        return phase, visemes, felt, mouth(visemes, felt)

    def _render(self, clip: Clip, emotion: Emotion) -> RawRecording:
        person, times = self.person(clip), self._times(self._timing(clip))
        phase, visemes, felt, shape = self._said(clip, emotion)
        curves = face(person, felt, shape, blinks(self._stream(Factor.BLINK, clip), times))
        view = camera(self._stream(Factor.CAMERA, clip), times, self.size)
        return RawRecording(
            frames=draw(strokes(person, felt, shape, curves, view), view, self.size),
            fps=self.fps,
            speech=self.speech(clip),
            valid=np.ones(len(times), bool),
            landmarks=landmarks(curves, view, self.size),
            truth=_truth(phase, visemes, shape),
        )


def _truth(phase: np.ndarray, visemes: np.ndarray, shape: Mouth) -> dict[str, np.ndarray]:
    rows = {"visemes": visemes, "phase": phase, "opening": shape.opening}
    return {name: values.astype(np.float32) for name, values in rows.items()}


def synthetic_split() -> dict[str, dict[str, list[str]]]:
    """The split of the full corpus: part -> {"speakers": [...], "sentences": [...]}."""
    return parts_of(SyntheticCorpus.name)
