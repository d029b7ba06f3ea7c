"""The typed records that flow between the packages: Clip -> UtteranceGroup -> Batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spfem_dist.emotions import Emotion

if TYPE_CHECKING:  # importing it takes seconds, and preparing data needs none of it
    import torch


@dataclass(frozen=True)
class Clip:
    """One recording of one person saying one sentence, as a corpus names it. Nothing has been opened yet.

    level: intensity as the corpus counts it (MEAD 1-3, RAVDESS 1-2, CREMA-D 1-3), 1 where there is only one.
    take: repetition number, from 1.
    audio: the file that holds the speech; None means the sound track of `video`.
    start, end: the part of the files that is the recording, seconds from the first picture; None means to the end.
    """

    corpus: str
    speaker: str
    sentence: str
    emotion: Emotion
    level: int
    take: int
    video: Path
    audio: Path | None = None
    start: float = 0.0
    end: float | None = None

    @property
    def whole(self) -> bool:
        """Whether the recording is the whole of its file."""
        return self.start == 0 and self.end is None

    @property
    def place(self) -> str:
        """The video's path, with the part of it that is meant."""
        return str(self.video) if self.whole else f"{self.video} from {self.start:g} s to {self.end or 'its end'}"

    @property
    def recording(self) -> str:
        """Name of this recording inside its group, e.g. `happy-3-1`; no dots, so it can be part of a tar member."""
        return f"{self.emotion.value}-{self.level}-{self.take}"

    @property
    def group(self) -> str:
        """Key of the utterance group this clip belongs to, e.g. `M003_001`."""
        return f"{self.speaker}_{self.sentence}"


@dataclass(frozen=True)
class Reject:
    """One recording (or stray file) that is not used, and why. `reason` is a short code, `detail` a sentence."""

    path: str
    reason: str
    detail: str

    def __post_init__(self) -> None:
        for name in ("path", "detail"):  # a file's name may hold bytes that are no text; tables and messages are text
            object.__setattr__(self, name, getattr(self, name).encode("utf-8", "backslashreplace").decode())


class Unusable(Exception):
    """A recording that cannot be used; `reason` is a short code for the rejects table, `detail` says what and how to mend it."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass
class RawRecording:
    """One recording, opened, cropped and at constant rate, before speech features and encoding.

    frames: uint8 [T, S, S, 3] RGB. fps: frames per second. speech: float32 [N] mono 16 kHz in [-1, 1].
    landmarks: float32 [T, L, 2] in pixels of the crop, or None. valid: bool [T].
    truth: rendered corpora only, arrays with T rows (see `Recording`).
    """

    frames: np.ndarray
    fps: float
    speech: np.ndarray
    valid: np.ndarray
    landmarks: np.ndarray | None = None
    truth: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Recording:
    """One emotion's recording of a group, as stored in a shard.

    video: encoded bytes (mp4 or webm), `frames` frames at the group's constant fps, RGB after decoding.
    speech: 16 kHz mono FLAC bytes. features: float32 [frames, F], one row per video frame.
    landmarks: float32 [frames, L, 2] in pixels of the stored crop, or None. valid: bool [frames], False where
    the face was not found and landmarks are interpolated.
    truth: known only for rendered corpora, arrays with `frames` rows (`visemes` [frames, 4], `phase` [frames], ...).
    """

    name: str
    emotion: Emotion
    level: int
    take: int
    frames: int
    video: bytes
    speech: bytes
    features: np.ndarray
    valid: np.ndarray
    landmarks: np.ndarray | None = None
    truth: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class UtteranceGroup:
    """One speaker saying one sentence in every emotion, level and take recorded: one WebDataset sample.

    warps: (name_a, name_b) -> int32 [2, P]; column p says frame warps[0, p] of a matches frame warps[1, p] of b.
    Stored once for each unordered pair, in the order of `recordings`; `warp(a, b)` answers either direction.
    warp_costs: the same keys -> mean frame distance along the path, to filter on.
    """

    key: str
    corpus: str
    speaker: str
    sentence: str
    fps: float
    size: int
    recordings: list[Recording]
    warps: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    warp_costs: dict[tuple[str, str], float] = field(default_factory=dict)

    def warp(self, a: str, b: str) -> np.ndarray | None:
        """The path from recording `a` to recording `b`, int32 [2, P], or None where it was not stored."""
        if (a, b) in self.warps:
            return self.warps[(a, b)]
        if (b, a) in self.warps:
            return self.warps[(b, a)][::-1]
        return None


@dataclass(frozen=True)
class Seeds:
    """The keys of the randomness of a batch's samples, and where the numbers that are drawn from them are wanted.

    They stay on the host, where numbers are drawn: on a GPU each draw would wait for all work in flight.
    """

    numbers: tuple[int, ...]
    device: torch.device | str = "cpu"

    def to(self, device: torch.device | str) -> Seeds:
        """The same keys, numbers drawn from them wanted on `device`."""
        return Seeds(self.numbers, device)

    def __getitem__(self, which: slice) -> Seeds:
        return Seeds(self.numbers[which], self.device)

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass
class Batch:
    """Tensors of one micro-batch: B samples, each R recordings of one utterance group, K frames of each.

    frames: uint8 [B, R, K, 3, S, S], RGB. speech: float32 [B, R, K, W, F]: a window of W feature rows around each frame.
    position: int64 [B, R, K], frame index within its recording. emotion: int64 [B, R], index into `spfem_dist.emotions`
    `list(Emotion)`; never stored. valid: bool [B, R, K]; False marks frames without a found face and padding.
    sample: int64 [B], global sample numbers; seed: of each sample, the key of all its randomness.
    keys: the group key of each sample; speakers: who speaks in it, where the loader said so. landmarks: float32 [B, R, K, L, 2], pixels of the frames, where they were asked for.
    origins: where the R recordings of each sample lie, as (shard, group in it, name), None for padding; where the loader said so.
    extras: what a job added to it in the loader's threads, tensors [B, ...] by name.
    """

    frames: torch.Tensor
    speech: torch.Tensor
    position: torch.Tensor
    emotion: torch.Tensor
    valid: torch.Tensor
    sample: torch.Tensor
    seed: Seeds
    keys: list[str]
    landmarks: torch.Tensor | None = None
    speakers: list[str] | None = None
    origins: list[tuple[tuple[int, int, str] | None, ...]] | None = None
    extras: dict[str, torch.Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on `device` (asynchronously where the memory is pinned)."""
        moved = self.each(lambda tensor: tensor.to(device, non_blocking=True))
        moved.seed = self.seed.to(device)
        return moved

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The same batch with every tensor changed."""
        changed: dict[str, Any] = {
            f.name: change(value) if hasattr(value := getattr(self, f.name), "new_empty") else value
            for f in fields(self)
        }
        return Batch(**changed | {"extras": {name: change(value) for name, value in self.extras.items()}})

    def part(self, which: slice) -> Batch:
        """The samples `which`, in order."""
        taken = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extras"}
        parts: dict[str, Any] = {name: value if value is None else value[which] for name, value in taken.items()}
        return Batch(**parts, extras={name: value[which] for name, value in self.extras.items()})

    def __len__(self) -> int:
        return len(self.keys)
