"""How the speakers of a part of the shards move: their landmarks, read once, no frame decoded; a function of the shards alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spfem_dist.emotions import Emotion
from spfem_dist.generators.face.model import FaceModel, TrainingClip, learn_face_model
from spfem_dist.generators.face.topology import topology
from spfem_dist.shard_format import GroupEntry
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.views import matches_of


@dataclass(frozen=True)
class Recorded:
    """One recording's landmarks [T, L, 2], pixels of data.size, and where it lies: (shard, group) and name.

    matches: the frames int16 [T] of other recordings, by name, in which the speaker says the same: -1 where none does.
    """

    place: tuple[int, int]
    name: str
    speaker: str
    emotion: Emotion
    landmarks: np.ndarray
    valid: np.ndarray
    matches: dict[str, np.ndarray]


def read_recordings(
    source: Source, accept: Callable[[GroupEntry], bool], speakers: int, clips: int, matched: bool = False
) -> list[Recorded]:
    """The accepted groups' recordings of the first `speakers` speakers, `clips` of each at most, that show a face at all.

    matched: with the frames in which other recordings of their group say the same.
    """
    index = source.reader.index
    places = [
        (entry.speaker, s, g)
        for s, shard in enumerate(index.shards)
        for g, entry in enumerate(shard.groups)
        if accept(entry)
    ]
    taken = dict.fromkeys(sorted({speaker for speaker, _, _ in places})[:speakers], 0)
    found: list[Recorded] = []
    for speaker, s, g in places:
        if taken.get(speaker, clips) >= clips:
            continue
        group = source.reader.read(s, g, whole=False, landmarks=True)
        scale = source.data.size / group.size
        for recording in group.recordings:
            valid = recording.valid.astype(bool)
            if recording.landmarks is not None and valid.any():
                seen = recording.landmarks.astype(np.float32) * np.float32(scale)
                matches = matches_of(group, recording, source.data) if matched else {}
                found.append(Recorded((s, g), recording.name, speaker, recording.emotion, seen, valid, matches))
                taken[speaker] += 1
    return found


def learnt_model(recordings: Sequence[Recorded], landmarks: str) -> FaceModel:
    """The face model of these recordings. landmarks: their order, as the shards' index says."""
    clips = [TrainingClip(r.speaker, r.emotion == Emotion.NEUTRAL, r.landmarks[r.valid]) for r in recordings]
    return learn_face_model(clips, topology(landmarks))[0]


def rests_of(model: FaceModel, recordings: Sequence[Recorded]) -> dict[str, np.ndarray]:
    """Each speaker's shape at rest [L, 2]: the mean over neutral recordings, over all of them where there is none."""
    rests = {}
    for speaker in sorted({r.speaker for r in recordings}):
        own = [r for r in recordings if r.speaker == speaker]
        calm = [r for r in own if r.emotion == Emotion.NEUTRAL] or own
        shapes = [model.seen_from_the_front(r.landmarks[r.valid].astype(np.float64))[0] for r in calm]
        rests[speaker] = np.concatenate(shapes).mean(0)
    return rests
