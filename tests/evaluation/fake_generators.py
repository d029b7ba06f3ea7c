"""Generators whose right scores are known: one that changes nothing, and one that draws the true target."""

import json
from pathlib import Path

import numpy as np

from spfem_dist.corpora.synthetic import SyntheticCorpus
from spfem_dist.emotions import SEVEN
from spfem_dist.generators.generator import Motion
from spfem_dist.generators.rendered import Rendered


class Copy:
    """Leaves the source as it is."""

    size, topology = 32, "ibug68"

    def drive(self, source, emotion=None, reference=None, strength=1.0):
        return Motion(source.landmarks, source.landmarks)

    def render(self, frames, motion, first=0, flow_side=None):
        # Where nothing was redrawn the source must shine through, whatever the crop holds.
        return Rendered.painted(frames, np.zeros_like(frames), np.zeros(frames.shape[:3]))


class Ideal(Copy):
    """Draws what the corpus would: it finds clip and emotion by the landmarks it is given."""

    def __init__(self, shards):
        made = json.loads((Path(shards) / "shard-000000.json").read_text())["settings"]
        self.corpus = SyntheticCorpus(
            made["identities"], made["synthetic_sentences"], size=self.size, seed=made["seed"]
        )
        self.known, self.drawn = [], {}
        for clip in self.corpus.clips():
            self.known.append((self.corpus.render(clip).landmarks, clip))

    def clip(self, landmarks):
        same = [
            c
            for points, c in self.known
            if points.shape == landmarks.shape and np.allclose(points, landmarks, atol=0.1)
        ]
        return same[0]

    def draw(self, clip, emotion):
        target = self.corpus.target(clip, emotion)
        self.drawn[target.landmarks.tobytes()] = target.frames
        return target.landmarks

    def drive(self, source, emotion=None, reference=None, strength=1.0):
        shown = emotion or self.clip(reference.landmarks).emotion
        return Motion(source.landmarks, self.draw(self.clip(source.landmarks), shown))

    def render(self, frames, motion, first=0, flow_side=None):
        if motion.target.tobytes() not in self.drawn:
            for emotion in SEVEN:
                self.draw(self.clip(motion.source), emotion)
        crops = self.drawn[motion.target.tobytes()][first : first + len(frames)]
        return Rendered.painted(frames, crops, np.ones(crops.shape[:3]))
