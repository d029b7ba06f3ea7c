"""How the speakers of a part of the shards move and what that draws on them; functions of the shards alone.

Landmarks are read once, and no frame is decoded for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spfem_dist.emotions import Emotion
from spfem_dist.generators.face.expressions import ExpressionModel, Fit
from spfem_dist.generators.face.maps import FaceMaps
from spfem_dist.generators.face.model import FaceModel, TrainingClip, learn_face_model
from spfem_dist.generators.face.texture import ExpressionTexture, TextureFit, side_of
from spfem_dist.generators.face.topology import topology
from spfem_dist.shard_format import GroupEntry, ShardIndex
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.views import matches_of

#: Frames of a recording from which the expression texture learns.
TEXTURE_FRAMES = 5
#: Landmarks that differ by less are the same, pixels.
SAME = 1e-3


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


def rests_of(model: ExpressionModel, recordings: Sequence[Recorded]) -> dict[str, np.ndarray]:
    """Each speaker's shape at rest [L, 2 or 3], of neutral recordings, of all of them where there is none."""
    rests = {}
    for speaker in sorted({r.speaker for r in recordings}):
        own = [r for r in recordings if r.speaker == speaker]
        calm = [r for r in own if r.emotion == Emotion.NEUTRAL] or own
        rests[speaker] = model.rest_of([r.landmarks[r.valid] for r in calm], calm[0].emotion == Emotion.NEUTRAL)
    return rests


class FittedRecordings:
    """Recordings in a face model's terms, each fitted whole, when it is first asked for: a clip says more of a person than ten of its frames.

    rests: of the speakers that are known. index: of the shards that the recordings are of.
    """

    def __init__(
        self,
        model: ExpressionModel,
        recordings: Sequence[Recorded],
        rests: Mapping[str, np.ndarray],
        index: ShardIndex,
    ):
        self.model, self.recordings, self.rests = model, recordings, rests
        self._fits: dict[tuple[tuple[int, int], str], Fit] = {}
        self._of_group: dict[str, list[Recorded]] = {}
        for recorded in recordings:
            shard, group = recorded.place
            self._of_group.setdefault(index.shards[shard].groups[group].key, []).append(recorded)

    def of(self, recorded: Recorded) -> Fit:
        """The whole recording."""
        key = recorded.place, recorded.name
        if key not in self._fits:
            self._fits[key] = self.model.fit(recorded.landmarks, self.rests.get(recorded.speaker))
        return self._fits[key]

    def window(self, group: str, frames: np.ndarray, landmarks: np.ndarray, rest: np.ndarray | None) -> Fit:
        """Frames [T] of a recording of the group with this key, whose landmarks [T, L, 2] say which; of none of these, they are fitted alone."""
        for recorded in self._of_group.get(group, ()):
            inside = frames.max() < len(recorded.landmarks)
            if inside and np.allclose(recorded.landmarks[frames], landmarks, rtol=0, atol=SAME):
                return self.of(recorded).frames(frames)
        return self.model.fit(landmarks, rest)


def fitted_texture(
    source: Source, recordings: Sequence[Recorded], maps: FaceMaps, coefficients: Callable[[Recorded], np.ndarray]
) -> ExpressionTexture:
    """The expression texture of these recordings; each worker unwraps the frames of its own share of the speakers. A collective.

    coefficients: float32 [T, C] of a recording, which the texture explains what is drawn by.
    """
    together = torch.distributed.is_initialized()
    rank, size = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)
    fit = TextureFit(maps, side_of(source.data.size), coefficients(recordings[0]).shape[1])
    for speaker in sorted({r.speaker for r in recordings})[rank::size]:
        shown = []
        for recorded in (r for r in recordings if r.speaker == speaker):
            at = np.flatnonzero(recorded.valid)
            at = np.unique(at[np.linspace(0, len(at) - 1, TEXTURE_FRAMES).round().astype(int)])
            group = source.group(*recorded.place)
            recording = next(r for r in group.recordings if r.name == recorded.name)
            (frames,) = source.frames([(recorded.place, recording, at)])
            landmarks = recorded.landmarks[at]
            vertices = np.concatenate([landmarks, maps.anchors(landmarks)], 1)
            found = torch.from_numpy(coefficients(recorded)[at])
            shown.append((frames.permute(0, 3, 1, 2), torch.from_numpy(vertices), found))
        fit.add_speaker(shown)
    return fit.solve()
