"""The package's generator on a GPU: it is taken where there is one, and edits as on a CPU."""

import numpy as np
from gpu import DEVICE, NEEDS_GPU

from spfem_dist.corpora.heads import HeadsCorpus
from spfem_dist.emotions import Emotion
from spfem_dist.generators.generator import Face
from spfem_dist.generators.load import SHIPPED, load_generator

pytestmark = NEEDS_GPU


def test_it_edits_as_on_a_cpu():
    generator = load_generator(SHIPPED)
    assert generator.device.type == DEVICE.type
    corpus = HeadsCorpus(identities=1, sentences=1, size=generator.size)
    raw = corpus.render(corpus.clip(0, 0, Emotion.NEUTRAL))
    frames, points = raw.frames[:20], raw.landmarks[:20]
    face = Face(points, np.ones(len(points), bool), generator.size, generator.topology)
    found = []
    for each in (generator, load_generator(SHIPPED).to("cpu")):
        motion = each.drive(face, Emotion.HAPPY)
        drawn = each.render(frames, motion, flow_side=256)
        found.append((motion.target, drawn.flow, drawn.residual))
    for there, here, tolerance in zip(*found, (1e-2, 1e-3, 2.0), strict=True):
        assert np.abs(there - here).max() < tolerance
        assert np.abs(there).max() > 0
