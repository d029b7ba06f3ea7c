"""The corpus of rendered heads: every recording, its truth, and its true target in any other emotion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from spfem_dist.corpora._speech.corpus import SpokenCorpus, blinks
from spfem_dist.corpora._speech.keys import Factor
from spfem_dist.corpora.heads.acting import Units, acted, felt, glances, said
from spfem_dist.corpora.heads.camera import view
from spfem_dist.corpora.heads.folds import Folds, folds
from spfem_dist.corpora.heads.person import Person, person
from spfem_dist.corpora.heads.scene import Layers, Scene
from spfem_dist.corpora.heads.skin import Surface, surface
from spfem_dist.corpora.heads.worn import Worn, worn
from spfem_dist.emotions import Emotion
from spfem_dist.head.asset import head
from spfem_dist.records import Clip, RawRecording

#: The inner lips' three middle points, above and below, and the eyes' outer corners, in MediaPipe's order.
_UPPER, _LOWER, _EYES = (82, 13, 312), (87, 14, 317), (33, 263)


@dataclass
class HeadsCorpus(SpokenCorpus):
    """Rendered 3-D heads: shape from anny's identities, 52 units, light, lens. Fields as `SpokenCorpus` has them; for style see `acting.manner`.

    `render` gives 478 landmarks in MediaPipe's order and the truth, float32 with T rows: `visemes` [T, 4], content in 0..1 (open, width, round,
    teeth) before emotion; `phase` [T], canonical sentence seconds: frames with equal phase say the same thing; `opening` [T], between the
    inner lips in outer-eye distances, after emotion; `units` [T, 52], in the order of `unit_names`; `pose` [T, 3], the head's yaw, pitch and roll in radians (to the
    right of the picture, up, clockwise); `ibug68` [T, 68, 2], the same landmarks in the order of the 300-W mark-up, in pixels.
    """

    identities: int = 64
    sentences: int = 14

    name = "heads"
    extent = (64, 14)

    @property
    def unit_names(self) -> tuple[str, ...]:
        """The 52 units, as ARKit names them: browDownLeft, ... (Left is the subject's)."""
        return head().names

    def truth(self, clip: Clip) -> dict[str, np.ndarray]:
        """The truth of `render(clip)`, without drawing it."""
        scene, moved, units = self.staged(clip, clip.emotion)
        return self._truth(clip, scene, moved, units)[0]

    def layers(self, clip: Clip, emotion: Emotion | None = None) -> Layers:
        """Depth, normals and masks of `render(clip)`, or of `target(clip, emotion)`."""
        scene, moved, _ = self.staged(clip, emotion or clip.emotion)
        return scene.layers(moved)

    def voice(self, clip: Clip) -> Person:
        """See `SpokenCorpus.voice`."""
        return self.person(clip)

    def person(self, clip: Clip) -> Person:
        """Who speaks in `clip`."""
        return person(head(), self.seed, self._key(clip)[0])

    def _acted(self, clip: Clip, emotion: Emotion) -> np.ndarray:
        """The units of `clip` in `emotion`: float32 [T, 52]."""
        key, clock = self._key(clip), self._timing(clip)
        times, units, sentence = self._times(clock), Units(head().names), self._canons[key[1]]
        phase, spoken = clock.phase(times), said(units, sentence)
        speech = np.stack([np.interp(phase, sentence.phase, curve) for curve in spoken.T], axis=1)
        feeling = felt(units, self.seed, key, emotion, clip.take, times, self.style)
        rng = self._stream(Factor.BLINK, clip)
        return acted(units, speech, feeling, emotion, blinks(rng, times), glances(rng, times))

    def staged(self, clip: Clip, emotion: Emotion) -> tuple[Scene, np.ndarray, np.ndarray]:
        """The scene of `clip`, its faces [T, N, 3] in `emotion`, and their units [T, 52]."""
        who = self.person(clip)
        neutral, look, lines, has_on = _made(self.seed, self._key(clip)[0])
        times = self._times(self._timing(clip))
        seen = view(self._stream(Factor.CAMERA, clip), times, self.size, float(np.mean(who.skin)))
        units = self._acted(clip, emotion)
        return Scene(head(), who, neutral, look, lines, has_on, seen, self.size), head().moved(neutral, units), units

    def _truth(
        self, clip: Clip, scene: Scene, moved: np.ndarray, units: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The truth, and the landmarks [T, 478, 2] that belong to it."""
        clock, sentence = self._timing(clip), self._canons[self._key(clip)[1]]
        phase = clock.phase(self._times(clock))
        solid = head().mesh478(moved)
        gaps = np.linalg.norm(solid[:, _UPPER] - solid[:, _LOWER], axis=-1).mean(1)
        landmarks = scene.landmarks(moved)
        rows = {
            "visemes": np.stack([np.interp(phase, sentence.phase, curve) for curve in sentence.visemes.T], axis=1),
            "phase": phase,
            "opening": gaps / np.linalg.norm(solid[:, _EYES[0]] - solid[:, _EYES[1]], axis=-1),
            "units": units,
            "pose": np.stack([scene.view.yaw, scene.view.pitch, scene.view.roll], axis=1),
            "ibug68": head().ibug68(landmarks),
        }
        return {name: values.astype(np.float32) for name, values in rows.items()}, landmarks

    def _render(self, clip: Clip, emotion: Emotion) -> RawRecording:
        scene, moved, units = self.staged(clip, emotion)
        truth, landmarks = self._truth(clip, scene, moved, units)
        return RawRecording(
            frames=np.stack(
                [
                    scene.frame(face, weights, step)
                    for step, (face, weights) in enumerate(zip(moved, units, strict=True))
                ]
            ),
            fps=self.fps,
            speech=self.speech(clip),
            valid=np.ones(len(moved), bool),
            landmarks=landmarks.astype(np.float32),
            truth=truth,
        )


@lru_cache(maxsize=4)
def _made(seed: int, speaker: int) -> tuple[np.ndarray, Surface, Folds, Worn]:
    """What of a person is the same in every recording: the neutral face, paint, folds, hair and glasses. A quarter of a second."""
    who = person(head(), seed, speaker)
    neutral = head().shape(who.shape)
    rng = np.random.default_rng(np.random.SeedSequence([seed, int(Factor.IDENTITY), speaker, 1]))
    return neutral, surface(head(), who, rng), folds(head(), who, rng), worn(head(), who, neutral, rng)
