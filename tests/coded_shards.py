"""Small shards whose frames say which recording and which frame they are, readable after lossy coding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spfem_dist.config import Data
from spfem_dist.emotions import Emotion
from spfem_dist.prepare.shards import encode_speech, encode_video, write_shard
from spfem_dist.records import Recording, UtteranceGroup
from spfem_dist.shard_format import ShardIndex, shards_digest

SIZE = 32
FEATURES = 8


def coded_frames(frames: int, number: int, size: int = SIZE) -> np.ndarray:
    """uint8 [frames, size, size, 3]: 16 grey squares, dark or bright, spell (number, frame) in binary, 8 bits each."""
    bits = (np.arange(frames)[:, None] >> np.arange(8)) & 1
    mine = np.repeat(((number >> np.arange(8)) & 1)[None], frames, axis=0)
    squares = np.concatenate([mine, bits], axis=1).reshape(frames, 4, 4) * 150 + 50
    side = size // 4
    return np.repeat(np.kron(squares, np.ones((1, side, side)))[..., None], 3, axis=-1).astype(np.uint8)


def read_code(picture: np.ndarray) -> tuple[int, int]:
    """(number, frame) of one uint8 [S, S, 3] picture made by `coded_frames`."""
    side = picture.shape[0] // 4
    means = picture.reshape(4, side, 4, side, 3).mean((1, 3, 4)).reshape(-1)
    bits = (means > 125).astype(int)
    return int((bits[:8] << np.arange(8)).sum()), int((bits[8:] << np.arange(8)).sum())


def make_group(
    speaker: str, sentence: str, emotions: tuple[Emotion, ...], number: int, codec: str = "h264", frames: int = 30
) -> UtteranceGroup:
    """A group with one recording for each emotion; recording n is coded with number + n and has frames + 3 n frames."""
    recordings = []
    for n, emotion in enumerate(emotions):
        count = frames + 3 * n
        rows = np.arange(count, dtype=np.float32)[:, None] + np.arange(FEATURES, dtype=np.float32) / 16
        recordings.append(
            Recording(
                name=f"{emotion.value}-1-1",
                emotion=emotion,
                level=1,
                take=1,
                frames=count,
                video=encode_video(coded_frames(count, number + n), 25.0, codec),
                speech=encode_speech(np.zeros(count * 640, np.float32)),
                features=rows,
                valid=np.ones(count, bool),
            )
        )
    warps, costs = {}, {}
    for i, a in enumerate(recordings):
        for b in recordings[i + 1 :]:
            steps = np.linspace(0, 1, b.frames)
            warps[(a.name, b.name)] = np.stack(
                [np.round(steps * (a.frames - 1)), np.round(steps * (b.frames - 1))]
            ).astype(np.int32)
            costs[(a.name, b.name)] = 0.5
    return UtteranceGroup(f"{speaker}_{sentence}", "test", speaker, sentence, 25.0, SIZE, recordings, warps, costs)


def write_shards(folder: Path, shards: list[list[UtteranceGroup]]) -> Path:
    """Tars and index.json as `spfem prepare` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [write_shard(folder / f"shard-{n:06d}.tar", groups) for n, groups in enumerate(shards)]
    ShardIndex(
        corpus="test",
        fps=25.0,
        size=SIZE,
        speech_features="logmel",
        feature_dim=FEATURES,
        landmarks="none",
        digest=shards_digest(entries),
        shards=entries,
    ).save(folder)
    return folder


@dataclass(frozen=True)
class Small:
    """Six shards of two groups; group g's recording n is coded 8 g + n. The last group has one emotion only."""

    root: Path
    groups: list[UtteranceGroup]

    def data(self, **changes: object) -> Data:
        values = {"shards": str(self.root), "size": SIZE, "frames_per_recording": 4, "decoder": "pyav", "split": "none"}
        return Data(**(values | changes))
