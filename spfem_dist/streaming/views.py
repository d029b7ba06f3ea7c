"""Views of an utterance group: which recordings and frames one sample takes from it. Pure functions of (group, generator).

Priors of content draw one sentence in two emotions with time-matched frames (`content_view`), priors of emotion the sentence in
each of the seven (`emotion_view`), perhaps with a portrait of who says it (`personal_view`), priors of movement windows that match in
time (`windows_view`); generators draw moving windows of two emotions (`motion_view`); evaluation reads whole recordings (`plain_view`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from spfem_dist.config import Data
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.records import Batch, Recording, Seeds, UtteranceGroup
from spfem_dist.shard_format import GroupEntry

#: Frames of each recording in an emotion sample: two, so that one's content can be told from the other's.
EMOTION_FRAMES = 2
#: Neutral frames that say who somebody is.
PORTRAIT_FRAMES = 4
#: Sets of positions drawn to find one whose matches are apart in the second recording too.
_TRIES = 8
#: Rows of a generator's sample (`motion_view`).
SOURCE, REFERENCE, MATCHED = 0, 1, 2
_EMOTION_NUMBER = {emotion: number for number, emotion in enumerate(Emotion)}


class Unservable(ValueError):
    """A group that a view cannot be drawn from, although the index let it hope so; says why."""


@dataclass(frozen=True)
class Choice:
    """What one sample takes from a group: R recordings, K frames of each.

    recordings: R recordings, None where there is none (padding). emotions: R emotions, also of the padding.
    positions: int64 [R, K], frame indexes. valid: bool [R, K], False for padding and frames without a found face.
    beside: how many of them, the last ones, belong to the companion group (see `View`).
    """

    recordings: tuple[Recording | None, ...]
    emotions: tuple[Emotion, ...]
    positions: np.ndarray
    valid: np.ndarray
    beside: int = 0


@dataclass(frozen=True)
class View:
    """A way to draw samples. serves: whether a group can be drawn from, by the emotions in its index entry alone. choose: the draw.

    companion: where samples take something of another sentence of the same speaker, which groups have it; `choose` is then given
    that group too, or None where the speaker has no such group.
    """

    name: str
    serves: Callable[[GroupEntry], bool]
    choose: Callable[..., Choice]
    companion: Callable[[GroupEntry], bool] | None = None


def content_view(group: UtteranceGroup, rng: np.random.Generator, data: Data) -> Choice:
    """A sample of content: R = 2 recordings of different emotions, K = data.frames_per_recording frames of each.

    The pair is uniform over ordered pairs with a stored time-warp of at most data.maximum_warp_cost. Frame k of
    recording 1 matches frame k of recording 0 (the middle one of several matches). Positions ascend, data.minimum_gap
    or more apart (as spread as possible where the clip is short), among frames whose face was found in both; a clip
    with too few of those is filled up with other matched frames, or repeats, marked invalid.
    Raises Unservable where no pair is left.
    """
    first, second = _pair(group, rng, data)
    matches = warp_matches(group, first.name, second.name)
    matched = np.flatnonzero(matches >= 0)
    good = matched[first.valid[matched] & second.valid[matches[matched]]]
    if len(good) < 2:
        raise Unservable(
            f"group {group.key}: {first.name} and {second.name} share {len(good)} frames with a found face"
        )
    count = data.frames_per_recording
    if len(good) >= count:
        positions = _spread_in_both(good, matches, count, data.minimum_gap, rng)
        valid = np.ones(count, dtype=bool)
    else:
        others = np.setdiff1d(matched, good)
        fill = _choose(others, count - len(good), rng) if len(others) else np.repeat(good[:1], count - len(good))
        positions = np.concatenate([good, fill])
        valid = np.arange(count) < len(good)
        order = np.argsort(positions, kind="stable")
        positions, valid = positions[order], valid[order]
    return Choice(
        (first, second),
        (first.emotion, second.emotion),
        np.stack([positions, matches[positions]]).astype(np.int64),
        np.stack([valid, valid]),
    )


def _pair(group: UtteranceGroup, rng: np.random.Generator, data: Data) -> tuple[Recording, Recording]:
    """Two recordings of different emotions with a usable time-warp, uniform over ordered pairs. Raises Unservable where there is none."""
    pairs = [
        (a, b)
        for a in group.recordings
        for b in group.recordings
        if a.emotion != b.emotion and _usable(group, a, b, data)
    ]
    if not pairs:
        raise Unservable(
            f"group {group.key} has no two emotions with a time-warp of cost <= {data.maximum_warp_cost}: raise "
            "data.maximum_warp_cost"
        )
    first, second = pairs[rng.integers(len(pairs))]
    return first, second


def serves_content(entry: GroupEntry) -> bool:
    """Whether the group was recorded in two emotions at least (MEAD shares three sentences across emotions)."""
    return len({r.emotion for r in entry.recordings}) >= 2


def emotion_view(group: UtteranceGroup, rng: np.random.Generator, data: Data) -> Choice:
    """A sample of emotions: R = 7, one recording for each of `emotions.SEVEN` in that order, K = 2 random distinct frames.

    Level and take are drawn at random; an emotion the group lacks is padding (valid False, recording None). Frames
    whose face was not found are taken only where there are fewer than two others, and marked invalid.
    """
    recordings: list[Recording | None] = []
    positions = np.zeros((len(SEVEN), EMOTION_FRAMES), dtype=np.int64)
    valid = np.zeros((len(SEVEN), EMOTION_FRAMES), dtype=bool)
    for row, emotion in enumerate(SEVEN):
        takes = [r for r in group.recordings if r.emotion == emotion]
        recording = takes[rng.integers(len(takes))] if takes else None
        recordings.append(recording)
        if recording is not None:
            good, bad = np.flatnonzero(recording.valid), np.flatnonzero(~recording.valid)
            chosen = _choose(good, min(EMOTION_FRAMES, len(good)), rng)
            rest = EMOTION_FRAMES - len(chosen)
            fill = _choose(bad, rest, rng) if len(bad) else np.repeat(good[:1], rest)
            positions[row] = np.concatenate([chosen, fill])
            valid[row] = np.arange(EMOTION_FRAMES) < len(chosen)
    if not valid.any():
        raise Unservable(f"group {group.key} has no found face in any of {', '.join(SEVEN)}")
    return Choice(tuple(recordings), SEVEN, positions, valid)


def serves_emotion(entry: GroupEntry) -> bool:
    """Whether the group holds one of the seven emotions."""
    return any(r.emotion in SEVEN for r in entry.recordings)


def personal_view(
    group: UtteranceGroup, rng: np.random.Generator, data: Data, other: UtteranceGroup | None = None
) -> Choice:
    """An emotion sample and who it is: R = 7 + 2, the seven of `emotion_view`, and `PORTRAIT_FRAMES` neutral frames of `other`.

    other: the speaker in another sentence, so that no recording is met as a sample and as a portrait. The last two rows are of one
    neutral recording of it, with distinct frames where it has as many; without `other` they are padding.
    """
    seven = emotion_view(group, rng, data)
    rows = PORTRAIT_FRAMES // EMOTION_FRAMES
    positions = np.zeros((rows, EMOTION_FRAMES), dtype=np.int64)
    valid = np.zeros((rows, EMOTION_FRAMES), dtype=bool)
    portrait: Recording | None = None
    takes = [r for r in other.recordings if r.emotion is Emotion.NEUTRAL and r.valid.any()] if other is not None else []
    if takes:
        portrait = takes[rng.integers(len(takes))]
        positions = _choose(np.flatnonzero(portrait.valid), PORTRAIT_FRAMES, rng).reshape(rows, EMOTION_FRAMES)
        valid[:] = True
    return Choice(
        (*seven.recordings, *[portrait] * rows),
        (*seven.emotions, *[Emotion.NEUTRAL] * rows),
        np.concatenate([seven.positions, positions]),
        np.concatenate([seven.valid, valid]),
        beside=rows,
    )


def has_neutral(entry: GroupEntry) -> bool:
    """Whether the group holds a neutral recording."""
    return any(r.emotion is Emotion.NEUTRAL for r in entry.recordings)


def windows_view(length: int, along_path: bool = False) -> View:
    """A way to draw windows that match in time: R = 2 recordings of different emotions, K = `length` consecutive moments of each.

    The pair is drawn as `content_view` does. The moments are consecutive frames of recording 0, and frame k of recording 1 matches
    frame k of recording 0 (between the steps of the time-warp, interpolated). along_path: they are consecutive steps of the
    time-warp, as published: frames repeat where it stalls. The stretch is drawn among those with the most found faces; a clip that is
    too short is filled up with its last moment, marked invalid. Unservable where no pair is left.
    """

    def choose(group: UtteranceGroup, rng: np.random.Generator, data: Data) -> Choice:
        first, second = _pair(group, rng, data)
        path = group.warp(first.name, second.name)
        assert path is not None  # _pair looked
        moments = path if along_path else _interpolated(path, first.frames, second.frames)
        valid = first.valid[moments[0]].astype(bool) & second.valid[moments[1]].astype(bool)
        begin = _begin(valid, length, rng)
        inside = np.minimum(begin + np.arange(length), len(valid) - 1)
        shown = valid[inside] & (begin + np.arange(length) < len(valid))
        return Choice(
            (first, second),
            (first.emotion, second.emotion),
            moments[:, inside].astype(np.int64),
            np.stack([shown, shown]),
        )

    return View("windows", serves_content, choose)


def _interpolated(path: np.ndarray, frames: int, others: int) -> np.ndarray:
    """int64 [2, M]: consecutive frames of a recording that its time-warp `path` [2, P] reaches, and the other's frames that match them."""
    known, number = np.unique(path[0], return_inverse=True)
    matches = np.bincount(number, path[1]) / np.bincount(number)
    inside = np.arange(max(int(known[0]), 0), min(int(known[-1]) + 1, frames))
    return np.stack([inside, np.clip(np.rint(np.interp(inside, known, matches)), 0, others - 1).astype(np.int64)])


def motion_view(group: UtteranceGroup, rng: np.random.Generator, data: Data) -> Choice:
    """A generator's sample: R = 3 windows of K = data.frames_per_recording frames: source, reference, and the source's words again.

    Source and reference are consecutive frames of recordings that differ in emotion where the group has two of the seven, and else of
    one emotion. The windows are drawn apart, among those with the most found faces; a shorter clip is filled up with its last frame,
    marked invalid. The third window has the reference's frames that match the source's, invalid where no time-warp leads there.
    """
    recordings = [r for r in group.recordings if r.emotion in SEVEN]
    if not recordings:
        raise Unservable(f"group {group.key} shows none of {', '.join(SEVEN)}")
    first = recordings[rng.integers(len(recordings))]
    others = [r for r in recordings if r.emotion != first.emotion] or recordings
    pair = (first, others[rng.integers(len(others))])
    windows = [_window(recording, data.frames_per_recording, rng) for recording in pair]
    windows.append(_matched(group, *pair, windows[0][0], data))
    three = (*pair, pair[1])
    return Choice(
        three, tuple(r.emotion for r in three), np.stack([p for p, _ in windows]), np.stack([v for _, v in windows])
    )


def _matched(
    group: UtteranceGroup, a: Recording, b: Recording, positions: np.ndarray, data: Data
) -> tuple[np.ndarray, np.ndarray]:
    """The frames of b that match `positions` of a, and where they do: of one recording, or without a usable warp, nowhere."""
    if a.name == b.name or not _usable(group, a, b, data):
        return np.zeros_like(positions), np.zeros(len(positions), bool)
    matches = warp_matches(group, a.name, b.name)[positions]
    inside = np.clip(matches, 0, b.frames - 1)
    return inside, (matches >= 0) & a.valid[positions].astype(bool) & b.valid[inside].astype(bool)


def _window(recording: Recording, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions [length] of consecutive frames, and where they are valid."""
    positions = _begin(recording.valid, length, rng) + np.arange(length)
    inside = np.minimum(positions, recording.frames - 1)
    return inside.astype(np.int64), recording.valid[inside].astype(bool) & (positions < recording.frames)


def _begin(valid: np.ndarray, length: int, rng: np.random.Generator) -> int:
    """Where a window of `length` frames begins: at random among those with the most valid ones."""
    best = best_starts(valid, length)
    return int(best[rng.integers(len(best))])


def best_starts(valid: np.ndarray, length: int) -> np.ndarray:
    """Where the windows of `length` frames begin that have the most valid ones; valid: bool [T]."""
    starts = max(1, len(valid) - length + 1)
    found = np.convolve(valid.astype(int), np.ones(length, int))[length - 1 :][:starts]
    return np.flatnonzero(found == found.max())


def plain_view(recording: Recording) -> Choice:
    """Every frame of one recording, in order: R = 1, K = its frames. For evaluation."""
    return Choice(
        (recording,), (recording.emotion,), np.arange(recording.frames, dtype=np.int64)[None], recording.valid[None]
    )


CONTENT = View("content", serves_content, content_view)
EMOTION = View("emotion", serves_emotion, emotion_view)
PERSONAL = View("personal", serves_emotion, personal_view, companion=has_neutral)
MOTION = View("motion", serves_emotion, motion_view)


def warp_matches(group: UtteranceGroup, a: str, b: str) -> np.ndarray:
    """int64 [frames of a]: the frame of `b` that matches each frame of `a`, the middle one of several; -1 for none."""
    path = group.warp(a, b)
    if path is None:
        raise Unservable(f"group {group.key} has no time-warp between {a} and {b}")
    frames = next(r.frames for r in group.recordings if r.name == a)
    numbers = np.arange(frames)
    first, last = np.searchsorted(path[0], numbers, "left"), np.searchsorted(path[0], numbers, "right") - 1
    return np.where(last >= first, path[1][np.clip((first + last) // 2, 0, path.shape[1] - 1)], -1).astype(np.int64)


def matches_of(group: UtteranceGroup, recording: Recording, data: Data) -> dict[str, np.ndarray]:
    """For each other recording of the group with a usable time-warp, by name: `warp_matches` from `recording`, as int16."""
    others = [other for other in group.recordings if other.name != recording.name]
    usable = [other.name for other in others if _usable(group, recording, other, data)]
    return {name: warp_matches(group, recording.name, name).astype(np.int16) for name in usable}


def speech_window(features: np.ndarray, positions: np.ndarray, window: int) -> np.ndarray:
    """float32 [K, window, F]: the feature rows around each position, edge rows repeated beyond the ends."""
    offsets = np.arange(window) - window // 2
    return features[np.clip(positions[:, None] + offsets, 0, len(features) - 1)].astype(np.float32, copy=False)


def resize(frames: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 [K, H, W, 3] -> [K, size, size, 3], by area averaging where it shrinks; on the frames' own device."""
    if tuple(frames.shape[1:3]) == (size, size):
        return frames
    if frames.device.type == "cpu":
        way = cv2.INTER_AREA if frames.shape[1] > size else cv2.INTER_LINEAR
        return torch.from_numpy(np.stack([cv2.resize(f, (size, size), interpolation=way) for f in frames.numpy()]))
    planes = frames.permute(0, 3, 1, 2).float()
    shrunk = torch.nn.functional.interpolate(planes, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return shrunk.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def collate(
    choices: Sequence[Choice],
    frames: Sequence[Sequence[torch.Tensor | None]],
    data: Data,
    samples: Sequence[int],
    seeds: Sequence[int],
    keys: Sequence[str],
    speakers: Sequence[str],
    origins: Sequence[tuple[tuple[int, int, str] | None, ...]] | None = None,
) -> Batch:
    """One Batch of B choices that agree in R and K.

    frames: for each choice R uint8 tensors [K, S, S, 3] (S = data.size), None for padding, which becomes black frames
    and silence; with nothing but None, where nothing was decoded, frames have no pixels. The batch's frames lie where the decoded frames do, everything else on the CPU.
    """
    pieces = [f for row in frames for f in row if f is not None]
    rows, count = choices[0].positions.shape
    known = [r for c in choices for r in c.recordings if r is not None]
    width = known[0].features.shape[1]
    landmarks = None
    if all(r.landmarks is not None for r in known):
        landmarks = np.zeros((len(choices), rows, count, *known[0].landmarks.shape[1:]), np.float32)  # type: ignore[union-attr]
    side, device = (data.size, pieces[0].device) if pieces else (0, None)
    pictures = torch.zeros((len(choices), rows, count, 3, side, side), dtype=torch.uint8, device=device)
    speech = np.zeros((len(choices), rows, count, data.speech_window, width), dtype=np.float32)
    for b, choice in enumerate(choices):
        for r, recording in enumerate(choice.recordings):
            if recording is not None:
                if (decoded := frames[b][r]) is not None:
                    pictures[b, r] = decoded.permute(0, 3, 1, 2)
                speech[b, r] = speech_window(recording.features, choice.positions[r], data.speech_window)
                if landmarks is not None and recording.landmarks is not None:
                    landmarks[b, r] = recording.landmarks[choice.positions[r]]
    return Batch(
        frames=pictures,
        speech=torch.from_numpy(speech),
        position=torch.from_numpy(np.stack([c.positions for c in choices])),
        emotion=torch.tensor([[_EMOTION_NUMBER[e] for e in c.emotions] for c in choices], dtype=torch.int64),
        valid=torch.from_numpy(np.stack([c.valid for c in choices])),
        sample=torch.tensor(samples, dtype=torch.int64),
        seed=Seeds(tuple(seeds)),
        keys=list(keys),
        speakers=list(speakers),
        origins=None if origins is None else list(origins),
        landmarks=None if landmarks is None else torch.from_numpy(landmarks),
    )


def _usable(group: UtteranceGroup, a: Recording, b: Recording, data: Data) -> bool:
    for key in ((a.name, b.name), (b.name, a.name)):
        if key in group.warps:
            cost = group.warp_costs.get(key, float("nan"))
            # A cost that was never measured (nan) cannot be shown to be good, so a filter removes it.
            return data.maximum_warp_cost is None or cost <= data.maximum_warp_cost
    return False


def _spread_in_both(
    good: np.ndarray, matches: np.ndarray, count: int, gap: int, rng: np.random.Generator
) -> np.ndarray:
    """`count` of `good` at least `gap` apart, and where some draw allows it, their matches apart as well.

    A pause in one recording maps many frames to one of the other; two negatives would then be the same frame.
    """
    best, best_gap = good[:count], -1
    for _ in range(_TRIES):
        positions = _spread(good, count, gap, rng)
        smallest = int(np.diff(matches[positions]).min()) if count > 1 else gap
        if smallest > best_gap:
            best, best_gap = positions, smallest
        if smallest >= gap:
            break
    return best


def _spread(good: np.ndarray, count: int, gap: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the ascending numbers `good`, uniform over the sets that keep `gap` places (or what fits) between."""
    fits = min(gap, (len(good) - 1) // max(count - 1, 1))
    slots = np.sort(rng.choice(len(good) - (count - 1) * (fits - 1), size=count, replace=False))
    return good[slots + np.arange(count) * (fits - 1)]


def _choose(numbers: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of `numbers` at random: distinct as far as they reach, then repeats."""
    chosen = rng.permutation(numbers)[:count]
    return np.concatenate([chosen, np.resize(numbers, count - len(chosen))]) if len(chosen) < count else chosen
