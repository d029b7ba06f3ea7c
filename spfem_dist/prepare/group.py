"""One utterance group: its clips are opened, described, encoded and aligned."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from spfem_dist import weights
from spfem_dist.corpora.rendered import is_rendered
from spfem_dist.emotions import Emotion
from spfem_dist.prepare.alignment import BANDS, PathKey, import_paths, mfcc, path_cost, warp_features
from spfem_dist.prepare.faces import FaceFinder, face_finder
from spfem_dist.prepare.plan import PrepareSettings, rendered_corpus
from spfem_dist.prepare.recording import load_recording
from spfem_dist.prepare.shards import encode_speech, encode_video
from spfem_dist.prepare.speech import SpeechFeatures, speech_features
from spfem_dist.records import Clip, RawRecording, Recording, Reject, Unusable, UtteranceGroup


def build_group(
    key: str, clips: Sequence[Clip], settings: PrepareSettings
) -> tuple[UtteranceGroup | None, list[Reject]]:
    """The group of `clips` (one speaker, one sentence) and a reject for each clip that cannot be used.

    None where none of them can.
    """
    recordings: list[Recording] = []
    cepstra: dict[str, np.ndarray] = {}
    videos: dict[str, Clip] = {}
    rejects: list[Reject] = []
    for clip in clips:
        try:
            raw = open_clip(clip, settings)
        except Unusable as problem:
            rejects.append(Reject(clip.place, problem.reason, problem.detail))
            continue
        except OSError as problem:
            if problem.errno is None:  # of this program, about weights for instance, and not of the disk about a file
                raise
            detail = (
                f"{problem.filename or clip.video} cannot be read ({problem.strerror}): look at its disk, or remove it"
            )
            rejects.append(Reject(clip.place, "unreadable", detail))
            continue
        recordings.append(_describe(clip, raw, settings))
        cepstra[clip.recording] = mfcc(raw.speech, len(raw.frames), settings.fps, settings.alignment)
        videos[clip.recording] = clip
    if not recordings:
        rejects.append(Reject(key, "empty-group", f"none of the {len(clips)} recordings of {key} can be used"))
        return None, rejects
    first = clips[0]
    group = UtteranceGroup(key, first.corpus, first.speaker, first.sentence, settings.fps, settings.size, recordings)
    imported = _imported_paths(settings.warps) if settings.warps else {}
    for a, b in pairs(recordings, settings.all_pairs_up_to):
        path = _imported_path(imported, videos[a.name], videos[b.name])
        if path is not None and (path[0, -1] >= a.frames or path[1, -1] >= b.frames):
            # The published paths were made from the sound, which can outlast the pictures by a frame or two.
            overshoot = max(path[0, -1] - a.frames, path[1, -1] - b.frames) + 1
            detail = f"its imported time-warp ends {overshoot} frames beyond the recordings; a computed one is used"
            if overshoot > 3:
                rejects.append(Reject(f"{key} {a.name} {b.name}", "warp-too-long", detail))
                path = None
            else:
                path = path[:, (path[0] < a.frames) & (path[1] < b.frames)]
        if path is None:
            path, cost = warp_features(cepstra[a.name], cepstra[b.name], BANDS[settings.alignment])
        else:
            cost = path_cost(cepstra[a.name], cepstra[b.name], path)
        group.warps[(a.name, b.name)], group.warp_costs[(a.name, b.name)] = path, cost
    return group, rejects


def open_clip(clip: Clip, settings: PrepareSettings) -> RawRecording:
    """The recording behind `clip`: face crops at constant rate, and speech. Raises Unusable where it cannot be used."""
    if is_rendered(clip.corpus):
        return _rendered(settings.model_dump_json()).render(clip)
    return load_recording(clip, settings.size, settings.fps, _finder(settings.faces))


def pairs(recordings: Sequence[Recording], all_up_to: int) -> list[tuple[Recording, Recording]]:
    """The pairs to align: all of a small group; from the first (a neutral one, where there is one) in a larger group."""
    if len(recordings) <= all_up_to:
        return list(itertools.combinations(recordings, 2))
    return [(recordings[0], other) for other in recordings[1:]]


def _describe(clip: Clip, raw: RawRecording, settings: PrepareSettings) -> Recording:
    frames = len(raw.frames)
    return Recording(
        name=clip.recording,
        emotion=clip.emotion,
        level=clip.level,
        take=clip.take,
        frames=frames,
        video=encode_video(raw.frames, settings.fps, settings.codec, settings.crf),
        speech=encode_speech(raw.speech),
        features=_features(settings.speech)(raw.speech, frames, settings.fps),
        valid=raw.valid,
        landmarks=raw.landmarks,
        truth=raw.truth,
    )


def _imported_path(paths: Mapping[PathKey, np.ndarray], a: Clip, b: Clip) -> np.ndarray | None:
    if a.emotion is not Emotion.NEUTRAL:
        return None
    return paths.get((b.speaker, b.emotion, f"{a.video.stem}_{b.video.stem}"))


# A worker process builds many groups: what is costly to make is made once.


@lru_cache(maxsize=1)
def _rendered(settings: str):
    return rendered_corpus(PrepareSettings.model_validate_json(settings))


@lru_cache(maxsize=1)
def _finder(name: str) -> FaceFinder:
    if name.endswith("mesh"):
        weights.ensure("face-mesh", lambda line: None)  # another node of a cluster may not have them yet
    return face_finder(name)


@lru_cache(maxsize=1)
def _features(name: str) -> SpeechFeatures:
    return speech_features(name)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _imported_paths(path: Path) -> dict[PathKey, np.ndarray]:
    return import_paths(path)
