"""Everything that the open judges and the mesh see in one film, read twice: once for the face, once for what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spfem_dist.editing.face import finder_for
from spfem_dist.editing.video import EditError, Footage, footage, pictures
from spfem_dist.emotions import SEVEN, Emotion
from spfem_dist.evaluation.open_judges.faces import FaceCut, cut
from spfem_dist.evaluation.open_judges.judges import EMOTION_JUDGES, OpenJudges
from spfem_dist.prepare.faces import FaceTrack
from spfem_dist.prepare.landmarks import mouth_opening

#: Identity changes slowly: one frame of so many is looked at.
IDENTITY_STEP = 5
#: Frames that are judged together.
_CHUNK = 16

Look = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class SeenFilm:
    """A film of T frames, N of which show a face.

    track: the mesh's. frames: int [N], which frames show the face. emotion: float32 [N, 7] in the order of SEVEN, by judge.
    identity: float32 [K, 128], of the frames `identity_frames` [K]. landmarks: float32 [N, 68, 2] in pixels, by face-api.
    """

    film: Footage
    track: FaceTrack
    frames: np.ndarray
    emotion: dict[str, np.ndarray]
    identity: np.ndarray
    identity_frames: np.ndarray
    landmarks: np.ndarray

    def probability(self, emotion: Emotion, judge: str = "") -> float:
        """Mean over frames that the judge gives the emotion; empty: the mean of both judges."""
        judges = [judge] if judge else EMOTION_JUDGES
        return float(np.mean([self.emotion[name][:, SEVEN.index(emotion)].mean() for name in judges]))

    @property
    def agreement(self) -> float:
        """Share of the N frames on which both judges say the same."""
        one, other = (self.emotion[name].argmax(1) for name in EMOTION_JUDGES)
        return float((one == other).mean())

    @property
    def opening(self) -> np.ndarray:
        """float [T], how far the mouth is open by the mesh; NaN where there is no face."""
        assert self.track.landmarks is not None
        opening = mouth_opening(self.track.landmarks, "mesh478")
        return np.where(self.track.found, opening, np.nan)

    @property
    def opening_68(self) -> np.ndarray:
        """The same by the 68 landmarks of face-api."""
        opening = np.full(len(self.track.found), np.nan)
        opening[self.frames] = mouth_opening(self.landmarks, "ibug68")
        return opening


def track_of(film: Footage, advance: Callable[[], object] = lambda: None) -> FaceTrack:
    """The mesh of the largest face in each frame, pixels of the upright frame. Raises EditError where there is none at all."""

    def shown() -> Iterator[np.ndarray]:
        for picture in pictures(film):
            yield picture.rgb()
            advance()

    track = finder_for("mesh", False).track(shown())
    if not track.found.any():
        raise EditError(f"{film.path}: no face in any of {len(track.found)} frames: nothing can be judged")
    return track


def see(
    path: Path,
    judges: OpenJudges,
    beside: Callable[[FaceTrack], Look] | None = None,
    advance: Callable[[], object] = lambda: None,
) -> SeenFilm:
    """What `judges` see in the film. advance: called twice for every frame.

    beside: given the film's track, a function that is shown the number and the RGB of every frame in order, at the second reading.
    Raises EditError where it is no film, or shows no face.
    """
    film = footage(path)
    track = track_of(film, advance)
    assert track.landmarks is not None
    look = beside(track) if beside else None
    waiting: list[tuple[int, FaceCut]] = []
    parts: list[tuple[list[int], dict[str, np.ndarray], np.ndarray, np.ndarray]] = []

    def judge() -> None:
        numbers, faces = [number for number, _ in waiting], [face for _, face in waiting]
        known = [face for number, face in waiting if number % IDENTITY_STEP == 0]
        identity = judges.identity(known) if known else np.zeros((0, 128), np.float32)
        parts.append((numbers, judges.emotion(faces), identity, judges.landmarks(faces)))
        waiting.clear()

    for number, picture in enumerate(pictures(film)):
        frame = picture.rgb()
        if number < len(track.found) and track.found[number]:
            waiting.append((number, cut(frame, track.landmarks[number])))
        if look is not None:
            look(number, frame)
        if len(waiting) == _CHUNK:
            judge()
        advance()
    if waiting:
        judge()
    numbers, emotion, identity, landmarks = zip(*parts, strict=True)
    frames = np.concatenate([np.array(n) for n in numbers])
    return SeenFilm(
        film,
        track,
        frames,
        {name: np.concatenate([part[name] for part in emotion]) for name in EMOTION_JUDGES},
        np.concatenate(identity),
        frames[frames % IDENTITY_STEP == 0],
        np.concatenate(landmarks),
    )
