"""Pairs that a method makes to train on, scored against the truth of a rendered corpus before anything is trained on them.

A pair is a neutral recording and the same frames in another emotion. Judges read its pictures; the true target of every frame is rendered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from spfem_dist.config import Data
from spfem_dist.corpora.splits import Split
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.evaluation.clips import TestClip, planes, read_clips, topology_of
from spfem_dist.evaluation.evaluation_set import rendered_corpus
from spfem_dist.evaluation.judges.saved import Judges
from spfem_dist.evaluation.protocol import ProtocolError
from spfem_dist.generators.face.topology import Topology, topology
from spfem_dist.shard_format import GroupEntry
from spfem_dist.streaming.loader import Source
from spfem_dist.streaming.views import warp_matches

#: Makes of a neutral clip's frames at positions [N] the frames uint8 [N, S, S, 3] of an emotion; None where it has no pair.
Maker = Callable[[TestClip, Emotion, np.ndarray], np.ndarray | None]

MEANING = {
    "action_error": "distance of brows, lids and outer lips from where the true target has them, by the landmarks the oracle finds, "
    "% of the eye distance",
    "opening_error": "error of the mouth's opening by the same landmarks, % of the eye distance",
    "emotion_accuracy": "share of frames that the oracle calls the target emotion",
    "changed_error": "error over the pixels that should change, as a share of the unchanged source's",
}
#: A pixel should change where the true target differs from the source by more, grey levels.
_CHANGED = 12.0


def score_pairs(
    data: Data,
    judges: Judges,
    size: int,
    makers: Mapping[str, Maker],
    sentences: int | None = None,
    frames: int = 8,
    part: str = "test",
) -> dict[str, dict[str, list[float]]]:
    """Each figure of MEANING of every recording and emotion, in one order, by maker.

    `true` (the true target), `warp` (the frames of the emotion's recording that a time-warp matches) and `copy` (the source) are scored
    beside the `makers`. data: where the shards are and how they are split. size: of the frames, pixels. sentences: of each speaker; None
    takes all. frames: of each clip that are scored.
    Raises ProtocolError where the shards were not rendered, ValueError where the judges know other landmarks.
    """
    source = Source(data.model_copy(update={"size": size}), landmarks=True)
    name, corpus = topology_of(source.reader.index), rendered_corpus(source, size)
    if corpus is None:
        raise ProtocolError(
            f"{data.shards} holds recordings, whose true edits nobody knows: give shards of a rendered corpus"
        )
    if name != judges.oracle.topology:
        raise ValueError(f"the shards hold {name} landmarks and the judges were trained on {judges.oracle.topology}")
    split, order = Split.load(data.split), topology(name)
    said = sorted(
        {e.sentence for s in source.reader.index.shards for e in s.groups if split.accepts(part, e.speaker, e.sentence)}
    )
    chosen = set(said[:sentences])

    def accept(entry: GroupEntry) -> bool:
        return entry.sentence in chosen and split.accepts(part, entry.speaker, entry.sentence)

    clips = {clip.name: clip for clip in read_clips(source.data, accept, source)}
    warped = _warped(source, accept, clips)
    found: dict[str, dict[str, list[float]]] = {}
    for clip in (c for c in clips.values() if c.emotion is Emotion.NEUTRAL):
        at = np.unique(np.linspace(0, len(clip.frames) - 1, frames).round().astype(int))
        own = corpus.clip(int(clip.speaker[1:]), int(clip.sentence), Emotion.NEUTRAL, clip.take)
        for emotion in (e for e in SEVEN if e is not Emotion.NEUTRAL):
            target = corpus.target(own, emotion)
            assert target.landmarks is not None
            truth, points = target.frames[at], target.landmarks[at]
            rows = {"true": truth, "copy": clip.frames[at], "warp": warped(clip, emotion, at)}
            rows |= {key: make(clip, emotion, at) for key, make in makers.items()}
            for row, made in rows.items():
                if made is not None:
                    for key, value in _scores(judges, order, made, emotion, truth, points, clip.frames[at]).items():
                        found.setdefault(row, {}).setdefault(key, []).append(value)
    return found


def _scores(
    judges: Judges,
    order: Topology,
    made: np.ndarray,
    emotion: Emotion,
    truth: np.ndarray,
    points: np.ndarray,
    source: np.ndarray,
) -> dict[str, float]:
    reading = judges.oracle.read(planes(made))
    seen = reading.landmarks.numpy()
    left, right = (points[:, n] for n in order.outer_eyes)
    unit = np.linalg.norm(left - right, axis=-1)
    shown = [*order.brows, *(p for eye in order.eyes for p in eye), *(p for lip in order.lips for p in lip)]
    away = np.linalg.norm(seen[:, shown] - points[:, shown], axis=-1).mean(1) / unit
    openings = [(p[:, list(order.lower), 1] - p[:, list(order.upper), 1]).mean(1) / unit for p in (seen, points)]
    changed = np.abs(truth.astype(float) - source).max(-1) > _CHANGED
    errors = [np.abs(truth.astype(float) - frames).mean(-1)[changed].mean() for frames in (made, source)]
    return {
        "action_error": 100 * float(away.mean()),
        "opening_error": 100 * float(np.abs(openings[0] - openings[1]).mean()),
        "emotion_accuracy": float((reading.emotion.argmax(1) == SEVEN.index(emotion)).float().mean()),
        "changed_error": float(errors[0] / errors[1]),
    }


def _warped(source: Source, accept: Callable[[GroupEntry], bool], clips: Mapping[str, TestClip]) -> Maker:
    """The recorded frames that match in time."""
    matches: dict[tuple[str, Emotion], tuple[str, np.ndarray]] = {}
    for s, shard in enumerate(source.reader.index.shards):
        for g, entry in enumerate(shard.groups):
            if not accept(entry):
                continue
            group = source.group(s, g)
            neutral = next((r for r in group.recordings if r.emotion is Emotion.NEUTRAL), None)
            for other in group.recordings if neutral is not None else ():
                if neutral is not None and group.warp(neutral.name, other.name) is not None and other is not neutral:
                    found = warp_matches(group, neutral.name, other.name)
                    key = f"{group.key}/{neutral.name}", other.emotion
                    matches[key] = f"{group.key}/{other.name}", found

    def make(clip: TestClip, emotion: Emotion, at: np.ndarray) -> np.ndarray | None:
        if (clip.name, emotion) not in matches:
            return None
        name, frames = matches[clip.name, emotion]
        return clips[name].frames[np.maximum(frames[at], 0)]

    return make
